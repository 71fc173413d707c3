"""Pools as people edit them: saved with versions and audit, then published to etcd, where leaders keep to them.

What a crash leaves unpublished, the reconciling duty finds by its revision.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from crony.catalog.publishing import Publisher
from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.pool import Pool, parse_pool
from crony.errors import Conflict, CronyError, Invalid, NotFound
from crony.lifecycle.publish_pool import publish_pool, published
from crony.store import audit
from crony.store import pools as store
from crony.store.db import Database
from crony.store.models import JobRow, PoolRow, PoolVersionRow

log = logging.getLogger("crony.catalog")

MOST = 1000
"""Pools there may be."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as saved, and the names of the jobs that name it."""

    name: str
    limit: int
    description: str
    revision: int
    updated_at: float
    updated_by: str
    jobs: tuple[str, ...] = ()
    live: bool = True
    """After a save: whether leaders keep to it already; they do as soon as etcd is back."""


@dataclass(frozen=True, slots=True)
class PoolVersion:
    """One save or the deletion of a pool."""

    revision: int
    action: str
    actor: str
    at: float
    document: dict[str, Any]


class PoolCatalog:
    """The pools of one namespace."""

    def __init__(self, db: Database, publisher: Publisher) -> None:
        self._db, self._publisher = db, publisher

    def every(self) -> list[PoolView]:
        """All pools by name."""
        return self._db.read(
            lambda session: [_view(session, row) for row in session.scalars(select(PoolRow).order_by(PoolRow.name))]
        )

    def get(self, name: str) -> PoolView:
        """One pool. Raises `NotFound`."""

        def find(session: Session) -> PoolView:
            row = session.get(PoolRow, name)
            if row is None:
                raise NotFound(f"There is no pool {name}", hint="look for its name with: crony pool list")
            return _view(session, row)

        return self._db.read(find)

    def versions(self, name: str) -> list[PoolVersion]:
        """The saves of a pool, newest first, 200 at most; also of a deleted one. Raises `NotFound`."""
        query = select(PoolVersionRow).where(PoolVersionRow.name == name).order_by(PoolVersionRow.revision.desc())
        rows = self._db.read(lambda session: session.scalars(query.limit(200)).all())
        if not rows:
            raise NotFound(f"There is no pool {name}", hint="look for its name with: crony pool list")
        return [PoolVersion(row.revision, row.action, row.actor, row.at, row.document) for row in rows]

    def save(
        self, document: Mapping[str, Any], actor: str, *, revision: int | None = None, address: str = ""
    ) -> PoolView:
        """Create the pool of that name, or edit it if it is still at `revision` (0: new; None: whatever).

        A document that says the same makes no new revision. Raises `Invalid`, `Conflict`.
        """
        made = parse_pool(document)
        save, entry, now = ids.fresh("s"), audit.entry_id(), round(SYSTEM.wall(), 3)

        def put(session: Session) -> PoolView:
            row = session.get(PoolRow, made.name, with_for_update=True)
            last = _last(session, made.name)
            if row is not None and last is not None and last.save == save:  # our own commit, whose answer was lost
                return _view(session, row)
            _expect(made.name, row, revision)
            if row is not None and row.document == made.document():
                return _view(session, row)
            if row is None:
                if (session.scalar(select(func.count()).select_from(PoolRow)) or 0) >= MOST:
                    raise Conflict(f"There are {MOST} pools already", hint="delete those that no job names")
                row, action = PoolRow(name=made.name, revision=(last.revision if last else 0) + 1), "create"
                session.add(row)
            else:
                row.revision, action = row.revision + 1, "update"
            row.document, row.updated_at, row.updated_by = made.document(), now, actor
            _note(session, row, action, save, entry, actor, address)
            return _view(session, row)

        view = self._db.transaction(put)
        return replace(view, live=self._go_live(replace(made, revision=view.revision)))

    def delete(self, name: str, actor: str, *, revision: int | None = None, address: str = "") -> None:
        """Delete a pool that no job names. Raises `NotFound`, `Conflict` naming the jobs."""
        save, entry, now = ids.fresh("s"), audit.entry_id(), round(SYSTEM.wall(), 3)

        def put(session: Session) -> Pool:
            row = session.get(PoolRow, name, with_for_update=True)
            last = _last(session, name)
            if row is None and last is not None and last.save == save:
                return store.pool_of(name, last.revision, last.document, deleted=True)
            if row is None:
                raise NotFound(f"There is no pool {name}", hint="look for its name with: crony pool list")
            _expect(name, row, revision)
            if jobs := _view(session, row).jobs:
                some = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
                raise Conflict(
                    f"The pool {name} is in use", why=f"jobs name it: {some}", hint="take it out of them first"
                )
            row.revision, row.updated_at = row.revision + 1, now
            _note(session, row, "delete", save, entry, actor, address)
            session.delete(row)
            return store.pool_of(name, row.revision, row.document, deleted=True)

        self._go_live(self._db.transaction(put))

    def reconcile(self) -> list[str]:
        """Publish what is missing or older in etcd; the names. Never lowers a revision. Raises `Unavailable`."""
        publisher = self._publisher
        prefix = publisher.keys.obj("pool", "")
        live = {kv.key.removeprefix(prefix): published(kv) for kv in publisher.client.list(prefix).kvs}
        mended = []
        for pool in self._db.read(_newest):
            there = live.get(pool.name)
            if (there is None and pool.deleted) or (there is not None and there.revision >= pool.revision):
                continue
            publish_pool(publisher.client, publisher.keys, publisher.sealer, pool)
            mended.append(pool.name)
        return mended

    def _go_live(self, pool: Pool) -> bool:
        publisher = self._publisher
        try:
            publish_pool(publisher.client, publisher.keys, publisher.sealer, pool)
        except CronyError as error:
            log.warning("pool %s is saved and follows when etcd is back: %s", pool.name, error)
            return False
        return True


