"""The offline judge: a history against a plain model of queues. It knows nothing of the transport's code.

Two witnesses are heard: etcd's own changes in their order, and what the actors said. Each rule below says what it
forbids; a finding names the rule, so that a test can tell which one caught what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from tests.property.history import Change, History
from tests.property.plan import FAN, FETCHED, Plan

EARLY, LATE = 0.05, 0.05
"""How much earlier than its life a message may expire, and later be claimed, seconds."""


class Finding(NamedTuple):
    """A broken rule."""

    rule: str
    what: str


@dataclass
class Life:
    """One message in one queue, from its put to its deletion."""

    ident: str
    queue: str
    place: str
    put: int
    at: float
    expires: float
    claims: list[Held] = field(default_factory=list)
    gone: int = 0


@dataclass
class Held:
    """One state of a claim: its fence, holder (empty: given back) and count; until when, and how it ended."""

    fence: int
    holder: str
    count: int
    at: float
    first: bool
    until: int = 0
    deleted: bool = False


class Judge:
    """Judges one history. `findings()` gives every broken rule."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.found: list[Finding] = []
        self.plan = Plan(tuple(history.plan["queues"]), tuple(tuple(each) for each in history.plan["bindings"]))
        self.by: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for op in sorted(history.ops, key=lambda op: op["t"]):
            self.by[op["op"]].append(op)
        self.lives: dict[tuple[str, str], list[Life]] = defaultdict(list)
        self.sessions: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        self.broadcasts: list[tuple[int, str]] = []
        self.bound: dict[str, int] = {}
        self.fetched: list[Life] = []
        self.seen = max((change.revision for change in history.changes), default=0)
        self.announced = self._announced()
        self.pooled = {(op["queue"], op["place"], op["fence"]) for op in self.by["pooled"]}
        self.handed = {(op["queue"], op["place"], op["fence"]): op["at"] for op in self.by["deliver"]}
        self.closed: dict[str, list[float]] = defaultdict(list)
        for op in self.by["close"]:
            self.closed[op["incarnation"]].append(op["at"])

    def findings(self) -> list[Finding]:
        """All of them, in the order of the rules."""
        self.found = []
        self._replay()
        self._crashes()
        self._deliveries()
        self._order()
        self._settled()
        self._heard()
        if self.history.ended:
            self._taken()
            self._complete()
            self._left()
        return self.found

    def _say(self, rule: str, what: str) -> None:
        self.found.append(Finding(rule, what))

    def _announced(self) -> dict[tuple[str, str, int], set[str]]:
        found: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        for what in ("ack", "reject", "requeue"):
            for op in self.by[what]:
                found[op["queue"], op["place"], op["fence"]].add(what)
        return found

    # -- what etcd shows -------------------------------------------------------------------------------

    def _replay(self) -> None:
        for _, group in groupby(self.history.changes, key=lambda change: change.revision):
            self._revision(list(group))

    def _revision(self, changes: list[Change]) -> None:
        """All changes of one revision: they happened at once, so compares saw what was before all of them."""
        gone = {(each.queue, each.place) for each in changes if each.kind == "message" and not each.put}
        for each in changes:
            if each.kind == "claim":
                self._claim(each, gone)
        for each in changes:
            if each.kind == "message":
                self._message(each)
            elif each.kind == "session":
                self.sessions[each.queue].append((each.revision, each.put))
            elif each.kind == "broadcast" and each.put:
                self.broadcasts.append((each.revision, each.ident))
            elif each.kind == "binding" and each.put:
                self.bound.setdefault(each.queue, each.revision)

    def _alive(self, incarnation: str) -> bool:
        known = self.sessions.get(incarnation)
        return bool(known) and known[-1][1]

    def _life(self, queue: str, place: str) -> Life | None:
        lives = self.lives.get((queue, place))
        return lives[-1] if lives and not lives[-1].gone else None

    def _message(self, change: Change) -> None:
        where = f"{change.ident or change.place} in {change.queue} at revision {change.revision}"
        life, key = self._life(change.queue, change.place), (change.queue, change.place)
        if not change.put:
            if life is not None:
                self._ended(life, change, where)
                life.gone = change.revision
            return
        if life is not None:
            self._say("put once", f"{where}: it lay there already, put again")
            life.gone = change.revision
        elif self.lives[key]:
            self._say("put once", f"{where}: it was dealt with, and came back")
        self.lives[key].append(
            Life(change.ident, change.queue, change.place, change.revision, stamped(change.place), change.life)
        )

    def _claim(self, change: Change, gone: set[tuple[str, str]]) -> None:
        life = self._life(change.queue, change.place)
        where = f"{life.ident if life else change.place} in {change.queue} at revision {change.revision}"
        if not change.put:
            if life is not None and (change.queue, change.place) not in gone:
                self._say("claims stay", f"{where}: its claim was deleted, the message was not")
            return
        if life is None or (change.queue, change.place) in gone:
            self._say("no claim without message", f"{where}: claimed by {change.ident or 'nobody'}")
            return
        before = life.claims[-1] if life.claims else None
        count = before.count if before else 0
        seen = before is None or (life.queue, life.place, before.fence) in self.handed
        unseen = count - 1 if not change.ident and not seen else count  # what nobody saw need not count
        if change.count not in (count + bool(change.ident), unseen + bool(change.ident)):
            self._say("deliveries are counted", f"{where}: count {change.count} after {count}")
        if change.ident and not self._alive(change.ident):
            self._say("only the living claim", f"{where}: {change.ident} has no session")
        if before is not None:
            before.until = change.revision
            if before.holder:
                self._changed_hands(life, before, change, where)
        life.claims.append(Held(change.revision, change.ident, change.count, change.life, first=before is None))

    def _changed_hands(self, life: Life, before: Held, change: Change, where: str) -> None:
        key = life.queue, life.place, before.fence
        if not self._alive(before.holder):
            return
        if change.ident:
            self._say("a holder keeps it", f"{where}: {change.ident} took it from {before.holder}, which lives")
        elif key in self.pooled:
            self._say("a holder keeps it", f"{where}: {before.holder} lives, and its pool was at work on it")
        elif "requeue" not in self.announced[key] and not self._let_go(key, before.holder, change.at):
            self._say("a holder keeps it", f"{where}: {before.holder} has it, lives, and did not give it back")

    def _let_go(self, key: tuple[str, str, int], holder: str, at: float) -> bool:
        """Whether the connection that this was handed to was closed since; what was never handed over is free."""
        since = self.handed.get(key)
        return since is None or any(since <= closed <= at for closed in self.closed[holder])

    def _ended(self, life: Life, change: Change, where: str) -> None:
        """A message was deleted: by whoever held it and said so, by a taker, or because its time was over."""
        held = life.claims[-1] if life.claims else None
        if held is not None:
            held.until, held.deleted = change.revision, True
        if life.expires and change.at - life.at >= life.expires - EARLY:
            return
        if held is None or not held.holder:
            if life.queue == FETCHED and self.by["taking"]:
                self.fetched.append(life)
            else:
                self._say("nothing is lost", f"{where}: deleted, and nobody had it")
            return
        if not self.announced[life.queue, life.place, held.fence] & {"ack", "reject"}:
            self._say("only the holder ends it", f"{where}: {held.holder} held it by fence {held.fence}")

    # -- what the actors say ---------------------------------------------------------------------------

    def _crashes(self) -> None:
        for op in self.by["crashed"]:
            self._say("nobody crashes", f"{op['actor']}: {op['error']}")

    def _claims(self) -> dict[tuple[str, str, int], tuple[Life, Held]]:
        return {
            (life.queue, life.place, held.fence): (life, held)
            for lives in self.lives.values()
            for life in lives
            for held in life.claims
        }

    def _deliveries(self) -> None:
        claims, once = self._claims(), set()
        before: dict[tuple[str, str], list[int]] = defaultdict(list)
        for op in self.by["deliver"]:
            key = op["queue"], op["place"], op["fence"]
            where = f"{op['id']} in {op['queue']} to {op['consumer']} by fence {op['fence']}"
            if key in once:
                self._say("delivered once for each claim", where)
            once.add(key)
            if op["redelivered"] != (op["count"] > 1):
                self._say("redelivered says so", f"{where}: count {op['count']}, redelivered {op['redelivered']}")
            if op["fence"] > self.seen:
                continue
            if key not in claims:
                self._say("delivered is claimed", f"{where}: there is no such claim")
                continue
            life, held = claims[key]
            if (life.ident, held.holder, held.count) != (op["id"], op["incarnation"], op["count"]):
                self._say("delivered is claimed", f"{where}: the claim is of {held.holder}, message {life.ident}")
            if life.expires and held.at - life.at > life.expires + LATE:
                self._say("expired is not delivered", f"{where}: {held.at - life.at:.1f} s old, life {life.expires} s")
            before[op["queue"], op["id"]].append(life.put)
        for (queue, ident), puts in before.items():
            if len(set(puts)) > 1:
                self._say("one message, one place", f"{ident} was delivered from {len(set(puts))} places of {queue}")

    def _taken(self) -> None:
        """What nobody held was deleted for a taker, which got it; unless its answer was lost."""
        got = [op["place"] for op in self.by["taken"] if "place" in op]
        if len(set(got)) < len(got):
            self._say("one message, one place", f"{len(got) - len(set(got))} messages were taken twice")
        missing = [life.ident for life in self.fetched if life.place not in got]
        if len(missing) > len(self.by["taking"]) - len(self.by["taken"]):
            self._say("nothing is lost", f"deleted for takers that did not get them: {missing}")

    def _order(self) -> None:
        """What a consumer saw untouched came to it by priority, and, when it was alone, in the order of publishing."""
        claims, alone = self._claims(), bool(self.history.plan.get("alone"))
        got: dict[str, list[Life]] = defaultdict(list)
        for op in self.by["deliver"]:
            life, held = claims.get((op["queue"], op["place"], op["fence"]), (None, None))
            if life is None or held is None or not held.first:
                continue
            for earlier in got[op["consumer"]]:
                # It knew of the earlier one, so it knew of everything put before that.
                if earlier.place <= life.place or earlier.put < life.put:
                    continue
                rule = "urgent first" if earlier.place[0] > life.place[0] else "in order"
                if rule == "urgent first" or alone:
                    self._say(
                        rule,
                        f"{op['consumer']} got {earlier.ident} ({earlier.place[0]}, put at {earlier.put}) "
                        f"before {life.ident} ({life.place[0]}, put at {life.put})",
                    )
                    break
            got[op["consumer"]].append(life)

    def _settled(self) -> None:
        """What was settled, and called confirmed, had its effect by then (or came too late: the claim had ended)."""
        claims = self._claims()
        for flushed in self.by["flushed"]:
            for op in self.by["told"]:
                if op["actor"] != flushed["actor"] or op["t"] >= flushed["t"] or flushed["revision"] > self.seen:
                    continue
                life, held = claims.get((op["queue"], op["place"], op["fence"]), (None, None))
                if life is not None and held is not None and not 0 < held.until <= flushed["revision"]:
                    self._say("settled is settled", f"{life.ident} in {life.queue}, by fence {held.fence}")

    def _heard(self) -> None:
        """A subscriber hears every broadcast since its binding, in order and once, until it ends."""
        heard: dict[str, list[str]] = defaultdict(list)
        for op in self.by["heard"]:
            heard[op["queue"]].append(op["id"])
        for queue, idents in heard.items():
            since = self.bound.get(queue)
            if since is None:
                continue
            due = [ident for revision, ident in self.broadcasts if revision > since]
            if due[: len(idents)] != idents[: len(due)] or (self.history.ended and len(idents) > len(due)):
                at = next((n for n, pair in enumerate(zip(due, idents, strict=False)) if pair[0] != pair[1]), len(due))
                self._say("broadcasts come whole", f"{queue}: {at + 1}. heard {idents[at:][:3]}, due {due[at:][:3]}")

    # -- at the end ------------------------------------------------------------------------------------

    def _complete(self) -> None:
        """Every message confirmed went to the queues it belongs in, in one transaction; others to all or none."""
        where: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for lives in self.lives.values():
            for life in lives:
                where[life.ident][life.queue].append(life.put)
        sent = {op["id"] for op in self.by["sent"]}
        announced = {op["id"]: op for op in self.by["send"]}
        broadcasts = {ident for _, ident in self.broadcasts}
        for ident, op in announced.items():
            wanted, got = self.plan.targets(op["exchange"], op["key"]), where.get(ident, {})
            if set(got) - wanted:
                self._say("no copies elsewhere", f"{ident} belongs in {sorted(wanted)}, lay in {sorted(got)}")
            if wanted - set(got) and (got or ident in sent or ident in broadcasts):
                self._say("nothing is lost", f"{ident} belongs in {sorted(wanted)}, lay in {sorted(got)} only")
            if len({min(puts) for puts in got.values()}) > 1:
                self._say("all queues at once", f"{ident}: put at {dict(got)}")
            if op["exchange"] != FAN and ident in broadcasts:
                self._say("no copies elsewhere", f"{ident} was broadcast")
        for ident in where.keys() - announced.keys():
            self._say("no copies elsewhere", f"{ident} was never published")

    def _left(self) -> None:
        for ident in unheard(self.history):
            self._say("broadcasts come whole", f"{ident} never came to a subscriber that nothing disturbed")
        for life in (life for lives in self.lives.values() for life in lives if not life.gone):
            self._say("nothing is lost", f"{life.ident} still lies in {life.queue}: nobody could have it")
        known = {"control"} | {f"queue/{queue}" for queue in self.plan.queues}
        for key in self.history.left:
            if key not in known and not (key.startswith(("bind/", "fan/", "queue.sent/")) and "/q/x." not in key):
                self._say("nothing is left behind", key)


