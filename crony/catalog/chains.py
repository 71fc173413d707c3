"""Jobs that run after others, as people save them: parents there are, no circle, nobody's parent taken away."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from crony.domain.chain import MOST_CHILDREN
from crony.domain.job import Job
from crony.errors import Conflict, Invalid
from crony.store import parents as store


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
