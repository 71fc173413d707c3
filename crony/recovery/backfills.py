"""Backfills of a restored etcd: they go on behind the runs that the archive knows they have made since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from crony.domain import ids
from crony.domain.backfill import Backfill, Stop
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.errors import Invalid
from crony.store.recovery import KnownRun

PAGE = 500
WHY = "etcd was restored from a backup; whether they ran since is not known"
ACTOR = "crony recover"

Lookup = Callable[[Iterable[str]], Mapping[str, KnownRun]]
"""Runs by id, as far as the archive knows them."""


def advanced(record: Backfill, *, once: bool, known: Lookup, now: float) -> tuple[Backfill | None, Outcome | None]:
    """What is left of it (None: nothing), and the record of fires that must not run twice.

    `once`: its runs must not be repeated. What a `fire_all` left over is recorded then; one that somebody asked for
    stops, for that person to begin another one of the part that is wanted.
    """
    if record.ended:
        return record, None
    if record.rest_of_fires:
        runs = {instant: record.run_of(instant) for instant in record.fires}
        there = known(runs.values())
        left = [instant for instant, run in runs.items() if run not in there]
        if once and left:
            return None, _unknown(record, left, now)
        return (replace(record, fires=left), None) if left else (None, None)
    if once:
        return replace(record, stop=record.stop or Stop.REST.value, stopped_by=record.stopped_by or ACTOR), None
    while True:
        try:
            ahead = record.next(PAGE)
        except Invalid:
            return record, None  # the leader gives it up, and says why
        there = known(record.run_of(instant) for instant in ahead)
        taken = []
        for instant in ahead:
            found = there.get(record.run_of(instant))
            if found is None:
                break
            taken.append(instant)
        record = record.without(taken)
        for instant in taken:
            found = there[record.run_of(instant)]
            record = record.told(found.outcome if found.ended else Kind.LOST)
        if len(taken) < PAGE:
            return record, None


def _unknown(record: Backfill, left: list[int], now: float) -> Outcome:
    return Outcome(
        ids.fire_run_id(record.job, record.generation, left[0]), record.job, record.name, record.generation, 0, 0,
        Kind.SKIPPED.value, True, record.trigger, now, SkipReason.RESTORED.value, WHY, fire_at=left[0],
        requested_at=now, to_at=left[-1], count=len(left),
    )  # fmt: skip
