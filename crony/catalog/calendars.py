"""Calendars as people edit them; the jobs that keep to one are published anew, with its days in them.

A save writes the calendar and raises the revision of each of its jobs in one transaction, then publishes the jobs as
any edit is published. What a crash leaves unpublished, the reconciling duty finds by its revision.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from crony.catalog.keeping import check_size, names_of
from crony.catalog.objects import Change, Objects, ObjectView
from crony.catalog.views import JobView, SavedNotLive, view_of
from crony.domain.calendar import Calendar, parse_calendar
from crony.domain.job import Job
from crony.domain.lint import Advice, advise_calendar
from crony.errors import Invalid
from crony.store import calendars as store
from crony.store import objects
from crony.store.models import JobRow, JobVersionRow, ObjectRow
from crony.store.parents import ids_of

log = logging.getLogger("crony.catalog")


@dataclass(frozen=True, slots=True)
class CalendarView(ObjectView):
    """A calendar as saved, and the names of the jobs that keep to it."""

    waiting: tuple[str, ...] = ()
    """After a save: jobs that go live with it only once etcd is back."""
    warnings: tuple[Advice, ...] = ()
    """After a save: likely mistakes."""
    raised: tuple[JobView, ...] = ()
    """After a save: the jobs that follow it."""


class Calendars(Objects[Calendar, CalendarView]):
    """The calendars of one namespace."""

    kind = "calendar"
    shape = CalendarView

    def parse(self, document: Mapping[str, Any]) -> Calendar:
        """As `parse_calendar`, without a revision."""
        if "revision" in document:
            raise Invalid("revision", "is given by Crony", hint="remove it")
        return parse_calendar(document)

    def saved(self, session: Session, row: ObjectRow, before: Mapping[str, Any] | None, change: Change) -> CalendarView:
        """A new revision of each job that keeps to it."""
        made = parse_calendar(row.document)
        raised = _raise(session, row, change)
        warnings: tuple[Advice, ...] = ()
        if any(_moves(job, row.name) for job in raised):
            earlier = parse_calendar(before) if before is not None else made
            warnings = tuple(advise_calendar(earlier, made, change.at))
        return replace(self.view(session, row), warnings=warnings, raised=tuple(raised))

    def announced(self, view: CalendarView) -> CalendarView:
        """The jobs that follow it are published."""
        waiting = []
        for job in view.raised:
            try:
                self._publisher.go_live(job, None, ask=False)
            except SavedNotLive as error:
                log.warning("%s", error)
                waiting.append(job.name)
        return replace(view, waiting=tuple(sorted(waiting)), raised=())

    def contents(self, names: Iterable[str]) -> dict[str, Calendar]:
        """The calendars of these names, as far as there are any."""
        wanted = set(names)
        return self._db.read(lambda session: store.contents(session, wanted)) if wanted else {}


def _readable(view: JobView) -> Job | None:
    """The job; None when it cannot be read (its zone is gone, say): it waits until somebody edits it."""
    try:
        return view.job
    except Invalid:
        return None


def _moves(view: JobView, calendar: str) -> bool:
    """Whether the job moves fires by this calendar."""
    job = _readable(view)
    kept = [schedule.calendars for schedule in job.schedules if schedule.calendars] if job else []
    return any(each.closed != "skip" and calendar in each.names for each in kept)


def _jobs(session: Session, name: str) -> list[JobView]:
    used = objects.users(session, "calendar", name)
    rows = session.scalars(select(JobRow).where(JobRow.id.in_(used)).order_by(JobRow.id).with_for_update()).all()
    return [view_of(row) for row in rows if row.deleted_at is None]


def _raise(session: Session, calendar: ObjectRow, change: Change) -> list[JobView]:
    """A new revision of every job that names the calendar: its document is the same, its days are not."""
    for view in _jobs(session, calendar.name):
        row, job = session.get_one(JobRow, view.id), _readable(view)
        try:
            if job is not None:
                parents = ids_of(session, job.after.jobs if job.after else ())
                check_size(job, store.contents(session, names_of(job.schedules)), parents)
        except Invalid as error:
            raise Invalid("", f"does not go with the job {view.name}: {error}", hint="change that job first") from None
        row.revision, row.updated_at, row.updated_by = row.revision + 1, change.at, change.actor
        session.add(
            JobVersionRow(
                job_id=row.id, revision=row.revision, save=change.save, action="calendar", name=row.name,
                document=row.document, actor=change.actor, at=change.at,
            )
        )  # fmt: skip
    session.flush()
    return _jobs(session, calendar.name)
