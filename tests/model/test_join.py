"""Transactions 16 and 24 to 27 around one run in parts: made, ended, told of, cancelled, closed; leaders change.

Leaders decide from what they see and send; what is sent arrives later, twice or never, also when another leader has
decided meanwhile (there is no compare of the term here: the records' revisions have to do). What a part does between
its making and its end is the run life of `test_run_life`: here it is one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

PARTS = 2


class Join(NamedTuple):
    """`run/join/<run>`. `version` stands for etcd's mod revision."""

    version: int
    made: int = 0
    ends: str = ""
    cancelled: bool = False

    @property
    def over(self) -> bool:
        return "." not in self.ends and (self.made == PARTS or self.cancelled)


class Pending(NamedTuple):
    """A prepared transaction: what it saw, and what it is about."""

    kind: str
    seen: int
    join: Join | None = None
    """The record as it was when this was decided."""
    about: tuple[tuple[int, str], ...] = ()
    """Parts and how they ended, or the one part to be stopped."""
    upto: int = 0


class State(NamedTuple):
    revision: int
    join: Join | None
    parts: tuple[str, ...]
    """Of each part: `none`, `alive` or `ended`."""
    born: tuple[int, ...]
    """How often each part was made."""
    outcomes: tuple[tuple[int, str], ...] = ()
    settled: int = 0
    """Outcomes that had their consequences."""
    told: tuple[tuple[tuple[int, str], ...], ...] = ()
    """Requests in the inbox that tell of ended parts."""
    cancels: int = 0
    """Cancels that somebody may still ask for."""
    asked: bool = False
    """A request to cancel the whole is in the inbox."""
    stops: tuple[int, ...] = ()
    """Parts that are asked to stop."""
    ended: str = ""
    """How the whole ended."""
    pending: tuple[Pending, ...] = ()
    broken: str = ""


