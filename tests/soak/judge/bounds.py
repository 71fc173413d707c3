"""P6: recovery within the promised bounds, and nothing stands still, whenever nothing (else) is broken.

Times are compared to the product's advantage: from the latest moment at which something can have begun to the
earliest at which it can have been over; and only where no fault, no start of a process and no stall of the machine
falls into the time judged or shortly before.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from tests.soak.judge.fires import Fires
from tests.soak.judge.reading import At, Fault, History, Judge, State, Step, claim_of, job_of, run_at, unquote

FIRE = 3.0
"""Seconds in which a due fire is decided."""
REQUEST = 3.0
"""Seconds in which a request is decided."""
CLAIM = 5.0
"""Seconds in which a node with a free place claims what lies in its queue."""
PASSED = 1.0
"""Seconds between two requests, and for which the earlier one is passed over, that are no accident."""
START = 6.0
"""Seconds during which a process that begins may slow everybody down."""


class Asked(NamedTuple):
    """A request in the inbox, until it is decided."""

    ident: str
    run: str
    term: int
    put: Step
    decided: Step | None = None
    decider: int = 0


class Bounds(Judge):
    """In time."""

    def __init__(self, history: History, fires: Fires) -> None:
        super().__init__(history)
        self._fires = fires
        head = history.header
        self.leader_ttl, self.node_ttl = float(head.get("leader_ttl", 5)), float(head.get("node_ttl", 10))
        self.grace = float(head.get("grace", 5))
        self._recovery = 2 * max(self.leader_ttl + 2, self.node_ttl + self.grace + 2)
        self._stops: list[tuple[float, float]] = []
        self._leads: list[tuple[float, float, str, int]] = []
        """When each term began (not before, not after), its shard and its number."""
        self._requests: dict[str, Asked] = {}
        self._decided: list[Asked] = []
        self._held: dict[str, dict[At, float]] = defaultdict(dict)
        """Incarnation -> messages sent to it or claimed by it."""
        self._let_go: dict[str, float] = {}
        """Incarnation -> when the last of it went."""
        self._claims: dict[str, set[At]] = defaultdict(set)
        self._capacity: dict[str, int] = {}
        self._unclaimed: dict[At, tuple[str, float]] = {}
        self._late_claims: list[tuple[str, float, float]] = []
        self._cordoned: set[str] = set()

    # -- gathering -----------------------------------------------------------------------------

    def before(self, step: Step, state: State) -> None:
        """Note when what began and ended."""
        for change in step.changes:
            match change.parts:
                case ["control"] if change.new:
                    if change.new.told.get("stop"):
                        self._stops.append((step.low, float("inf")))
                    elif self._stops and self._stops[-1][1] == float("inf"):
                        self._stops[-1] = self._stops[-1][0], step.high + 2
                case ["beat", shard, "leader"] if change.new:
                    self._leads.append((step.low, step.high, shard, change.new.create))
                case ["node", _] if change.new:
                    told = change.new.told
                    free = not told.get("draining")
                    self._capacity[str(told.get("incarnation"))] = int(told.get("capacity", 1)) if free else 0
                case ["nodectl", _]:
                    self._cordoned.add(change.parts[1])
                case ["run", "in", ident]:
                    told = (change.new or change.old).told if change.new or change.old else {}
                    leads = state.leader(str(told.get("job") or job_of(str(told.get("run")))))
                    term = leads.create if leads else 0
                    if change.new and change.new.told.get("kind") in ("run", "cancel"):
                        self._requests.setdefault(ident, Asked(ident, str(change.new.told.get("run")), term, step))
                    elif change.new is None and ident in self._requests:
                        self._decided.append(self._requests.pop(ident)._replace(decided=step, decider=term))
                case ["run", "q", queue, "m", place]:
                    self._message(step, state, (unquote(queue), place), there=change.new is not None)
                case ["run", "q", queue, "c", place]:
                    at = unquote(queue), place
                    for claims in self._claims.values():
                        claims.discard(at)
                    holder = claim_of(change.new).holder if change.new else ""
                    if holder:
                        self._claims[holder].add(at)
                        self._held[holder][at] = step.high
                        self._claimed(step, at)
        for at, (target, _) in self._unclaimed.items():
            if len(self._claims[target]) >= self._capacity.get(target, 1) or target not in state.sessions:
                self._unclaimed[at] = target, step.high

    def after(self, step: Step, state: State) -> None:
        """Who was sent what, as it is now."""
        for change in step.of("run", "q"):
            match change.parts:
                case [_, _, queue, "m", place] if change.new:
                    at = unquote(queue), place
                    target = str(state.messages[at].envelope.get("incarnation", ""))
                    self._held[target][at] = step.high
                    if at not in state.claims:
                        self._unclaimed[at] = target, step.high

    def _message(self, step: Step, state: State, at: At, *, there: bool) -> None:
        if there:
            return
        self._unclaimed.pop(at, None)
        for incarnation, held in self._held.items():
            if held.pop(at, None) is not None:
                self._let_go[incarnation] = step.low

    def _claimed(self, step: Step, at: At) -> None:
        found = self._unclaimed.pop(at, None)
        if found is not None:
            self._late_claims.append((run_at(at[1]), found[1], step.low))

    # -- judging -------------------------------------------------------------------------------

    def finish(self, state: State) -> None:
        """Hold each against its bound."""
        end = self.history.steps[-1].low if self.history.steps else 0.0
        asked = [*self._decided, *self._requests.values()]
        for each in asked:
            until = each.decided.low if each.decided else end
            self._in_time(f"the request {each.ident} is decided", each.put.high, until, REQUEST)
        self._overlooked(asked, end)
        for at, (_, since) in self._unclaimed.items():
            self._late_claims.append((run_at(at[1]), since, end))
        for run, since, until in self._late_claims:
            self._in_time(f"{run} is claimed", since, until, CLAIM)
        for (job, second), step in self._fires.decided.items():
            if not self._fires.paused(job, second):
                self._in_time(f"{job} at {second} is decided", second, step.low, FIRE)
        for fault in self.history.faults:
            if fault.facts.get("leader_gone"):
                self._leader(fault, end)
            for incarnation in fault.facts.get("nodes_gone", ()):
                self._node(fault, incarnation, end)

    def _in_time(self, what: str, since: float, until: float, bound: float) -> None:
        if until - since > bound and self._calm(since - self._recovery, since + bound):
            self.say("in time", f"{what} {until - since:.1f} s after {since:.1f}, {bound:g} s are promised")

    def _overlooked(self, asked: list[Asked], end: float) -> None:
        """However slow all is: a leader that has decided a later request has decided the earlier ones."""
        for each in asked:
            until = each.decided.low if each.decided else end
            passed = [
                later.decided
                for later in self._decided
                if later.put.low > each.put.high + PASSED and later.decider == each.term and later.decided
            ]
            first = min((step.high for step in passed), default=until)
            if first + PASSED < until and not self._broken(each.put.low, first + PASSED):
                say = f"the request {each.ident} for {each.run}, put at revision {each.put.revision}"
                self.say("no request is overlooked", f"{say}: later ones were decided {until - first:.1f} s before it")

    def _leader(self, fault: Fault, end: float) -> None:
        """Another centre leads."""
        clean = fault.facts["leader_gone"] == "clean"
        bound = 1.0 if clean else self.leader_ttl + 2
        if end < fault.began + bound or not self._calm(fault.began - self._recovery, fault.began + bound, fault):
            return
        shard, term = str(fault.facts.get("shard", 0)), int(fault.facts["term"])
        begun = [low for low, high, *it in self._leads if high > fault.began and it[0] == shard and it[1] > term]
        if not begun or begun[0] > fault.began + bound:
            took = f"{begun[0] - fault.began:.1f} s" if begun else "never"
            self.say("in time", f"another centre leads after {fault.ident} at {fault.began:.1f}: {took}, {bound:g} s")

    def _node(self, fault: Fault, incarnation: str, end: float) -> None:
        """What a lost node held is elsewhere."""
        bound = self.node_ttl + self.grace + 2
        if end < fault.began + bound or not self._calm(fault.began - self._recovery, fault.began + bound, fault):
            return
        gone = self._let_go.get(incarnation, 0.0) if not self._held[incarnation] else end
        if gone > fault.began + bound:
            say = f"the work of {incarnation}, lost at {fault.began:.1f}, moves on after {gone - fault.began:.1f} s"
            self.say("in time", f"{say}, {bound:g} s are promised")

    def _broken(self, since: float, until: float, apart_from: Fault | None = None) -> bool:
        """Whether something was broken on purpose, or all was stopped by people, between two instants."""
        faults = (each for each in self.history.faults if each is not apart_from)
        stopped = any(began <= until and ended >= since for began, ended in self._stops)
        return stopped or any(fault.began <= until and fault.ended >= since for fault in faults)

    def _calm(self, since: float, until: float, apart_from: Fault | None = None) -> bool:
        """Whether nothing was broken, began or stalled between two instants."""
        if self._broken(since, until, apart_from):
            return False
        for each in self.history.processes:
            began = float(each["at"])
            if each["what"] == "started" and began <= until and began + START >= since:
                return False
        return not any(float(each["at"]) - float(each["seconds"]) <= until and float(each["at"]) >= since
                       for each in self.history.stalls)  # fmt: skip
