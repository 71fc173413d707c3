"""Alerts in the database: written once each however often they are delivered, read with filters and cursors, pruned."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, or_, select

from crony.clock import SYSTEM
from crony.domain.alert import Alert
from crony.store import cursor as cursors
from crony.store import faults
from crony.store.bulk import first_wins, put
from crony.store.cursor import Paged, limit_of
from crony.store.db import Database
from crony.store.models import AlertRow, RejectRow
from crony.store.types import clean

log = logging.getLogger("crony.store.alerts")

BATCH = 200
"""Most alerts of one transaction."""
_CHANGES = {
    "times": "CASE WHEN {times} > alerts.times THEN {times} ELSE alerts.times END",
    "told": "COALESCE({told}, alerts.told)",
}
"""A row that is there stays; only a count may rise, and whom it was sent to become known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which alerts: every field given must hold. Instants are epoch seconds; `since` inclusive, `until` exclusive."""

    kind: str | None = None
    job: str | None = None
    """Job id."""
    node: str | None = None
    since: float | None = None
    until: float | None = None


def write(db: Database, alerts: Iterable[Alert]) -> None:
    """Store alerts; everything is committed on return. One that the database refuses is kept in `archive_rejects`.

    Raises `Unavailable` or `Unknown` when the database is away: call again with the same alerts.
    """
    todo = sorted(alerts, key=lambda alert: alert.id)
    for start in range(0, len(todo), BATCH):
        _write(db, todo[start : start + BATCH])


def list_alerts(
    db: Database, wanted: Wanted = Wanted(), *, limit: int | None = None, cursor: str | None = None
) -> Paged[Alert]:
    """A page of alerts, newest first. Raises `Invalid` for a cursor we did not give out."""
    size, query = limit_of(limit), select(AlertRow)
    for column, value in ((AlertRow.kind, wanted.kind), (AlertRow.job_id, wanted.job), (AlertRow.node, wanted.node)):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(AlertRow.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AlertRow.at < wanted.until)
    if cursor is not None:
        at, ident = cursors.parts("alerts", cursor, int, str)
        instant = int(at) / 1000
        query = query.where(or_(AlertRow.at < instant, and_(AlertRow.at == instant, AlertRow.id < str(ident))))
    query = query.order_by(AlertRow.at.desc(), AlertRow.id.desc()).limit(size + 1)
    rows = db.read(lambda session: session.scalars(query).all())
    last = rows[size - 1] if len(rows) > size else None
    after = cursors.make("alerts", round(last.at * 1000), last.id) if last else None
    return Paged([_alert(row) for row in rows[:size]], after)


def prune(db: Database, older_than: float, *, batch: int = 500) -> int:
    """Delete alerts from before this instant, in short transactions; how many."""
    gone = 0
    old = select(AlertRow.id).where(AlertRow.at < older_than).limit(batch)
    while ids := db.read(lambda session: list(session.scalars(old))):
        db.transaction(lambda session, ids=ids: session.execute(delete(AlertRow).where(AlertRow.id.in_(ids))))  # type: ignore[misc]
        gone += len(ids)
    return gone


def _write(db: Database, batch: Sequence[Alert]) -> None:
    try:
        rows = [_row(alert) for alert in batch]
        db.transaction(lambda session: put(session, AlertRow, rows, _CHANGES))
    except Exception as error:
        if not faults.about_data(error):
            raise
        if len(batch) == 1:
            return _reject(db, batch[0], error)
        middle = len(batch) // 2
        _write(db, batch[:middle])
        _write(db, batch[middle:])


def _row(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "at": alert.at,
        "job_id": alert.job,
        "job_name": alert.name,
        "run_id": alert.run,
        "attempt": alert.attempt,
        "outcome": alert.outcome,
        "node": alert.node,
        "reason": alert.reason,
        "times": alert.times,
        "told": alert.told or None,
    }


def _alert(row: AlertRow) -> Alert:
    return Alert(
        row.id, row.kind, row.at, row.job_id, row.job_name, row.run_id, row.attempt, row.outcome, row.node, row.reason,
        row.times, row.told or {},
    )  # fmt: skip


def _reject(db: Database, alert: Alert, error: Exception) -> None:
    record = clean(repr(alert.payload()), 60_000)
    row = {
        "id": hashlib.sha256(record.encode()).hexdigest(),
        "run_id": alert.run,
        "error": faults.sentence(error),
        "record": record,
        "at": SYSTEM.wall(),
    }
    log.error("an alert was refused by the database and is kept in archive_rejects: %s", row["error"])
    db.transaction(lambda session: first_wins(session, RejectRow, [row]))
