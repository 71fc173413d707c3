"""Jobs that run after others, as people save them: parents there are, no circle, nobody's parent taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from crony.domain.after import parse_after
from crony.domain.chain import MOST_CHILDREN
from crony.domain.job import Job
from crony.errors import Conflict, Invalid
from crony.store import parents as store
from crony.store.db import Database
from crony.store.models import JobRow

MOST_SHOWN = 100
"""Most jobs of one graph."""


def keep_parents(session: Session, ident: str, job: Job) -> Mapping[str, str]:
    """Refuse parents that are not there and circles, and keep whom the job runs after; their ids by name.

    Raises `Invalid` naming the field.
    """
    if job.after is None:
        store.name_them(session, ident, ())
        return {}
    if job.after.is_filled:
        raise Invalid("after.ids", "is filled in by Crony", hint="leave it out: the names are enough")
    store.lock(session)
    known = store.ids_of(session, job.after.jobs, hold=True)
    for index, name in enumerate(job.after.jobs):
        field, parent = f"after.jobs[{index}]", known.get(name)
        if parent is None:
            raise Invalid(field, f"names the job {name}, which there is not", hint="save that job first")
        if store.count_children(session, parent, ident) >= MOST_CHILDREN:
            raise Invalid(
                field, f"{name} has {MOST_CHILDREN} jobs that run after it", hint="put a job in between for some"
            )
        circle = [ident] if parent == ident else _way(session, parent, ident)
        if circle:
            named = store.names_of(session, circle) | {ident: job.name}
            ring = " -> ".join(named.get(each, each) for each in [*circle, circle[0]])
            raise Invalid(field, f"closes a circle: {ring}", hint="take one of these jobs out of it")
    store.name_them(session, ident, known.values())
    return known


def _way(session: Session, job: str, to: str) -> list[str]:
    """The jobs from `to` down to `job`, each running after the one before; empty: `job` does not follow it."""
    came_from: dict[str, str] = {job: ""}
    layer = [job]
    while layer:
        above: list[str] = []
        for child, parents in store.of(session, layer).items():
            for parent in parents:
                if parent not in came_from:
                    came_from[parent] = child
                    above.append(parent)
        if to in came_from:
            way = [to]
            while came_from[way[-1]]:
                way.append(came_from[way[-1]])
            return way
        layer = above
    return []


def let_go(session: Session, ident: str, name: str, what: str) -> None:
    """Refuse to delete or rename (`what`) a job that others run after. Raises `Conflict` naming them."""
    after = store.children(session, [ident]).get(ident, [])
    if after:
        names = sorted(store.names_of(session, after).values())
        some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise Conflict(
            f"The job {name} cannot be {what}", why=f"jobs run after it: {some}", hint="take it out of them first"
        )


@dataclass(frozen=True, slots=True)
class Member:
    """A job in a graph."""

    id: str
    name: str
    enabled: bool
    on: str = ""
    """Which end of its parents it waits for; empty: it follows nobody."""
    need: int = 0
    parents: tuple[str, ...] = ()
    """Ids of the jobs that it runs after."""


@dataclass(frozen=True, slots=True)
class Around:
    """The jobs that a job is connected with: whom it follows, who follows it, and whom those follow besides."""

    members: tuple[Member, ...]
    """By name; empty: it is connected with none."""
    more: bool = False
    """There are more than `MOST_SHOWN`."""


def around(db: Database, ident: str) -> Around:
    """What a job is connected with, nearest first where there is too much."""
    return db.read(lambda session: _around(session, ident))


def _around(session: Session, ident: str) -> Around:
    seen, layer, more = {ident}, [ident], False
    while layer and not more:
        near = [each for found in (store.of(session, layer), store.children(session, layer)) for each in found.values()]
        fresh = sorted({job for jobs in near for job in jobs} - seen)
        more = len(seen) + len(fresh) > MOST_SHOWN
        layer = fresh[: MOST_SHOWN - len(seen)]
        seen |= set(layer)
    if len(seen) == 1:
        return Around(())
    above = store.of(session, seen)
    rows = session.scalars(select(JobRow).where(JobRow.id.in_(sorted(seen)), JobRow.deleted_at.is_(None))).all()
    return Around(tuple(sorted((_member(row, above) for row in rows), key=lambda each: each.name)), more)


def _member(row: JobRow, above: Mapping[str, list[str]]) -> Member:
    try:
        after = parse_after((row.document or {}).get("after"))
    except Invalid:
        after = None  # saved by a newer version
    told = (after.on, after.need) if after is not None else ("", 0)
    return Member(row.id, row.name, row.enabled, *told, tuple(above.get(row.id, ())))
