"""Transactions 16 and 21: from failed outcomes to rows, over leaders that change, die and hear no answer.

Three runs have failed. There is room for one alert; the others are counted in one alert whose number rises. A leader
reads the position and settles the next outcome; it reads an alert, writes its row, deletes its key. Between any two of
these another leader may take over, it may die and begin anew, and a transaction without an answer may arrive late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

OUTCOMES = 3
LEADERS = (1, 2)


class Key(NamedTuple):
    """An alert in etcd: how many failures it stands for; `version` stands for its mod revision."""

    count: int
    version: int


class Leader(NamedTuple):
    """What one leader holds in mind. -1, None: nothing."""

    seen: int = -1
    """The position it has read, to settle the outcome behind it."""
    alone: int = -1
    """An outcome whose alert is still to be put, where that is a step of its own."""
    read: tuple[str, Key] | None = None
    written: tuple[str, Key] | None = None


class State(NamedTuple):
    term: int
    settled: int
    version: int
    one: Key | None
    more: Key | None
    rows: tuple[int, int, int]
    """Rows of the first alert; rows of the counting one; the number in it."""
    leaders: tuple[Leader, Leader]
    late: tuple[int, ...]
    """Positions that unanswered settles rest on."""
    crashes: int
    losses: int
    broken: str = ""


class Model:
    """The model with one of its rules removed."""

    def __init__(self, without: str = "") -> None:
        self.without = without

    def run(self) -> Result:
        initial = State(1, 0, 1, None, None, (0, 0, 0), (Leader(), Leader()), (), 1, 1)
        return Explorer(initial, self.steps, self.check, self.final).run()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.term == 1:
            yield "another leader takes over", state._replace(term=2)
        for number in LEADERS:
            if number <= state.term:  # the first one may not know yet that it is deposed
                yield from self.leader(state, number)
        for seen in set(state.late):
            rest = list(state.late)
            rest.remove(seen)
            gone = state._replace(late=tuple(rest))
            yield f"the unanswered settle after {seen} arrives", self.settle(gone, seen)
            yield f"the unanswered settle after {seen} is gone for good", gone

    def leader(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        mind, leads = state.leaders[number - 1], number == state.term
        if mind != Leader() and state.crashes:
            yield f"leader {number} dies", self.think(state, number, Leader())._replace(crashes=state.crashes - 1)
        if mind.seen < 0 and mind.alone < 0 and state.settled < OUTCOMES and leads:
            yield f"leader {number} reads the position", self.think(state, number, mind._replace(seen=state.settled))
        if mind.seen >= 0:
            done = self.think(state, number, mind._replace(seen=-1))
            if state.losses and leads:
                lost = done._replace(losses=state.losses - 1, late=tuple(sorted((*done.late, mind.seen))))
                yield f"leader {number} settles and hears nothing", lost
            if not leads:
                yield f"leader {number} is refused", done
            elif self.without == "together" and state.settled == mind.seen:
                alone = self.think(done, number, mind._replace(seen=-1, alone=mind.seen))
                yield f"leader {number} moves the position only", alone._replace(settled=mind.seen + 1)
            else:
                yield f"leader {number} settles after {mind.seen}", self.settle(done, mind.seen)
        if mind.alone >= 0:
            done = self.think(state, number, mind._replace(alone=-1))
            yield f"leader {number} puts the alert", self.put(done, mind.alone) if leads else done
        if mind.read is None and mind.written is None and leads:
            for name, key in (("one", state.one), ("more", state.more)):
                if key is not None:
                    yield f"leader {number} reads {name}", self.think(state, number, mind._replace(read=(name, key)))
        if mind.read is not None:
            name, key = mind.read
            if self.without == "row first":
                gone = self.delete(state, name, key) if leads else state
                yield (
                    f"leader {number} deletes {name}",
                    self.think(gone, number, mind._replace(read=None, written=mind.read)),
                )
            else:  # whoever was the leader may still reach the database
                after = self.think(state, number, mind._replace(read=None, written=mind.read))
                yield f"leader {number} writes the row of {name}", self.row(after, name, key)
        if mind.written is not None:
            name, key = mind.written
            done = self.think(state, number, mind._replace(written=None))
            if self.without == "row first":
                yield f"leader {number} writes the row of {name}", self.row(done, name, key)
            else:
                yield f"leader {number} deletes {name}", self.delete(done, name, key) if leads else done

    def settle(self, state: State, seen: int) -> State:
        if state.settled != seen and self.without != "position":
            return state
        if seen + 1 < state.settled:
            state = state._replace(broken=f"the position goes back to {seen + 1}")
        return self.put(state._replace(settled=seen + 1), seen)

    def put(self, state: State, seen: int) -> State:
        fresh = Key(max(1, seen), state.version + 1)  # the second is counted as 1, the third makes it 2
        return (state._replace(one=fresh) if seen == 0 else state._replace(more=fresh))._replace(version=fresh.version)

    def row(self, state: State, name: str, key: Key) -> State:
        first, second, number = state.rows
        again = self.without == "natural key"
        if name == "one":
            rows = (first + 1 if again else 1, second, number)
        else:
            rows = (
                first,
                second + 1 if again else 1,
                key.count if self.without == "rising" else max(number, key.count),
            )
        return state._replace(rows=rows)

    def delete(self, state: State, name: str, key: Key) -> State:
        now = state.one if name == "one" else state.more
        if now is None or (now.version != key.version and self.without != "compare"):
            return state
        return state._replace(one=None) if name == "one" else state._replace(more=None)

    @staticmethod
    def think(state: State, number: int, mind: Leader) -> State:
        leaders = list(state.leaders)
        leaders[number - 1] = mind
        return state._replace(leaders=(leaders[0], leaders[1]))

    @staticmethod
    def check(state: State) -> str:
        if state.broken:
            return state.broken
        if max(state.rows[:2]) > 1:
            return "an alert has two rows"
        return ""

    @staticmethod
    def final(state: State) -> str:
        if state.one is not None or state.more is not None:
            return "an alert stays in etcd for ever"
        return "" if state.rows == (1, 1, OUTCOMES - 1) else f"what was told is {state.rows}"


def test_every_failure_is_told_once_and_none_is_lost() -> None:
    found = Model().run()
    print(found)
    assert not found.violation, str(found)
    assert found.states > 500


@pytest.mark.parametrize(
    ("rule", "violation"),
    [
        ("position", "the position goes back"),
        ("together", "what was told"),
        ("row first", "what was told"),
        ("natural key", "two rows"),
        ("compare", "what was told"),
        ("rising", "what was told"),
    ],
)
def test_without_one_of_its_rules_it_does_not_hold(rule: str, violation: str) -> None:
    found = Model(rule).run()
    print(found)
    assert violation in found.violation