def check_pools(names: tuple[str, ...], known: set[str]) -> None:
    """Refuse pools that are not there. Raises `Invalid` naming the field."""
    for index, name in enumerate(names):
        if name not in known:
            raise Invalid(f"limits[{index}]", f"names the pool {name}, which there is not", hint="save that pool first")


def _newest(session: Session) -> list[Pool]:
    """Every pool at its newest revision, the deleted ones too."""
    newest = select(PoolVersionRow.name, func.max(PoolVersionRow.revision).label("revision")).group_by(
        PoolVersionRow.name
    )
    last = newest.subquery()
    query = select(PoolVersionRow).join(
        last, (PoolVersionRow.name == last.c.name) & (PoolVersionRow.revision == last.c.revision)
    )
    return [
        store.pool_of(row.name, row.revision, row.document, deleted=row.action == "delete")
        for row in session.scalars(query.order_by(PoolVersionRow.name))
    ]


def _view(session: Session, row: PoolRow) -> PoolView:
    jobs = store.users(session, row.name)
    names = session.scalars(select(JobRow.name).where(JobRow.id.in_(jobs)).order_by(JobRow.name)) if jobs else ()
    pool = store.pool_of(row.name, row.revision, row.document)
    return PoolView(pool.name, pool.limit, pool.description, row.revision, row.updated_at, row.updated_by, tuple(names))


def _last(session: Session, name: str) -> PoolVersionRow | None:
    query = select(PoolVersionRow).where(PoolVersionRow.name == name)
    return session.scalars(query.order_by(PoolVersionRow.revision.desc()).limit(1)).first()


def _expect(name: str, row: PoolRow | None, revision: int | None) -> None:
    there = row.revision if row is not None else 0
    if revision is not None and revision != there:
        raise Conflict(
            f"Pool {name} was changed meanwhile",
            why=f"it is at revision {there}, you edited {revision}",
            hint="load it again and repeat your change",
        )


def _note(session: Session, row: PoolRow, action: str, save: str, entry: str, actor: str, address: str) -> None:
    """The version and the audit entry of a change, in its transaction."""
    session.add(
        PoolVersionRow(
            name=row.name, revision=row.revision, save=save, action=action, document=row.document, actor=actor,
            at=row.updated_at,
        )
    )  # fmt: skip
    session.flush()
    told = {"revision": row.revision, "limit": row.document["limit"]}
    audit.add(session, entry, actor, f"pool.{action}", "pool", row.name, told, address)
