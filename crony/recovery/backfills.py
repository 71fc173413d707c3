"""Backfills of a restored etcd: they go on behind the runs that the archive knows they have made since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from crony.domain import ids
from crony.domain.backfill import Backfill, Stop
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.run import Request
from crony.errors import Invalid
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move
from crony.store.recovery import KnownRun

PAGE = 500
WHY = "etcd was restored from a backup; whether they ran since is not known"
ACTOR = "crony recover"

Lookup = Callable[[Iterable[str]], Mapping[str, KnownRun]]
"""Runs by id, as far as the archive knows them."""


def must_not_repeat(live: LiveJob | None) -> bool:
    """Whether what may have run of this job must not run again."""
    if live is None or live.deleted:
        return False
    return live.job.delivery == "at_most_once" or live.job.on_node_loss != "rerun"


def advanced(
    record: Backfill, *, once: bool, known: Lookup, now: float, cancelled: bool = False
) -> tuple[Backfill | None, Outcome | None]:
    """What is left of it (None: nothing), and the record of fires that must not run twice.

    `once`: its runs must not be repeated. What a `fire_all` left over is recorded then; one that somebody asked for
    stops, for that person to begin another one of the part that is wanted. `cancelled`: somebody did so since.
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
    record = _behind(record, known)
    if (once or cancelled) and not record.stop:
        record = replace(record, stop=Stop.REST.value, stopped_by=ACTOR)
    return record, None


def _behind(record: Backfill, known: Lookup) -> Backfill:
    """As it has to go on: what ran since is taken and counted, what may not have run in between comes first.

    Several of its runs are alive at a time, so the archive may know a later one and not an earlier one.
    """
    anew: list[int] = []
    while True:
        try:
            ahead = record.next(PAGE)
        except Invalid:
            return record  # the leader gives it up, and says why
        there = known(record.run_of(instant) for instant in ahead)
        ran = [place for place, instant in enumerate(ahead) if record.run_of(instant) in there]
        taken = ahead[: ran[-1] + 1] if ran else ()
        found = [there.get(record.run_of(instant)) for instant in taken]
        anew += [instant for instant, run in zip(taken, found, strict=True) if run is None]
        record = record.without(taken)
        for run in found:
            if run is not None:
                record = record.told(run.outcome if run.ended else Kind.LOST)
        if not ran or len(ahead) < PAGE:
            return replace(record, again=[*anew, *record.again], made=record.made - len(anew))


def ended_since(keys: Keys, run: str, known: KnownRun, revision: int) -> Move:
    """Tell a backfill that one of its runs ended since; nothing for other runs.

    It goes with the step that drops that run, so the backfill counts it once, however often a recovery begins anew.
    `revision`: of the record that is dropped.
    """
    try:
        parsed = ids.parse_run_id(run)
    except ValueError:
        return Move({})
    if not parsed.backfill or parsed.part is not None:
        return Move({})
    request = Request(
        "ended", run=run, job=known.job, generation=known.generation, trigger=known.trigger, outcome=known.outcome,
        revision=known.revision,
    )  # fmt: skip
    key = keys.run_in(f"s{revision:016x}.{run}")
    return Move({key: 0}, puts={key: request.encode()})


def _unknown(record: Backfill, left: list[int], now: float) -> Outcome:
    return Outcome(
        ids.fire_run_id(record.job, record.generation, left[0]), record.job, record.name, record.generation, 0, 0,
        Kind.SKIPPED.value, True, record.trigger, now, SkipReason.RESTORED.value, WHY, fire_at=left[0],
        requested_at=now, to_at=left[-1], count=len(left),
    )  # fmt: skip
