"""Named objects in the database: what there is of a kind, and which jobs name it; inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from crony.store.models import JobObjectRow, JobRow, ObjectRow, ObjectVersionRow


class Newest(NamedTuple):
    """An object at its newest revision, or its deletion."""

    name: str
    revision: int
    document: dict[str, Any]
    deleted: bool


def rows(session: Session, kind: str, names: Iterable[str], *, hold: bool = False) -> list[ObjectRow]:
    """The objects with these names that there are. `hold`: nobody deletes or edits them before the commit."""
    wanted = sorted(set(names))
    if not wanted:
        return []
    query = select(ObjectRow).where(ObjectRow.kind == kind, ObjectRow.name.in_(wanted)).order_by(ObjectRow.name)
    return list(session.scalars(query.with_for_update(read=True) if hold else query))


def last(session: Session, kind: str, name: str) -> ObjectVersionRow | None:
    """The newest version, of a deleted object its deletion."""
    query = select(ObjectVersionRow).where(ObjectVersionRow.kind == kind, ObjectVersionRow.name == name)
    return session.scalars(query.order_by(ObjectVersionRow.revision.desc()).limit(1)).first()


def newest(session: Session, kind: str) -> list[Newest]:
    """Every object of a kind that there is or was, by name."""
    there = {row.name: row for row in session.scalars(select(ObjectRow).where(ObjectRow.kind == kind))}
    version = ObjectVersionRow
    highest = select(version.name, func.max(version.revision).label("revision")).where(version.kind == kind)
    top = highest.group_by(version.name).subquery()
    query = select(version).join(top, (version.name == top.c.name) & (version.revision == top.c.revision))
    gone = [
        Newest(row.name, row.revision, row.document, True)
        for row in session.scalars(query.where(version.kind == kind))
        if row.name not in there
    ]
    return sorted([*gone, *(Newest(row.name, row.revision, row.document, False) for row in there.values())])


def name_them(session: Session, job: str, wanted: Mapping[str, Iterable[str]]) -> None:
    """Keep which objects a job names: names by kind; of kinds left out none."""
    held = JobObjectRow.job_id == job
    before = {(row.kind, row.name) for row in session.scalars(select(JobObjectRow).where(held))}
    after = {(kind, name) for kind, names in wanted.items() for name in names}
    for kind, name in sorted(before - after):
        session.execute(delete(JobObjectRow).where(held, JobObjectRow.kind == kind, JobObjectRow.name == name))
    session.add_all(JobObjectRow(kind=kind, name=name, job_id=job) for kind, name in sorted(after - before))


def users(session: Session, kind: str, name: str) -> list[str]:
    """Ids of the jobs that name an object."""
    query = select(JobObjectRow.job_id).where(JobObjectRow.kind == kind, JobObjectRow.name == name)
    return list(session.scalars(query.order_by(JobObjectRow.job_id)))


def user_names(session: Session, kind: str, name: str) -> tuple[str, ...]:
    """Names of the jobs that name an object."""
    jobs = users(session, kind, name)
    return tuple(session.scalars(select(JobRow.name).where(JobRow.id.in_(jobs)).order_by(JobRow.name))) if jobs else ()
