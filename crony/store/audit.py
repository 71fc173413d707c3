"""Who did what, when: entries are only ever added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.domain import ids
from crony.store import cursor as cursors
from crony.store.account_models import AuditRow
from crony.store.bulk import first_wins
from crony.store.cursor import Paged, limit_of
from crony.store.db import Database


@dataclass(frozen=True, slots=True)
class Entry:
    """One audit entry; `detail` never holds secrets."""

    id: str
    at: float
    actor: str
    action: str
    kind: str
    target: str
    detail: Any
    address: str


def entry_id() -> str:
    """A new id of an entry: take it before the transaction, so that a repeated one adds nothing twice."""
    return ids.fresh("a")


def add(
    session: Session,
    ident: str,
    actor: str,
    action: str,
    kind: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
    address: str = "",
) -> None:
    """Add an entry inside the transaction of the change it tells of."""
    row = {
        "id": ident,
        "at": SYSTEM.wall(),
        "actor": actor,
        "action": action,
        "target_kind": kind,
        "target_id": target,
        "detail": None if detail is None else dict(detail),
        "address": address,
    }
    first_wins(session, AuditRow, [row])


def targets(db: Database, kind: str, action: str) -> set[str]:
    """What of a kind this was ever done to, by id. Raises `Unavailable`."""
    query = select(AuditRow.target).where(AuditRow.kind == kind, AuditRow.action == action)
    return set(db.read(lambda session: session.scalars(query).all()))


def record(
    db: Database,
    actor: str,
    action: str,
    kind: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
    address: str = "",
) -> None:
    """Add an entry of its own (a run triggered, a node cordoned)."""
    ident = entry_id()
    db.transaction(lambda session: add(session, ident, actor, action, kind, target, detail, address))


def list_entries(
    db: Database,
    *,
    kind: str | None = None,
    target: str | None = None,
    actor: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Paged[Entry]:
    """A page of entries, newest first."""
    size, query = limit_of(limit), select(AuditRow)
    if kind is not None:
        query = query.where(AuditRow.kind == kind)
    if target is not None:
        query = query.where(AuditRow.target == target)
    if actor is not None:
        query = query.where(AuditRow.actor == actor)
    if cursor is not None:
        at, ident = cursors.parts("audit", cursor, int, str)
        instant = int(at) / 1000
        query = query.where(or_(AuditRow.at < instant, and_(AuditRow.at == instant, AuditRow.id < str(ident))))
    query = query.order_by(AuditRow.at.desc(), AuditRow.id.desc()).limit(size + 1)
    rows = db.read(lambda session: session.scalars(query).all())
    last = rows[size - 1] if len(rows) > size else None
    after = cursors.make("audit", round(last.at * 1000), last.id) if last else None
    items = [Entry(r.id, r.at, r.actor, r.action, r.kind, r.target, r.detail, r.address) for r in rows[:size]]
    return Paged(items, after)