class Model:
    """The model with some of its compares removed."""

    def __init__(self, without: str = "", cancels: int = 1, limbo: int = 2) -> None:
        self.without, self.cancels, self.limbo = without, cancels, limbo

    def run(self) -> Result:
        initial = State(1, Join(1), ("none",) * PARTS, (0,) * PARTS, cancels=self.cancels)
        return Explorer(initial, self.steps, self.check, self.final).run()

    # -- what may happen ---------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for number, part in enumerate(state.parts):
            if part == "alive":
                kinds = ("c",) if number in state.stops else ("s", "f")
                for kind in kinds:
                    yield f"part {number} ends as {kind}", self.part_ends(state, number, kind)
        if state.cancels and state.join is not None and not state.asked:
            yield "somebody cancels the whole", state._replace(cancels=state.cancels - 1, asked=True)
        if len(state.pending) < self.limbo:
            for what, sent in self.prepared(state):
                yield what, state._replace(pending=tuple(sorted((*state.pending, sent), key=repr)))
        for sent in state.pending:
            rest = list(state.pending)
            rest.remove(sent)
            yield f"etcd takes: {sent.kind}", self.apply(state._replace(pending=tuple(rest)), sent)

    def part_ends(self, state: State, number: int, kind: str) -> State:
        parts = tuple("ended" if at == number else part for at, part in enumerate(state.parts))
        stops = tuple(at for at in state.stops if at != number)
        return state._replace(parts=parts, outcomes=(*state.outcomes, (number, kind)), stops=stops)

    def prepared(self, state: State) -> Iterator[tuple[str, Pending]]:
        """What leaders may decide from what they see now."""
        join = state.join
        if state.settled < len(state.outcomes):
            for upto in range(state.settled + 1, len(state.outcomes) + 1):
                about = state.outcomes[state.settled : upto]
                yield f"the leader settles up to {upto}", Pending("settle", state.settled, about=about, upto=upto)
        if join is None:
            return
        for about in set(state.told):
            yield f"the leader notes {about}", Pending("note", join.version, join, about)
        if state.asked:
            yield "the leader takes the cancel", Pending("cancel", join.version, join)
        if join.over:
            yield "the leader closes", Pending("close", join.version, join)
        elif join.cancelled:
            for number, letter in enumerate(join.ends):
                if letter == "." and state.parts[number] == "alive" and number not in state.stops:
                    yield f"the leader stops part {number}", Pending("stop", join.version, join, ((number, "c"),))
        elif join.made < PARTS:
            yield f"the leader makes part {join.made}", Pending("make", join.version, join)

    # -- the transactions -----------------------------------------------------------------------

    def apply(self, state: State, sent: Pending) -> State:
        held = {"position": state.settled == sent.seen} if sent.kind == "settle" else {
            "join": state.join is not None and state.join.version == sent.seen
        }  # fmt: skip
        if sent.kind == "note":
            held["request"] = sent.about in state.told
        if not all(ok or f"{sent.kind} {name}" == self.without for name, ok in held.items()):
            return state
        revision = state.revision + 1
        state = state._replace(revision=revision)
        if sent.kind == "settle":
            broken = state.broken or ("the settled position went down" if sent.upto < state.settled else "")
            return state._replace(settled=sent.upto, told=tuple(sorted((*state.told, sent.about))), broken=broken)
        join = sent.join
        assert join is not None
        if sent.kind == "stop":
            number = sent.about[0][0]
            return state._replace(
                stops=tuple(sorted({*state.stops, number} if state.parts[number] == "alive" else set()))
            )
        if sent.kind == "close":
            return self.closed(state, join)
        if sent.kind == "cancel":
            return state._replace(asked=False, join=join._replace(version=revision, cancelled=True))
        if sent.kind == "note":
            told = list(state.told)
            if sent.about in told:
                told.remove(sent.about)
            state = state._replace(told=tuple(told))
            ends = list(join.ends)
            for number, kind in sent.about:
                if number < len(ends) and ends[number] == ".":
                    ends[number] = kind
            noted = join._replace(version=revision, ends="".join(ends))
            return self.closed(state, noted) if noted.over else state._replace(join=noted)
        number = join.made
        broken = state.broken or (f"part {number} was made after the end" if state.ended else "")
        return state._replace(
            join=join._replace(version=revision, made=number + 1, ends=join.ends + "."),
            parts=tuple("alive" if at == number else part for at, part in enumerate(state.parts)),
            born=tuple(count + (at == number) for at, count in enumerate(state.born)),
            broken=broken,
        )

    @staticmethod
    def closed(state: State, join: Join) -> State:
        whole = join.made == PARTS and set(join.ends) <= {"s"}
        kind = "succeeded" if whole else "cancelled" if join.cancelled else "failed"
        broken = state.broken or ("the whole ended twice" if state.ended else "")
        return state._replace(join=None, ended=kind, broken=broken)

    # -- what must hold ---------------------------------------------------------------------------

    def check(self, state: State) -> str:
        if state.broken:
            return state.broken
        if max(state.born) > 1:
            return f"a part was made twice: {state.born}"
        if (state.join is not None) == bool(state.ended):
            return "the whole is in no place, or alive after its end (I1)"
        if state.join is not None and state.join.made != sum(state.born):
            return f"{sum(state.born)} parts are made and {state.join.made} counted"
        if state.ended:
            if "alive" in state.parts:
                return "the whole ended while a part is alive"
            kinds = [kind for _, kind in state.outcomes]
            if (state.ended == "succeeded") != (kinds == ["s"] * PARTS):
                return f"the whole {state.ended}, and its parts ended as {kinds}"
            if state.ended == "failed" and len(kinds) < PARTS:
                return "the whole ended without all of its parts"
        return ""

    def final(self, state: State) -> str:
        return "" if state.ended else "nothing moves and the whole has not ended"


def test_the_design_holds() -> None:
    result = Model().run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 2000


@pytest.mark.parametrize(
    ("without", "finds"),
    [
        ("make join", "made twice"),
        ("note join", ""),
        ("cancel join", ""),
        ("close join", ""),
        ("settle position", "went down"),
    ],
)
def test_each_compare_is_needed(without: str, finds: str) -> None:
    result = Model(without).run()
    print(without, "->", result)
    assert result.violation, f"without `{without}` nothing went wrong: the model shows too little"
    assert finds in result.violation