def stamped(place: str) -> float:
    """When the message at a place was published, epoch seconds."""
    return int(place[1:17], 16) / 1e6


def judged(history: History) -> list[Finding]:
    """Findings about a history."""
    return Judge(history).findings()


def unheard(history: History) -> list[str]:
    """Broadcasts since the steady subscriber's last binding that it has not heard."""
    bound: dict[str, int] = {}
    for each in history.changes:
        if each.kind == "binding" and each.put and each.queue.startswith("x.steady."):
            bound.setdefault(each.queue, each.revision)
    if not bound:
        return ["(nobody subscribed)"]
    last = max(bound, key=bound.__getitem__)
    heard = {op["id"] for op in history.ops if op["op"] == "heard" and op["queue"] == last}
    told = (each for each in history.changes if each.kind == "broadcast" and each.put)
    return [each.ident for each in told if each.revision > bound[last] and each.ident not in heard]


def report(findings: Iterable[Finding], most: int = 12) -> str:
    """Findings as lines."""
    lines = [f"{each.rule}: {each.what}" for each in findings]
    return "\n".join(lines[:most] + ([f"… and {len(lines) - most} more"] if len(lines) > most else []))


def rules(findings: Iterable[Finding]) -> set[str]:
    """The rules that were broken."""
    return {each.rule for each in findings}


__all__ = ["Finding", "Judge", "judged", "report", "rules"]
