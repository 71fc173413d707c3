"""Transactions 16, 21 and 22: from an alert to people and to the database, over leaders that change and die.

One alert, two destinations. A leader reads the notice, sends to one of them, notes it; when both are done it ends the
notice and puts the alert again with the results. Another duty writes the alert's row and deletes its key. Between any
two of these another leader may take over, and one may die. A noted result is never lost, nobody is left out, and
somebody is told twice only because a leader died or was deposed between sending and noting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

LEADERS = (1, 2)
NOBODY: frozenset[int] = frozenset()
ALL = frozenset({0, 1})


class Mind(NamedTuple):
    """What one leader holds in mind. -1, None: nothing."""

    seen: int = -1
    """Version of the notice it has read."""
    told: frozenset[int] = NOBODY
    """Destinations that are done, as it read and sent."""
    sent: int = -1
    """The destination it has just sent to, not noted yet."""
    alert: int = -1
    """Version of the alert's key that it has read to write the row, or 0 for none."""
    row: bool = False
    """It has written the row of that version."""
    results: bool = False
    """That version has the results in it."""


class State(NamedTuple):
    term: int
    version: int
    notice: tuple[int, frozenset[int]] | None
    """(version, destinations noted)."""
    alert: tuple[int, bool] | None
    """(version, whether the results are in it)."""
    rows: int
    row_results: bool
    got: tuple[int, int]
    """How often each destination was told."""
    minds: tuple[Mind, Mind]
    crashes: int
    broken: str = ""


class Model:
    """The model with one of its rules removed."""

    def __init__(self, without: str = "") -> None:
        self.without = without

    def run(self) -> Result:
        initial = State(1, 2, (1, NOBODY), (2, False), 0, False, (0, 0), (Mind(), Mind()), 1)
        return Explorer(initial, self.steps, self.check, self.final).run()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.term == 1:
            yield "another leader takes over", state._replace(term=2)
        for number in LEADERS:
            if number <= state.term:  # the first one may not know yet that it is deposed
                yield from self.leader(state, number)

    def leader(self, state: State, number: int) -> Iterator[tuple[str, State]]:
        mind, leads = state.minds[number - 1], number == state.term
        if mind != Mind() and state.crashes:
            yield f"leader {number} dies", self.think(state, number, Mind())._replace(crashes=state.crashes - 1)
        yield from self.sends(state, number, mind, leads)
        yield from self.delivers(state, number, mind, leads)

    def sends(self, state: State, number: int, mind: Mind, leads: bool) -> Iterator[tuple[str, State]]:
        if mind.seen < 0 and state.notice is not None and leads:
            version, told = state.notice
            yield f"leader {number} reads", self.think(state, number, mind._replace(seen=version, told=told))
        if mind.seen >= 0 and mind.sent < 0:
            for to in sorted(ALL - mind.told):
                got = [count + (place == to) for place, count in enumerate(state.got)]
                sent = self.think(state, number, mind._replace(sent=to))._replace(got=(got[0], got[1]))
                if self.without == "sent first":
                    sent = self.note(self.think(state, number, mind._replace(sent=to)), number, leads)
                yield f"leader {number} sends to {to}", sent
            if mind.told == ALL:
                yield f"leader {number} ends it", self.end(state, number, leads)
        if mind.sent >= 0:
            if self.without == "sent first":
                got = [count + (place == mind.sent) for place, count in enumerate(state.got)]
                done = self.think(state, number, mind._replace(seen=-1, told=NOBODY, sent=-1))
                yield f"leader {number} sends after noting", done._replace(got=(got[0], got[1]))
            else:
                yield f"leader {number} notes {mind.sent}", self.note(state, number, leads)

    def note(self, state: State, number: int, leads: bool) -> State:
        mind = state.minds[number - 1]
        done = state
        if self.without != "sent first":
            done = self.think(state, number, mind._replace(seen=-1, told=NOBODY, sent=-1))
        if not leads or state.notice is None or state.notice[0] != mind.seen:
            return done
        fresh = state.version + 1
        return done._replace(version=fresh, notice=(fresh, mind.told | {mind.sent}))

    def end(self, state: State, number: int, leads: bool) -> State:
        mind = state.minds[number - 1]
        done = self.think(state, number, mind._replace(seen=-1, told=NOBODY, sent=-1))
        if not leads or state.notice is None or state.notice[0] != mind.seen:
            return done
        fresh = state.version + 1
        if self.without == "together":
            return done._replace(notice=None)
        return done._replace(version=fresh, notice=None, alert=(fresh, True))

    def delivers(self, state: State, number: int, mind: Mind, leads: bool) -> Iterator[tuple[str, State]]:
        if mind.alert < 0 and state.alert is not None and leads:
            version, results = state.alert
            yield (
                f"leader {number} reads the alert",
                self.think(state, number, mind._replace(alert=version, results=results, row=False)),
            )
        if mind.alert >= 0 and not mind.row:
            after = self.think(state, number, mind._replace(row=True))
            kept = mind.results if self.without == "results stay" else state.row_results or mind.results
            yield f"leader {number} writes the row", after._replace(rows=1, row_results=kept)
        if mind.alert >= 0 and mind.row:
            done = self.think(state, number, mind._replace(alert=-1, row=False, results=False))
            there = state.alert is not None and (state.alert[0] == mind.alert or self.without == "alert compare")
            yield f"leader {number} deletes the alert", done._replace(alert=None) if leads and there else done

    @staticmethod
    def think(state: State, number: int, mind: Mind) -> State:
        minds = list(state.minds)
        minds[number - 1] = mind
        return state._replace(minds=(minds[0], minds[1]))

    @staticmethod
    def check(state: State) -> str:
        # Each death and each change of leaders can make one message come again, for each destination.
        return "somebody is told without end" if max(state.got) > 3 else ""

    @staticmethod
    def final(state: State) -> str:
        if state.notice is not None or state.alert is not None:
            return "a key stays in etcd for ever"
        if min(state.got) < 1:
            return "somebody is not told"
        return "" if state.rows == 1 and state.row_results else "the row does not say what became of it"


def test_everybody_is_told_and_the_row_says_so() -> None:
    found = Model().run()
    print(found)
    assert not found.violation, str(found)
    assert found.states > 300


@pytest.mark.parametrize(
    ("rule", "violation"),
    [
        ("sent first", "somebody is not told"),
        ("together", "the row does not say"),
        ("results stay", "the row does not say"),
        ("alert compare", "the row does not say"),
    ],
)
def test_without_one_of_its_rules_it_does_not_hold(rule: str, violation: str) -> None:
    found = Model(rule).run()
    print(found)
    assert violation in found.violation
