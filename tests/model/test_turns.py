"""Overlap with a line (transactions 5 and 7): one run at a time, in order, each fire one run or one record.

Two centres that may both believe to lead, each with a copy of the runs that lags behind; fires that are decided from
that copy, runs that end whenever they like, and transactions that are applied late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

FIRES = 3
PLACES = 1
ASKED = 9
"""The one run that somebody asks for by hand."""


class Runs(NamedTuple):
    """What lies in etcd about the job's runs, with the revision of its last change."""

    done: int
    going: tuple[int, ...]
    line: tuple[int, ...]


class Step(NamedTuple):
    """A prepared transaction: its term, what it was decided from, and the run it releases or admits (0: it fires)."""

    centre: int
    term: int
    seen: Runs
    run: int


class State(NamedTuple):
    now: int
    term: int
    asked: bool
    """The request lies in the inbox; every centre knows."""
    runs: Runs
    views: tuple[Runs, Runs]
    busy: tuple[bool, bool]
    """A step of this centre about the job is under way: it decides nothing else about it."""
    ended: tuple[int, ...]
    skipped: tuple[int, ...]
    began: tuple[int, ...]
    pending: tuple[Step, ...]


class Model:
    """The model with some of its rules removed."""

    def __init__(self, without: str = "") -> None:
        self.without = without

    def run(self) -> Result:
        none = Runs(0, (), ())
        initial = State(0, 1, True, none, (none, none), (False, False), (), (), (), ())
        return Explorer(initial, self.steps, self.check, self.final).run()

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.now < FIRES:
            yield f"fire {state.now + 1} is due", state._replace(now=state.now + 1)
        if state.term == 1:
            # It lists everything before it decides anything.
            yield "centre 2 is elected", state._replace(term=2, views=(state.views[0], state.runs))
        for run in state.runs.going:
            runs = state.runs._replace(going=tuple(other for other in state.runs.going if other != run))
            yield f"run {run} ends", state._replace(runs=runs, ended=(*state.ended, run))
        for centre in range(state.term):
            yield from self.centre(state, centre)
        for step in state.pending:
            rest = tuple(other for other in state.pending if other is not step)
            busy = tuple(flag and which != step.centre for which, flag in enumerate(state.busy))
            after = state._replace(pending=rest, busy=(busy[0], busy[1]))
            yield f"etcd takes a step of centre {step.centre + 1}", self.apply(after, step)

    def centre(self, state: State, centre: int) -> Iterator[tuple[str, State]]:
        view, name = state.views[centre], f"centre {centre + 1}"
        if view != state.runs and not state.busy[centre]:
            yield f"{name} sees the runs", state._replace(views=self.put(state.views, centre, state.runs))
        if state.busy[centre] and "exclusive" not in self.without:
            return
        if len(state.pending) > 2:
            return
        sent = []
        if view.done < state.now:
            sent.append(Step(centre, centre + 1, view, 0))
        if view.line and not view.going:
            sent.append(Step(centre, centre + 1, view, view.line[0]))
        if state.asked:
            sent.append(Step(centre, centre + 1, view, ASKED))
        for step in sent:
            if step not in state.pending:
                pending, busy = tuple(sorted((*state.pending, step))), self.put(state.busy, centre, True)
                what = f"lets run {step.run} go on" if step.run else f"decides fire {view.done + 1}"
                yield f"{name} {what}", state._replace(pending=pending, busy=busy)

    @staticmethod
    def put(pair: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
        return (value, pair[1]) if index == 0 else (pair[0], value)

    def apply(self, state: State, step: Step) -> State:
        runs, seen = state.runs, step.seen
        if step.term != state.term and "term" not in self.without:
            return state
        if step.run in seen.line:
            if step.run not in runs.line:  # mod(wait/<r>)
                return state
            line = tuple(run for run in runs.line if run != step.run)
            after = runs._replace(line=line, going=(*runs.going, step.run))
            return self.told(state, step, after, began=(*state.began, step.run))
        if step.run == ASKED and not state.asked:  # mod(in)
            return state
        if not step.run and runs.done != seen.done:  # mod(done/<job>)
            return state
        new, alive = step.run or seen.done + 1, seen.going if "line" in self.without else (*seen.going, *seen.line)
        if step.run:
            state = state._replace(asked=False)
        else:
            runs = runs._replace(done=new)
        if not alive:
            return self.told(state, step, runs._replace(going=(*runs.going, new)), began=(*state.began, new))
        if len(seen.line) < PLACES:
            return self.told(state, step, runs._replace(line=(*runs.line, new)))
        return self.told(state, step, runs, skipped=(*state.skipped, new))

    def told(self, state: State, step: Step, runs: Runs, **changes: tuple[int, ...]) -> State:
        """A centre takes in at once what it wrote itself; what else happened comes by its watch."""
        view = state.views[step.centre]
        added = tuple(run for run in (*runs.going, *runs.line) if run not in (*state.runs.going, *state.runs.line))
        line = tuple(run for run in runs.line if run in view.line or run in added)
        going = tuple(run for run in runs.going if run in view.going or run in view.line or run in added)
        going += tuple(run for run in view.going if run not in going)  # their ends are not known yet
        views = self.put(state.views, step.centre, Runs(runs.done, going, line))
        return state._replace(runs=runs, views=views, **changes)  # type: ignore[arg-type]

    def check(self, state: State) -> str:
        if len(state.runs.going) > 1:
            return f"two runs at once: {state.runs.going}"
        fires = [run for run in state.began if run != ASKED]
        if fires != sorted(fires):
            return f"out of order: {fires}"
        decided = [*state.ended, *state.runs.going, *state.runs.line, *state.skipped]
        due = [*range(1, state.runs.done + 1), *([] if state.asked else [ASKED])]
        if sorted(decided) != due:
            return f"fires up to {state.runs.done} became {sorted(decided)}"
        return ""

    def final(self, state: State) -> str:
        left = state.runs.line or state.runs.going or state.runs.done < FIRES or state.asked
        return f"nothing moves any more and there is {state.runs}" if left else ""


def test_runs_in_line_go_one_by_one_in_order() -> None:
    result = Model().run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 500


@pytest.mark.parametrize(
    ("without", "finds"), [("line", "of order"), ("exclusive", "two runs at once"), ("term", "two runs at once")]
)
def test_each_rule_is_needed(without: str, finds: str) -> None:
    """Who stands in line counts as alive; one decision at a time about a job; only the leader decides from memory."""
    result = Model(without).run()
    print(result)
    assert finds in result.violation
