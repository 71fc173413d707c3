"""Runs that backfills made, or will make, for an instant of a job: a run of a backfill is no fire of its schedule."""

from __future__ import annotations

from dataclasses import dataclass

from crony.catalog.views import JobView
from crony.domain import ids
from crony.domain.backfill import Backfill
from crony.domain.fires import next_fire
from crony.domain.run import Trigger
from crony.errors import Invalid, NotFound, Unavailable
from crony.lifecycle import backfill as backfills
from crony.store import runs as archive
from crony.web import runs
from crony.web.runs import Run
from crony.web.wiring import Web


@dataclass(frozen=True, slots=True)
class Filled:
    """A backfill that has an instant, and its run of it; None: the run is still to be made."""

    backfill: str
    run: Run | None = None


def filled(web: Web, view: JobView, instant: int) -> tuple[Filled, ...]:
    """Those of this instant, in order of the backfills' ages; with etcd away those that the archive knows."""
    made = {ids.parse_run_id(run.id).backfill: run.id for run in
            archive.backfilled(web.db, view.id, view.generation, instant)}  # fmt: skip
    try:
        for alive in web.live.runs():
            if (alive.job, alive.trigger, alive.fire_at) == (view.id, Trigger.BACKFILL, instant) and alive.part is None:
                made[ids.parse_run_id(alive.run).backfill] = alive.run
        for each in backfills.look(web.client, web.keys, view.id):
            if each.id in made or each.generation != view.generation or not each.from_at < instant <= each.to_at:
                continue
            made[each.id] = "" if _coming(each, instant) else each.run_of(instant)  # it may not be archived yet
    except Unavailable:
        pass
    found = ((ident, run, _find(web, run) if run else None) for ident, run in sorted(made.items()) if ident)
    return tuple(Filled(ident, there) for ident, run, there in found if there is not None or not run)


def _coming(record: Backfill, instant: int) -> bool:
    if record.stop or record.ended:
        return False
    if instant in record.again:
        return True
    try:
        due = record.after_at < instant <= record.until_at and next_fire(record.schedules(), instant - 1) == instant
    except Invalid:
        return False
    return due


def _find(web: Web, run: str) -> Run | None:
    try:
        return runs.find(web.db, web.live, run)[0]
    except (NotFound, Unavailable):
        return None
