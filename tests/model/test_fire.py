"""Transactions 3 and 5 (publish, fire) around one job: every due fire is decided once, whatever happens next to it.

Two centres that may both believe to lead, each with a copy of the job and of its cursor that lags
behind; a web that edits, pauses and resumes; transactions whose answer is lost and which may still be
applied later. Which instants are due is asked of the real `LiveJob`, a tick being a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from crony.domain.livejob import LiveJob
from tests.model.explorer import Explorer, Result

END = 3
"""Ticks the model runs for."""
KINDS = {"A": {"every": "1s"}, "B": {"every": "2s"}}


class Fire(NamedTuple):
    """A prepared fire transaction: what it compares and what it would write.

    Records are compared by their own version here (that of the job is its revision): the same as by
    etcd's mod revision, with fewer states.
    """

    term: int
    done_version: int
    upto: int
    fires: tuple[int, ...]
    revision: int


class View(NamedTuple):
    """What one centre believes."""

    term: int
    job: bytes
    done: int
    done_version: int


class State(NamedTuple):
    now: int
    term: int
    job: bytes
    done: int
    done_version: int
    script: tuple[str, ...]
    """What the web still does, in order."""
    history: tuple[tuple[int, str], ...]
    """(since, schedule in force from then on): what people were promised."""
    dispatched: tuple[tuple[int, int], ...]
    """(fire, revision) of every dispatch."""
    recorded: frozenset[int]
    """Fires with a skip record."""
    views: tuple[View, View]
    pending: tuple[Fire, ...]
    broken: str = ""


def document(kind: str) -> dict[str, object]:
    return {
        "name": "x",
        "enabled": kind != "-",
        "schedule": KINDS.get(kind, KINDS["A"]),
        "action": {"kind": "shell", "command": ["x"]},
    }


@cache
def live(data: bytes) -> LiveJob:
    return LiveJob.read(data)


@cache
def due(data: bytes, after: int, until: int) -> tuple[int, ...]:
    return tuple(live(data).due_between(after, until, 99))


@cache
def edited(data: bytes, kind: str, now: int, resume: bool, chain: bool) -> bytes:
    old = live(data)
    if resume:
        return old.resumed(document(kind), revision=old.revision + 1, now=now).encode()
    new = old.edited(document(kind), revision=old.revision + 1, now=now)
    return (new if chain else new.replace(replaced=())).encode()


@cache
def promised(history: tuple[tuple[int, str], ...], until: int) -> frozenset[int]:
    """Fires up to `until` that are due by the schedule in force at their second."""
    fires = set()
    for second in range(1, until + 1):
        kind = next(kind for since, kind in reversed(history) if since < second)
        if kind == "A" or (kind == "B" and second % 2 == 0):
            fires.add(second)
    return frozenset(fires)


class Model:
    """The model with some of its rules removed."""

    def __init__(self, script: str, without: frozenset[str] = frozenset(), skew: int = 0, limbo: int = 2) -> None:
        self.script, self.without, self.skew, self.limbo = script, without, skew, limbo

    def run(self) -> Result:
        job = LiveJob.created("j", document("A"), now=0).encode()
        view = View(1, job, 0, 1)
        initial = State(0, 1, job, 0, 1, tuple(self.script), ((-1, "A"),), (), frozenset(), (view, view), ())
        return Explorer(initial, self.steps, self.check, self.final).run()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.now < END:
            yield f"it becomes :0{state.now + 1}", state._replace(now=state.now + 1)
        if state.script:
            yield self.save(state)
        if state.term == 1:
            views = (state.views[0], View(2, state.job, state.done, state.done_version))
            yield "centre 2 is elected", state._replace(term=2, views=views)
        for index in (0, 1):
            view = state.views[index]
            if index == 1 and state.term == 1:
                continue
            if view.job != state.job:
                yield f"centre {index + 1} sees the job", self.believe(state, index, view._replace(job=state.job))
            if view.done_version != state.done_version:
                seen = view._replace(done=state.done, done_version=state.done_version)
                yield f"centre {index + 1} sees the cursor", self.believe(state, index, seen)
            if len(state.pending) < self.limbo and state.now > view.done:
                fires = due(view.job, view.done, state.now)
                sent = Fire(view.term, view.done_version, state.now, fires, live(view.job).revision)
                if sent not in state.pending:
                    pending = tuple(sorted((*state.pending, sent)))
                    yield f"centre {index + 1} sends {list(fires)} up to :0{state.now}", state._replace(pending=pending)
        for sent in state.pending:
            rest = list(state.pending)
            rest.remove(sent)
            yield (
                f"etcd takes {list(sent.fires)} up to :0{sent.upto}",
                self.apply(state._replace(pending=tuple(rest)), sent),
            )

    def believe(self, state: State, index: int, view: View) -> State:
        views = list(state.views)
        views[index] = view
        return state._replace(views=(views[0], views[1]))

    def save(self, state: State) -> tuple[str, State]:
        kind, now = state.script[0], max(0, state.now + self.skew)
        # A resume while a fire from before the pause is undecided is an edit: it must not swallow that fire.
        owed = due(state.job, state.done, max(state.done, now))
        resume = not live(state.job).enabled and kind != "-" and not (owed and "owed" not in self.without)
        job = edited(state.job, kind, now, resume, "chain" not in self.without)
        # What was decided before the save stays decided, even when the web's clock says it saved earlier.
        since = max(live(job).since_at, state.done)
        after = state._replace(job=job, script=state.script[1:], history=(*state.history, (since, kind)))
        if resume:
            # One transaction: the cursor moves to now, and what fell into the pause gets its record.
            done = max(state.done, now)
            after = after._replace(done=done, done_version=state.done_version + 1)
        words = {"-": "pauses", "A": "saves every second", "B": "saves every other second"}
        return f"the web {words[kind]}{' and resumes' if resume else ''} (since :0{since})", after

    def apply(self, state: State, sent: Fire) -> State:
        compares = {
            "term": state.term == sent.term,
            "job": live(state.job).revision == sent.revision,
            "done": state.done_version == sent.done_version,
        }
        if not all(ok or name in self.without for name, ok in compares.items()):
            return state
        broken = state.broken
        if sent.upto < state.done:
            broken = broken or f"the cursor went back from {state.done} to {sent.upto}"
        if sent.fires and sent.revision != live(state.job).revision:
            broken = broken or f"revision {sent.revision} was dispatched after {live(state.job).revision} was saved"
        dispatched = tuple(sorted((*state.dispatched, *((fire, sent.revision) for fire in sent.fires))))
        return state._replace(done=sent.upto, done_version=state.done_version + 1, dispatched=dispatched, broken=broken)

    def check(self, state: State) -> str:
        if state.broken:
            return state.broken
        fires = [fire for fire, _ in state.dispatched]
        if len(set(fires)) != len(fires) or state.recorded & set(fires):
            return f"a fire was decided twice: {fires}, records {sorted(state.recorded)}"
        decided = frozenset(fires) | state.recorded
        if any(fire > state.done for fire in decided):
            return f"a fire after the cursor {state.done} was decided: {sorted(decided)}"
        expected = promised(state.history, state.done)
        if decided != expected:
            lost, wrong = sorted(expected - decided), sorted(decided - expected)
            return f"up to {state.done}: lost {lost}, not due {wrong}"
        return ""

    def final(self, state: State) -> str:
        return "" if state.done == END else f"nothing moves any more and the cursor stands at {state.done}"


DESIGN = [
    ("B", 0, 2),  # one edit, two transactions under way at once
    ("BA", 0, 1),  # two edits
    ("-A", 0, 1),  # pause, resume
    ("BA", -1, 1),  # the web's clock is behind
    ("B", 1, 1),  # or ahead
]


@pytest.mark.parametrize(("script", "skew", "limbo"), DESIGN)
def test_the_design_decides_every_fire_once(script: str, skew: int, limbo: int) -> None:
    result = Model(script, skew=skew, limbo=limbo).run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 1000


@pytest.mark.parametrize(
    ("without", "script", "finds"),
    [
        ("job", "B", "was dispatched after"),
        ("job", "-", "was dispatched after"),
        ("done", "", "decided twice"),
        ("done", "B", ""),
        ("chain", "B", "lost"),
        ("chain", "-", "lost"),
        ("owed", "-A", "lost"),
    ],
)
def test_each_rule_is_needed(without: str, script: str, finds: str) -> None:
    result = Model(script, frozenset({without})).run()
    print(result)
    assert result.violation, f"without the {without} compare nothing went wrong: the model shows too little"
    assert finds in result.violation


def test_the_term_is_not_what_keeps_fires_single() -> None:
    """The cursor and the job's revision are the fence; the term protects what a leader decides from memory."""
    result = Model("B", frozenset({"term"}), limbo=1).run()
    assert not result.violation, str(result)
