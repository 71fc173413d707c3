"""What waits, and for what: who holds the slots of each pool and who is next, and what waits for other reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crony.catalog.pools import PoolView
from crony.domain.run import State, WaitReason
from crony.errors import Unavailable
from crony.lifecycle.look import LiveRun
from crony.web.live import Live


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot; `live` is what is known of the run, None when it is about to give it back."""

    number: int
    run: str
    live: LiveRun | None


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool as saved and as it is used; `held` and `line` are None when etcd does not say."""

    view: PoolView
    held: tuple[Holder, ...] | None = None
    line: tuple[LiveRun, ...] | None = None


def states(live: Live, views: Iterable[PoolView]) -> tuple[list[PoolState], list[Unavailable]]:
    """Pools with who holds them and who waits, the next one first; and what was away."""
    kept = list(views)
    try:
        runs, slots = live.runs(), live.slots()
    except Unavailable as error:
        return [PoolState(view) for view in kept], [error]
    known = {run.run: run for run in runs}
    waiting = [run for run in runs if _waits_for(run) == WaitReason.POOL]
    found = []
    for view in kept:
        held = (Holder(number, run, known.get(run)) for number, run in sorted(slots.get(view.name, {}).items()))
        line = sorted((run for run in waiting if view.name in run.pools), key=_turn)
        found.append(PoolState(view, tuple(held), tuple(line)))
    return found, []


def others(live: Live) -> dict[str, list[LiveRun]]:
    """Runs that wait for something else than a slot, by reason, oldest first. Raises `Unavailable`."""
    found: dict[str, list[LiveRun]] = {}
    for run in live.runs():
        reason = _waits_for(run)
        if reason and reason != WaitReason.POOL:
            found.setdefault(reason, []).append(run)
    return {reason: sorted(runs, key=lambda run: (run.since_at, run.run)) for reason, runs in sorted(found.items())}


def _waits_for(run: LiveRun) -> str:
    return run.reason if run.state == State.WAITING else ""


def _turn(run: LiveRun) -> tuple[int, float, str]:
    return -run.priority, run.since_at, run.run
