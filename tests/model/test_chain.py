"""Transaction 16 where a job follows two others: asked for once or recorded once, whoever settles, gives up and dies.

One parent's run is tried twice at most, the other's may be cancelled; of their outcomes only the last counts. Leaders
settle outcomes in order, as far as they like at a time, or give up what does not come; what they send arrives later
or never, also when another leader has decided meanwhile (no compare of the term here: the records' revisions have
to do). The leader of the child's shard takes its request off and makes the run, and its outcome is archived and
forgotten, so that nothing of an earlier decision is left to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

PARENTS = 2


class Gathering(NamedTuple):
    """`run/chain/<run>`. `version` stands for etcd's mod revision."""

    version: int
    ends: tuple[tuple[int, str], ...] = ()
    decided: bool = False


class Sent(NamedTuple):
    """A prepared transaction: what it saw, and what it puts."""

    kind: str
    position: int = 0
    gathering: int = 0
    """Version seen; 0: absent."""
    upto: int = 0
    after: Gathering | None = None
    asks: bool = False
    records: bool = False
    late: int = 0


class State(NamedTuple):
    tries: tuple[int, ...]
    """Of each parent: attempts that ended; -1: its run has ended."""
    outcomes: tuple[tuple[int, str, bool], ...] = ()
    """(parent, kind, final), in order."""
    settled: int = 0
    gathering: Gathering | None = None
    writes: int = 0
    """Of the record that gathers."""
    asked: bool = False
    """The request is in the inbox."""
    runs: int = 0
    records: int = 0
    late: int = 0
    """Records of ends that came too late."""
    phase: int = 0
    """1: the time of the chain is over by some clocks, 2: by all, and what gathers may be given up."""
    pending: tuple[Sent, ...] = ()
    broken: str = ""


class Model:
    """The model with one of its compares removed; `need` of the parents have to succeed."""

    def __init__(self, without: str = "", need: int = 2, limbo: int = 2) -> None:
        self.without, self.need, self.limbo = without, need, limbo

    def run(self) -> Result:
        return Explorer(State((0,) * PARENTS), self.steps, self.check, self.final).run()

    # -- what may happen ---------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if (tries := state.tries[0]) >= 0:
            yield "the first succeeds", self.ends(state, 0, "s", final=True)
            yield "the first fails", self.ends(state, 0, "f", final=tries == 1)
        if state.tries[1] >= 0:
            yield "the second succeeds", self.ends(state, 1, "s", final=True)
            yield "the second is cancelled", self.ends(state, 1, "c", final=True)
        if state.phase < 2:
            yield f"time goes on to {state.phase + 1}", state._replace(phase=state.phase + 1)
        if state.asked:
            yield "the child's leader takes the request", state._replace(asked=False, runs=state.runs + 1)
        if len(state.pending) < self.limbo:
            for what, sent in self.prepared(state):
                yield what, state._replace(pending=tuple(sorted((*state.pending, sent), key=repr)))
        for sent in state.pending:
            rest = list(state.pending)
            rest.remove(sent)
            yield f"etcd takes: {sent}", self.apply(state._replace(pending=tuple(rest)), sent)

    @staticmethod
    def ends(state: State, parent: int, kind: str, *, final: bool) -> State:
        tries = tuple((-1 if final else 1) if at == parent else each for at, each in enumerate(state.tries))
        return state._replace(tries=tries, outcomes=(*state.outcomes, (parent, kind, final)))

    def prepared(self, state: State) -> Iterator[tuple[str, Sent]]:
        seen = state.gathering.version if state.gathering is not None else 0
        for upto in range(state.settled + 1, len(state.outcomes) + 1):
            for over in {0: (False,), 1: (False, True), 2: (True,)}[state.phase]:
                yield f"a leader settles up to {upto}", self.consequences(state, upto, seen, over=over)
        if state.phase == 2 and state.gathering is not None:
            records = not state.gathering.decided
            yield "the leader gives up", Sent("give up", gathering=seen, records=records)

    def consequences(self, state: State, upto: int, seen: int, *, over: bool) -> Sent:
        """As `crony.domain.gathering`: from what is seen, over the outcomes between the positions."""
        gathering, asks, records, late = state.gathering, False, False, 0
        for parent, kind, final in state.outcomes[state.settled : upto]:
            if not final:
                continue
            known = gathering or Gathering(0)
            if parent in dict(known.ends):
                continue
            if gathering is None and over and self.without != "late ends":
                late += 1
                continue
            ends = (*known.ends, (parent, kind))
            fit, to_come = sum(kind == "s" for _, kind in ends), PARENTS - len(ends)
            decided = known.decided
            if not decided:
                asks |= fit >= self.need
                records |= fit < self.need and fit + to_come < self.need
                decided = fit >= self.need or fit + to_come < self.need
            gathering = Gathering(0, ends, decided) if to_come else None
        return Sent("settle", state.settled, seen, upto, gathering, asks, records, late)

    def apply(self, state: State, sent: Sent) -> State:
        there = state.gathering.version if state.gathering is not None else 0
        position = sent.kind != "settle" or state.settled == sent.position
        held = {"position": position, "gathering": there == sent.gathering}
        if not all(ok or f"{sent.kind} {name}" == self.without for name, ok in held.items()):
            return state
        state = state._replace(
            late=state.late + sent.late, asked=state.asked or sent.asks,
            records=state.records + sent.records,
            broken=state.broken or ("asked for while it is asked for" if state.asked and sent.asks else ""),
        )  # fmt: skip
        if sent.kind == "give up":
            return state._replace(gathering=None)
        broken = state.broken or ("the settled position went down" if sent.upto < state.settled else "")
        state = state._replace(settled=sent.upto, gathering=None, broken=broken)
        if sent.after is None:
            return state
        version = state.writes + 1
        return state._replace(writes=version, gathering=sent.after._replace(version=version))

    # -- what must hold ---------------------------------------------------------------------------

    def check(self, state: State) -> str:
        if state.broken:
            return state.broken
        if state.runs + state.asked + state.records > 1:
            return f"decided more than once: {state.runs} runs, {state.records} records, asked {state.asked}"
        return ""

    def final(self, state: State) -> str:
        kinds = [kind for _, kind, final in state.outcomes if final]
        if state.runs + state.records != 1:
            return "" if state.late == PARENTS else f"the child neither ran nor has a record after {kinds}"
        if state.runs and kinds.count("s") < self.need:
            return f"it ran after {kinds}"
        if state.records and kinds.count("s") >= self.need and not state.phase:
            return f"it did not run after {kinds}"
        return ""


@pytest.mark.parametrize("need", [1, 2])
def test_the_design_holds(need: int) -> None:
    result = Model(need=need).run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 2000


@pytest.mark.parametrize(
    ("without", "finds"),
    [
        ("settle position", ""),
        ("settle gathering", "decided more than once"),
        ("give up gathering", ""),
        ("late ends", "asked for while"),
    ],
)
def test_each_compare_is_needed(without: str, finds: str) -> None:
    result = Model(without, need=1 if without == "late ends" else 2).run()
    print(without, "->", result)
    assert result.violation, f"without `{without}` nothing went wrong: the model shows too little"
    assert finds in result.violation
