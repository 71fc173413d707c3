"""Calendars in the database: their contents by name; inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from crony.domain.calendar import Calendar, parse_calendar
from crony.store import objects
from crony.store.models import ObjectRow


def contents(session: Session, names: Iterable[str], *, hold: bool = False) -> dict[str, Calendar]:
    """The calendars with these names that there are. `hold`: nobody deletes or edits them before the commit."""
    return {row.name: calendar_of(row) for row in objects.rows(session, "calendar", names, hold=hold)}


def calendar_of(row: ObjectRow) -> Calendar:
    """The stored calendar with its revision."""
    return parse_calendar({**row.document, "revision": row.revision})
