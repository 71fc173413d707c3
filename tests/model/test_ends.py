"""Transactions 16 and 20 together: an awaited end is told by the settle, and counts once in the job's cursor record.

Two leaders that may both believe to lead, each with views that lag behind in any order; transactions whose answer is
lost and which may still be applied later; a save that changes what an end means. The record counts ends, as a streak of
failures does; a delay after the end is the same with a count of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result


class Settle(NamedTuple):
    """Compares `settled` as it was seen; puts a request for each end behind it."""

    term: int
    settled: int
    upto: int


class Note(NamedTuple):
    """Compares the record, the request and the job as they were seen; counts the end and takes the request off."""

    term: int
    record: int
    job: int
    end: int
    request: int
    count: int
    """What it puts: the count it saw, and one."""


class View(NamedTuple):
    """What one leader believes: position, record (version, count), job, requests as (end, version)."""

    term: int
    settled: int
    record: tuple[int, int]
    job: int
    requests: tuple[tuple[int, int], ...]


class State(NamedTuple):
    term: int
    ended: int
    """So many runs have ended, in this order."""
    settled: int
    record: tuple[int, int]
    job: int
    requests: tuple[tuple[int, int], ...]
    puts: int
    """Requests put so far: each put is a version of its own."""
    views: tuple[View, View]
    pending: tuple[Settle | Note, ...]
    counted: tuple[int, ...]
    broken: str = ""


class Model:
    """The model with some of its compares removed."""

    def __init__(self, without: str = "", *, ends: int = 2, edits: int = 0, limbo: int = 1) -> None:
        self.without, self.ends, self.edits, self.limbo = without, ends, edits, limbo

    def run(self) -> Result:
        view = View(1, 0, (1, 0), 1, ())
        return Explorer(
            State(1, 0, 0, (1, 0), 1, (), 0, (view, view), (), ()), self.steps, self.check, self.final
        ).run()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.ended < self.ends:
            yield f"run {state.ended} ends", state._replace(ended=state.ended + 1)
        if state.job <= self.edits:
            yield "a save", state._replace(job=state.job + 1)
        if state.term == 1:
            fresh = View(2, state.settled, state.record, state.job, state.requests)
            yield "leader 2 is elected", state._replace(term=2, views=(state.views[0], fresh))
        for index in (0, 1):
            if index == 1 and state.term == 1:
                continue
            yield from self.leader(state, index)
        for sent in state.pending:
            rest = list(state.pending)
            rest.remove(sent)
            left = state._replace(pending=tuple(rest))
            yield f"etcd takes {sent}", self.settle(left, sent) if isinstance(sent, Settle) else self.note(left, sent)

    def leader(self, state: State, index: int) -> Iterator[tuple[str, State]]:
        view = state.views[index]
        for stream in (("settled", "requests"), ("record",), ("job",)):
            if any(getattr(view, field) != getattr(state, field) for field in stream):
                yield f"leader {index + 1} sees {stream[0]}", self.believe(state, index, stream)
        if len(state.pending) >= self.limbo:
            return
        wishes: list[Settle | Note] = []
        if view.settled < state.ended:
            wishes.append(Settle(view.term, view.settled, state.ended))
        version, count = view.record
        wishes += [Note(view.term, version, view.job, end, request, count + 1) for end, request in view.requests]
        for wish in wishes:
            if wish not in state.pending:
                pending = tuple(sorted((*state.pending, wish), key=repr))
                yield f"leader {index + 1} sends {wish}", state._replace(pending=pending)

    def believe(self, state: State, index: int, stream: tuple[str, ...]) -> State:
        views = list(state.views)
        views[index] = views[index]._replace(**{field: getattr(state, field) for field in stream})
        return state._replace(views=(views[0], views[1]))

    def holds(self, **compares: bool) -> bool:
        return all(ok or name == self.without for name, ok in compares.items())

    def settle(self, state: State, sent: Settle) -> State:
        if not self.holds(term=state.term == sent.term, settled=state.settled == sent.settled):
            return state
        new = range(sent.settled, sent.upto)
        if state.puts + len(new) > 2 * self.ends:
            return state  # a model without a compare would go on for ever
        put = {end: state.puts + 1 + number for number, end in enumerate(new)}
        requests = tuple(sorted({**dict(state.requests), **put}.items()))
        return state._replace(settled=max(state.settled, sent.upto), requests=requests, puts=state.puts + len(put))

    def note(self, state: State, sent: Note) -> State:
        there = dict(state.requests).get(sent.end)
        ok = self.holds(
            term=state.term == sent.term, record=state.record[0] == sent.record, job=state.job == sent.job,
            request=there == sent.request,
        )  # fmt: skip
        if not ok:
            return state
        broken = state.broken
        if sent.job != state.job:
            broken = broken or f"an end counted by revision {sent.job} after {state.job} was saved"
        requests = tuple(each for each in state.requests if each[0] != sent.end)
        return state._replace(
            record=(state.record[0] + 1, sent.count), requests=requests,
            counted=tuple(sorted((*state.counted, sent.end))), broken=broken,
        )  # fmt: skip

    def check(self, state: State) -> str:
        if state.broken:
            return state.broken
        if len(set(state.counted)) != len(state.counted):
            return f"an end counted twice: {state.counted}"
        if state.record[1] != len(state.counted):
            return f"{len(state.counted)} ends were counted and the record says {state.record[1]}"
        return ""

    def final(self, state: State) -> str:
        return (
            "" if len(state.counted) == self.ends else f"nothing moves any more and only {state.counted} were counted"
        )


SCOPES = [{"ends": 2, "limbo": 2}, {"ends": 1, "edits": 1, "limbo": 2}]


@pytest.mark.parametrize("scope", SCOPES)
def test_each_end_counts_once(scope: dict[str, int]) -> None:
    result = Model(**scope).run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 1000


@pytest.mark.parametrize(
    ("without", "scope", "finds"),
    [
        ("settled", 0, "twice"),
        ("request", 0, "twice"),
        ("record", 0, "the record says"),
        ("job", 1, "was saved"),
    ],
)
def test_each_compare_is_needed(without: str, scope: int, finds: str) -> None:
    result = Model(without, **SCOPES[scope]).run()
    print(result)
    assert finds in result.violation, f"without the {without} compare nothing went wrong: the model shows too little"
