"""Calendars as people edit them: saved with versions and audit; the jobs that keep to one are published anew.

A save writes the calendar and raises the revision of each of its jobs in one transaction, then publishes the jobs as
any edit is published. What a crash leaves unpublished, the reconciling duty finds by its revision.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from crony.catalog.keeping import check_size, names_of
from crony.catalog.publishing import Publisher
from crony.catalog.views import JobView, SavedNotLive, view_of
from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.calendar import Calendar, parse_calendar
from crony.domain.job import Job
from crony.domain.lint import Advice, advise_calendar
from crony.errors import Conflict, Invalid, NotFound
from crony.store import audit
from crony.store import calendars as store
from crony.store.db import Database
from crony.store.models import CalendarRow, CalendarVersionRow, JobRow, JobVersionRow

log = logging.getLogger("crony.catalog")

MOST = 1000
"""Calendars there may be."""


@dataclass(frozen=True, slots=True)
class CalendarView:
    """A calendar as saved, and the names of the jobs that keep to it."""

    name: str
    revision: int
    document: dict[str, Any]
    updated_at: float
    updated_by: str
    jobs: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """After a save: jobs that go live with it only once etcd is back."""
    warnings: tuple[Advice, ...] = ()
    """After a save: likely mistakes."""


@dataclass(frozen=True, slots=True)
class CalendarVersion:
    """One save or the deletion of a calendar."""

    revision: int
    action: str
    actor: str
    at: float
    document: dict[str, Any]


class Calendars:
    """The calendars of one namespace."""

    def __init__(self, db: Database, publisher: Publisher) -> None:
        self._db, self._publisher = db, publisher

    def every(self) -> list[CalendarView]:
        """All calendars by name."""
        return self._db.read(
            lambda session: [self._view(session, row) for row in session.scalars(select(CalendarRow).order_by("name"))]
        )

    def get(self, name: str) -> CalendarView:
        """One calendar. Raises `NotFound`."""
        return self._db.read(lambda session: self._view(session, _row(session, name)))

    def versions(self, name: str) -> list[CalendarVersion]:
        """The saves of a calendar, newest first, 200 at most; also of a deleted one. Raises `NotFound`."""
        query = select(CalendarVersionRow).where(CalendarVersionRow.name == name)
        rows = self._db.read(
            lambda session: session.scalars(query.order_by(CalendarVersionRow.revision.desc()).limit(200)).all()
        )
        if not rows:
            raise NotFound(f"There is no calendar {name}", hint="look for its name with: crony calendar list")
        return [CalendarVersion(row.revision, row.action, row.actor, row.at, row.document) for row in rows]

    def save(
        self, document: Mapping[str, Any], actor: str, *, revision: int | None = None, address: str = ""
    ) -> CalendarView:
        """Create the calendar of that name, or edit it if it is still at `revision` (0: new; None: whatever).

        A document that says the same makes no new revision. Raises `Invalid`, `Conflict`.
        """
        if "revision" in document:
            raise Invalid("revision", "is given by Crony", hint="remove it")
        made = parse_calendar(document)
        save, entry, now = ids.fresh("s"), audit.entry_id(), round(SYSTEM.wall(), 3)

        def put(session: Session) -> tuple[CalendarView, Sequence[JobView]]:
            row = session.get(CalendarRow, made.name, with_for_update=True)
            last = _last(session, made.name)
            if row is not None and last is not None and last.save == save:  # our own commit, whose answer was lost
                return self._view(session, row), _jobs(session, row.name)
            _expect(made.name, row, revision)
            if row is not None and row.document == made.document():
                return self._view(session, row), ()
            before = parse_calendar(row.document) if row is not None else made
            if row is None:
                if (session.scalar(select(func.count()).select_from(CalendarRow)) or 0) >= MOST:
                    raise Conflict(f"There are {MOST} calendars already", hint="delete those that no job names")
                row = CalendarRow(name=made.name, revision=(last.revision if last else 0) + 1)
                session.add(row)
                action = "create"
            else:
                row.revision, action = row.revision + 1, "update"
            row.document, row.updated_at, row.updated_by = made.document(), now, actor
            _note(session, row, action, save, entry, actor, address)
            jobs = _raise(session, row, save, actor, now)
            moving = any(_moves(job, made.name) for job in jobs)
            warnings = tuple(advise_calendar(before, made, now)) if moving else ()
            return replace(self._view(session, row), warnings=warnings), jobs

        view, jobs = self._db.transaction(put)
        waiting = []
        for job in jobs:
            try:
                self._publisher.go_live(job, None, ask=False)
            except SavedNotLive as error:
                log.warning("%s", error)
                waiting.append(job.name)
        return replace(view, waiting=tuple(sorted(waiting)))

    def delete(self, name: str, actor: str, *, revision: int | None = None, address: str = "") -> None:
        """Delete a calendar that no job names. Raises `NotFound`, `Conflict` naming the jobs."""
        save, entry, now = ids.fresh("s"), audit.entry_id(), round(SYSTEM.wall(), 3)

        def put(session: Session) -> None:
            row = session.get(CalendarRow, name, with_for_update=True)
            last = _last(session, name)
            if row is None and last is not None and last.save == save:
                return
            if row is None:
                raise NotFound(f"There is no calendar {name}", hint="look for its name with: crony calendar list")
            _expect(name, row, revision)
            jobs = self._view(session, row).jobs
            if jobs:
                some = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
                raise Conflict(
                    f"The calendar {name} is in use", why=f"jobs keep to it: {some}", hint="take it out of them first"
                )
            row.revision, row.updated_at = row.revision + 1, now
            _note(session, row, "delete", save, entry, actor, address)
            session.delete(row)

        self._db.transaction(put)

    def contents(self, names: Iterable[str]) -> dict[str, Calendar]:
        """The calendars of these names, as far as there are any."""
        wanted = set(names)
        return self._db.read(lambda session: store.contents(session, wanted)) if wanted else {}

    def _view(self, session: Session, row: CalendarRow) -> CalendarView:
        jobs = store.users(session, row.name)
        names = session.scalars(select(JobRow.name).where(JobRow.id.in_(jobs)).order_by(JobRow.name)) if jobs else ()
        return CalendarView(row.name, row.revision, row.document, row.updated_at, row.updated_by, tuple(names))


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


def _row(session: Session, name: str) -> CalendarRow:
    row = session.get(CalendarRow, name)
    if row is None:
        raise NotFound(f"There is no calendar {name}", hint="look for its name with: crony calendar list")
    return row


def _last(session: Session, name: str) -> CalendarVersionRow | None:
    query = select(CalendarVersionRow).where(CalendarVersionRow.name == name)
    return session.scalars(query.order_by(CalendarVersionRow.revision.desc()).limit(1)).first()


def _expect(name: str, row: CalendarRow | None, revision: int | None) -> None:
    there = row.revision if row is not None else 0
    if revision is not None and revision != there:
        raise Conflict(
            f"Calendar {name} was changed meanwhile",
            why=f"it is at revision {there}, you edited {revision}",
            hint="load it again and repeat your change",
        )


def _note(session: Session, row: CalendarRow, action: str, save: str, entry: str, actor: str, address: str) -> None:
    """The version and the audit entry of a change, in its transaction."""
    session.add(
        CalendarVersionRow(
            name=row.name, revision=row.revision, save=save, action=action, document=row.document, actor=actor,
            at=row.updated_at,
        )
    )  # fmt: skip
    session.flush()
    audit.add(session, entry, actor, f"calendar.{action}", "calendar", row.name, {"revision": row.revision}, address)


def _jobs(session: Session, name: str) -> list[JobView]:
    used = store.users(session, name)
    rows = session.scalars(select(JobRow).where(JobRow.id.in_(used)).order_by(JobRow.id).with_for_update()).all()
    return [view_of(row) for row in rows if row.deleted_at is None]


def _raise(session: Session, calendar: CalendarRow, save: str, actor: str, now: float) -> list[JobView]:
    """A new revision of every job that names the calendar: its document is the same, its days are not."""
    for view in _jobs(session, calendar.name):
        row, job = session.get_one(JobRow, view.id), _readable(view)
        try:
            if job is not None:
                check_size(job, store.contents(session, names_of(job.schedules)))
        except Invalid as error:
            raise Invalid("", f"does not go with the job {view.name}: {error}", hint="change that job first") from None
        row.revision, row.updated_at, row.updated_by = row.revision + 1, now, actor
        session.add(
            JobVersionRow(
                job_id=row.id, revision=row.revision, save=save, action="calendar", name=row.name,
                document=row.document, actor=actor, at=now,
            )
        )  # fmt: skip
    session.flush()
    return _jobs(session, calendar.name)
