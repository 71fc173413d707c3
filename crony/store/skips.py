"""Reading the archive: fires that became no run, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from crony.domain.outcome import Outcome
from crony.store import cursor as cursors
from crony.store.cursor import Paged, limit_of
from crony.store.db import Database
from crony.store.models import SkipRow


@dataclass(frozen=True, slots=True)
class SkipView:
    """A fire (or `count` fires from `fire_at` to `to_at`) that became no run."""

    run: str
    job: str
    job_name: str
    reason: str
    detail: str
    fire_at: float | None
    to_at: float | None
    count: int
    decided_at: float
    trigger: str
    chain: str = ""
    cause: str = ""


def list_skips(
    db: Database,
    *,
    job: str | None = None,
    reason: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Paged[SkipView]:
    """A page of skips, newest first."""
    size, query = limit_of(limit), select(SkipRow)
    if job is not None:
        query = query.where(SkipRow.job_id == job)
    if reason is not None:
        query = query.where(SkipRow.reason == reason)
    if since is not None:
        query = query.where(SkipRow.decided_at >= since)
    if until is not None:
        query = query.where(SkipRow.decided_at < until)
    if cursor is not None:
        at, ident = cursors.parts("skips", cursor, int, str)
        query = query.where(cursors.before(SkipRow.decided_at, SkipRow.run_id, int(at), str(ident)))
    query = query.order_by(SkipRow.decided_at.desc(), SkipRow.run_id.desc()).limit(size + 1)
    rows = db.read(lambda session: session.scalars(query).all())
    last = rows[size - 1] if len(rows) > size else None
    after = cursors.make("skips", round(last.decided_at * 1000), last.run_id) if last else None
    return Paged([_skip_view(row) for row in rows[:size]], after)


def skips_over(db: Database, job: str, at: float) -> list[SkipView]:
    """Records of fires that became no run whose range holds this instant, newest first, at most 50."""
    query = select(SkipRow).where(
        SkipRow.job_id == job, SkipRow.fire_at <= at, func.coalesce(SkipRow.to_at, SkipRow.fire_at) >= at
    )
    query = query.order_by(SkipRow.decided_at.desc(), SkipRow.run_id.desc()).limit(50)
    return [_skip_view(row) for row in db.read(lambda session: session.scalars(query).all())]


def _skip_view(row: SkipRow) -> SkipView:
    return SkipView(
        row.run_id, row.job_id, row.job_name, row.reason, row.detail, row.fire_at, row.to_at, row.count,
        row.decided_at, row.trigger, row.chain_id or "", row.cause_id or "",
    )  # fmt: skip


def skip_of(outcome: Outcome) -> SkipView:
    """A record that is not archived yet, as those are that are."""
    return SkipView(
        outcome.run, outcome.job, outcome.name, outcome.reason, outcome.detail, outcome.fire_at, outcome.to_at,
        outcome.count, outcome.ended_at, outcome.trigger, outcome.chain, outcome.cause,
    )  # fmt: skip
