"""Pools in the database: which there are, and which jobs name them; inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from crony.domain.pool import Pool, parse_pool
from crony.store.models import JobPoolRow, PoolRow


def existing(session: Session, names: Iterable[str]) -> set[str]:
    """The names of pools that there are; nobody deletes those before the commit."""
    wanted = sorted(set(names))
    if not wanted:
        return set()
    query = select(PoolRow.name).where(PoolRow.name.in_(wanted)).order_by(PoolRow.name)
    return set(session.scalars(query.with_for_update(read=True)))


def pool_of(name: str, revision: int, document: object, *, deleted: bool = False) -> Pool:
    """A stored pool, as it is published."""
    made = parse_pool(document)
    return Pool(name, made.limit, made.description, revision, deleted)


def name_them(session: Session, job: str, names: Iterable[str]) -> None:
    """Keep which pools a job names."""
    before = set(session.scalars(select(JobPoolRow.pool).where(JobPoolRow.job_id == job)))
    wanted = set(names)
    if gone := before - wanted:
        session.execute(delete(JobPoolRow).where(JobPoolRow.job_id == job, JobPoolRow.pool.in_(sorted(gone))))
    session.add_all(JobPoolRow(pool=name, job_id=job) for name in sorted(wanted - before))


def users(session: Session, name: str) -> list[str]:
    """Ids of the jobs that name a pool."""
    return list(session.scalars(select(JobPoolRow.job_id).where(JobPoolRow.pool == name).order_by(JobPoolRow.job_id)))
