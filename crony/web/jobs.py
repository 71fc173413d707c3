"""Jobs as shown: the catalogue's view with the next fire and the latest runs, in few queries for many jobs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crony.catalog.keeping import due_schedules, names_of
from crony.clock import SYSTEM
from crony.domain import job as domain
from crony.domain.calendar import Calendar
from crony.domain.fires import next_fire
from crony.domain.job import Job
from crony.domain.schedule import Schedule, resolved
from crony.errors import Invalid, Unavailable
from crony.store import runs as archive
from crony.web.runs import Run, from_archive, in_etcd

if TYPE_CHECKING:
    from crony.catalog.views import JobView
    from crony.web.wiring import Web


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job with what people ask first. `recent` is newest first, ended runs only; `live` are under way."""

    view: JobView
    job: Job | None
    """The parsed document; None for one this version cannot read."""
    next_at: int | None = None
    recent: tuple[Run, ...] = field(default=())
    live: tuple[Run, ...] = field(default=())

    @property
    def last(self) -> Run | None:
        """The latest ended run."""
        return self.recent[0] if self.recent else None

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """Its schedules, each `H` by its id; empty for manual only."""
        return resolved(self.job.schedules, self.view.id) if self.job else ()

    @property
    def zone(self) -> str:
        """The zone its times are shown in: that of its first schedule."""
        return self.schedules[0].timezone if self.schedules else "UTC"


def describe(web: Web, views: Sequence[JobView], *, recent: int = 1) -> tuple[list[JobInfo], list[Unavailable]]:
    """The jobs with their next fires and last `recent` runs, and what was away (then those parts are missing)."""
    away: list[Unavailable] = []
    wanted = [view.id for view in views]
    ended: dict[str, list[Run]] = {}
    alive: dict[str, list[Run]] = {}
    try:
        found = archive.last_runs(web.db, wanted, recent + 3)
        ended = {
            job: [from_archive(run) for run in runs if run.state == "ended"][:recent] for job, runs in found.items()
        }
    except Unavailable as error:
        away.append(error)
    try:
        for run in in_etcd(web.live):
            if run.part is not None:
                continue  # its whole stands for it
            if run.live:
                alive.setdefault(run.job, []).append(run)
            elif all(run.id != other.id for other in ended.setdefault(run.job, [])):
                ended[run.job].append(run)
    except Unavailable as error:
        away.append(error)
    now = math.floor(SYSTEM.wall())
    infos = []
    jobs = [parsed(view.document) for view in views]
    known: dict[str, Calendar] = {}
    try:
        known = web.catalog.calendars.contents(name for job in jobs if job for name in names_of(job.schedules))
    except Unavailable as error:
        away.append(error)
    for view, job in zip(views, jobs, strict=True):
        due = None
        if view.held:
            pass  # nothing until somebody edits or resumes it
        elif job and view.enabled and job.after_end:
            due = view.standing.next_at if view.standing else None
        elif job and view.enabled and job.schedules:
            due = next_fire(due_schedules(job, view.id, known), max(now, job.paused_until))
        recents = sorted(ended.get(view.id, ()), key=lambda run: run.ended_at or 0, reverse=True)[:recent]
        infos.append(JobInfo(view, job, due, tuple(recents), tuple(alive.get(view.id, ()))))
    return infos, away


def parsed(document: Any) -> Job | None:
    """The job behind a stored document, or None when this version cannot read it."""
    try:
        return domain.parse(document)
    except Invalid:
        return None
