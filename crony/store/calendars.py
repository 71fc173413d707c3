"""Calendars in the database: their contents by name, and which jobs name them; inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from crony.domain.calendar import Calendar, parse_calendar
from crony.store.models import CalendarRow, JobCalendarRow


def contents(session: Session, names: Iterable[str], *, hold: bool = False) -> dict[str, Calendar]:
    """The calendars with these names that there are. `hold`: nobody deletes or edits them before the commit."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    query = select(CalendarRow).where(CalendarRow.name.in_(wanted)).order_by(CalendarRow.name)
    rows = session.scalars(query.with_for_update(read=True) if hold else query).all()
    return {row.name: calendar_of(row) for row in rows}


def calendar_of(row: CalendarRow) -> Calendar:
    """The stored calendar with its revision."""
    return parse_calendar({**row.document, "revision": row.revision})


def name_them(session: Session, job: str, names: Iterable[str]) -> None:
    """Keep which calendars a job names."""
    before = set(session.scalars(select(JobCalendarRow.calendar).where(JobCalendarRow.job_id == job)))
    wanted = set(names)
    if gone := before - wanted:
        of_job = JobCalendarRow.job_id == job
        session.execute(delete(JobCalendarRow).where(of_job, JobCalendarRow.calendar.in_(sorted(gone))))
    session.add_all(JobCalendarRow(calendar=name, job_id=job) for name in sorted(wanted - before))


def users(session: Session, name: str) -> list[str]:
    """Ids of the jobs that name a calendar."""
    query = select(JobCalendarRow.job_id).where(JobCalendarRow.calendar == name).order_by(JobCalendarRow.job_id)
    return list(session.scalars(query))
