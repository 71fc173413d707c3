"""Which jobs run after which, in the database; inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from crony.store.bulk import put
from crony.store.models import ChainLockRow, JobParentRow, JobRow


def lock(session: Session) -> None:
    """Until the commit nobody else changes who runs after whom."""
    put(session, ChainLockRow, [{"id": 1}], {"id": "{id}"})


def ids_of(session: Session, names: Iterable[str], *, hold: bool = False) -> dict[str, str]:
    """The ids of the jobs with these names that there are. `hold`: nobody deletes or renames them before the commit."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    query = select(JobRow.live_name, JobRow.id).where(JobRow.live_name.in_(wanted)).order_by(JobRow.live_name)
    rows = session.execute(query.with_for_update(read=True) if hold else query)
    return {str(name): ident for name, ident in rows}


def names_of(session: Session, jobs: Iterable[str]) -> dict[str, str]:
    """The names of the jobs with these ids."""
    wanted = sorted(set(jobs))
    if not wanted:
        return {}
    rows = session.execute(select(JobRow.id, JobRow.name).where(JobRow.id.in_(wanted)))
    return {ident: name for ident, name in rows}  # noqa: C416


def of(session: Session, jobs: Iterable[str]) -> dict[str, list[str]]:
    """The parents of each of these jobs that has any."""
    found: dict[str, list[str]] = {}
    wanted = sorted(set(jobs))
    if wanted:
        query = select(JobParentRow.job_id, JobParentRow.parent_id).where(JobParentRow.job_id.in_(wanted))
        for job, parent in session.execute(query.order_by(JobParentRow.job_id, JobParentRow.parent_id)):
            found.setdefault(job, []).append(parent)
    return found


def children(session: Session, jobs: Iterable[str]) -> dict[str, list[str]]:
    """The jobs that run after each of these, where there are any."""
    found: dict[str, list[str]] = {}
    wanted = sorted(set(jobs))
    if wanted:
        query = select(JobParentRow.parent_id, JobParentRow.job_id).where(JobParentRow.parent_id.in_(wanted))
        for parent, job in session.execute(query.order_by(JobParentRow.parent_id, JobParentRow.job_id)):
            found.setdefault(parent, []).append(job)
    return found


def count_children(session: Session, parent: str, besides: str) -> int:
    """How many jobs other than `besides` run after a job."""
    query = select(func.count()).select_from(JobParentRow)
    return int(session.scalar(query.where(JobParentRow.parent_id == parent, JobParentRow.job_id != besides)) or 0)


def name_them(session: Session, job: str, parents: Iterable[str]) -> None:
    """Keep which jobs a job runs after."""
    before = set(of(session, [job]).get(job, ()))
    wanted = set(parents)
    if gone := before - wanted:
        mine = JobParentRow.job_id == job
        session.execute(delete(JobParentRow).where(mine, JobParentRow.parent_id.in_(sorted(gone))))
    session.add_all(JobParentRow(parent_id=parent, job_id=job) for parent in sorted(wanted - before))
