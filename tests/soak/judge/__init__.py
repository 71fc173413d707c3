"""The offline judge: a history against what Crony promises. It shares no code with Crony.

`judged(History.load(path))` gives every broken rule; `report` makes lines of them. Each judge is a file: the life of
runs, every fire, the work really done, what callers were told, records as such, bounds in time, the end.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.soak.judge.backfills import Backfills
from tests.soak.judge.bounds import Bounds
from tests.soak.judge.chains import Chains
from tests.soak.judge.closing import Closing
from tests.soak.judge.delays import Delays
from tests.soak.judge.fires import Fires
from tests.soak.judge.later import Later
from tests.soak.judge.order import Order, Shape, Witness
from tests.soak.judge.parts import Parts
from tests.soak.judge.pools import Pools
from tests.soak.judge.reading import Finding, History, Judge, State
from tests.soak.judge.recovered import Recovered
from tests.soak.judge.runs import Dispatches, Fences, Places
from tests.soak.judge.told import Answers
from tests.soak.judge.work import Work


def judged(history: History) -> list[Finding]:
    """Every broken rule of a history."""
    fires = Fires(history)
    bounds = Bounds(history, fires)
    judges: list[Judge] = [
        Witness(history), Places(history), Fences(history), Dispatches(history), fires, Work(history), Order(history),
        Shape(history), Answers(history), Closing(history), bounds, Delays(history, fires),
        Parts(history), Pools(history), Backfills(history), Later(history, bounds), Recovered(history, fires),
        Chains(history),
    ]  # fmt: skip
    state = State()
    for step in history.steps:
        for judge in judges:
            judge.before(step, state)
        state.take(step)
        for judge in judges:
            judge.after(step, state)
    for judge in judges:
        judge.finish(state)
    return [finding for judge in judges for finding in judge.found]


def rules(findings: Iterable[Finding]) -> set[str]:
    """The rules that were broken."""
    return {each.rule for each in findings}


def report(findings: Iterable[Finding], most: int = 15) -> str:
    """Findings as lines."""
    lines = [f"{each.rule}: {each.what}" for each in findings]
    return "\n".join(lines[:most] + ([f"… and {len(lines) - most} more"] if len(lines) > most else []))


__all__ = ["Finding", "History", "judged", "report", "rules"]
