"""Named objects as people edit them, whatever their kind: saved with versions and audit, published where processes
need them, kept while jobs name them.

A kind says what its documents look like and what follows a save. What a crash leaves unpublished, the reconciling duty
finds by its revision.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from crony.catalog.publishing import Publisher
from crony.clock import SYSTEM
from crony.domain import ids
from crony.errors import Conflict, CronyError, Invalid, NotFound
from crony.lifecycle.publish_object import Published, publish_object, revision_of
from crony.store import audit
from crony.store import objects as store
from crony.store.models import ObjectRow, ObjectVersionRow
from crony.store.objects import Newest

log = logging.getLogger("crony.catalog")

MOST = 1000
"""Objects of one kind there may be."""


class Named(Protocol):
    """A checked object."""

    @property
    def name(self) -> str:
        """Its name."""

    def document(self) -> dict[str, Any]:
        """What is stored: the object in normal form."""


@dataclass(frozen=True, slots=True)
class ObjectView:
    """An object as saved, and the names of the jobs that name it."""

    name: str
    revision: int
    document: dict[str, Any]
    updated_at: float
    updated_by: str
    jobs: tuple[str, ...] = ()
    live: bool = True
    """After a save: whether it is published already; what is not follows when etcd is back."""

    @property
    def description(self) -> str:
        """For people."""
        return str(self.document.get("description") or "")


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One save or the deletion of an object."""

    revision: int
    action: str
    actor: str
    at: float
    document: dict[str, Any]


class Change(NamedTuple):
    """One save: who, when, and the id that tells it from others."""

    save: str
    entry: str
    actor: str
    at: float
    address: str

    @classmethod
    def by(cls, actor: str, address: str) -> Change:
        """A new one, now. Made before the transaction, so that a repeated one finds itself."""
        return cls(ids.fresh("s"), audit.entry_id(), actor, round(SYSTEM.wall(), 3), address)


N = TypeVar("N", bound=Named)
V = TypeVar("V", bound=ObjectView)


class Objects(ABC, Generic[N, V]):
    """The objects of one kind of one namespace."""

    kind: ClassVar[str]
    shape: type[V]
    """What `get` and `save` give."""

    def __init__(self, publisher: Publisher) -> None:
        self._db, self._publisher = publisher.db, publisher

    # -- what a kind says ------------------------------------------------------------------

    @abstractmethod
    def parse(self, document: Mapping[str, Any]) -> N:
        """The object behind a document. Raises `Invalid` naming the field."""

    def merged(self, made: N, before: Mapping[str, Any] | None) -> N:
        """What is saved, given the stored document before: what was left out may be kept. Raises `Invalid`."""
        return made

    def told(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """What the audit tells of a save, beside its revision. Never a secret."""
        return {}

    def kept(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """What the versions keep of a document."""
        return dict(document)

    def record(self, found: Newest) -> Published | None:
        """What is published; None: nothing, jobs carry what they need of it."""
        return None

    def stored(self, payload: Mapping[str, Any]) -> Newest:
        """What was stored, from what is published. Raises `UnknownRecord`."""
        raise NotImplementedError(f"a {self.kind} is not published")

    def renewed(self, name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored document with its ciphertexts under the newest key; None: nothing is to be done.

        Raises `CannotDecrypt`."""
        return None

    def saved(self, session: Session, row: ObjectRow, before: Mapping[str, Any] | None, change: Change) -> V:
        """What follows a save, in its transaction; the view of it."""
        return self.view(session, row)

    def announced(self, view: V) -> V:
        """What follows the commit of a save; repeated for one whose answer was lost."""
        return replace(view, live=self._go_live(Newest(view.name, view.revision, view.document, False)))

    # -- reading ---------------------------------------------------------------------------

    def every(self) -> list[V]:
        """All of them by name."""
        query = select(ObjectRow).where(ObjectRow.kind == self.kind).order_by(ObjectRow.name)
        return self._db.read(lambda session: [self.view(session, row) for row in session.scalars(query)])

    def get(self, name: str) -> V:
        """One of them. Raises `NotFound`."""

        def find(session: Session) -> V:
            row = session.get(ObjectRow, (self.kind, name))
            if row is None:
                raise self._missing(name)
            return self.view(session, row)

        return self._db.read(find)

    def versions(self, name: str) -> list[ObjectVersion]:
        """The saves, newest first, 200 at most; also of a deleted one. Raises `NotFound`."""
        query = select(ObjectVersionRow).where(ObjectVersionRow.kind == self.kind, ObjectVersionRow.name == name)
        newest = query.order_by(ObjectVersionRow.revision.desc()).limit(200)
        rows = self._db.read(lambda session: session.scalars(newest).all())
        if not rows:
            raise self._missing(name)
        return [ObjectVersion(row.revision, row.action, row.actor, row.at, row.document) for row in rows]

    # -- saving ----------------------------------------------------------------------------

    def save(self, document: Mapping[str, Any], actor: str, *, revision: int | None = None, address: str = "") -> V:
        """Create the object of that name, or edit it if it is still at `revision` (0: new; None: whatever).

        A document that says the same makes no new revision. Raises `Invalid`, `Conflict`.
        """
        made, change = self.parse(document), Change.by(actor, address)

        def put(session: Session) -> V:
            row = session.get(ObjectRow, (self.kind, made.name), with_for_update=True)
            last = store.last(session, self.kind, made.name)
            if row is not None and last is not None and last.save == change.save:  # our commit, its answer was lost
                return self.view(session, row)
            self._expect(made.name, row, revision)
            before = dict(row.document) if row is not None else None
            wanted = self.merged(made, before).document()
            if row is not None and before == wanted:
                return self.view(session, row)
            if row is None:
                there = session.scalar(select(func.count()).where(ObjectRow.kind == self.kind)) or 0
                if there >= MOST:
                    kinds = f"{self.kind}s"
                    raise Conflict(f"There are {MOST} {kinds} already", hint="delete those that no job names")
                row, action = ObjectRow(kind=self.kind, name=made.name), "create"
                row.revision = (last.revision if last else 0) + 1
                session.add(row)
            else:
                row.revision, action = row.revision + 1, "update"
            row.document, row.updated_at, row.updated_by = wanted, change.at, actor
            self._note(session, row, action, change)
            return self.saved(session, row, before, change)

        return self.announced(self._db.transaction(put))

    def delete(self, name: str, actor: str, *, revision: int | None = None, address: str = "") -> None:
        """Delete one that no job names. Raises `NotFound`, `Conflict` naming the jobs."""
        change = Change.by(actor, address)

        def put(session: Session) -> Newest:
            row = session.get(ObjectRow, (self.kind, name), with_for_update=True)
            last = store.last(session, self.kind, name)
            if row is None and last is not None and last.save == change.save:
                return Newest(name, last.revision, last.document, True)
            if row is None:
                raise self._missing(name)
            self._expect(name, row, revision)
            if jobs := store.user_names(session, self.kind, name):
                some = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
                why = f"jobs name it: {some}"
                raise Conflict(f"The {self.kind} {name} is in use", why=why, hint="take it out of them first")
            row.revision, row.updated_at = row.revision + 1, change.at
            self._note(session, row, "delete", change)
            session.delete(row)
            return Newest(name, row.revision, row.document, True)

        self._go_live(self._db.transaction(put))

    def renew(self, name: str, actor: str, *, address: str = "") -> bool:
        """Encrypt one with the newest key; False: it is already, or gone. Raises `CannotDecrypt`."""
        change = Change.by(actor, address)

        def put(session: Session) -> Newest | None:
            row = session.get(ObjectRow, (self.kind, name), with_for_update=True)
            last = store.last(session, self.kind, name)
            if row is None:
                return None
            if last is None or last.save != change.save:
                document = self.renewed(name, row.document)
                if document is None:
                    return None
                row.document, row.revision = document, row.revision + 1
                row.updated_at, row.updated_by = change.at, actor
                self._note(session, row, "rotate", change)
            return Newest(name, row.revision, row.document, False)

        found = self._db.transaction(put)
        if found is not None:
            self._go_live(found)
        return found is not None

    def check(self, named: Iterable[tuple[str, str]], session: Session) -> None:
        """Refuse names that are not there; nobody deletes the others before the commit.

        `named`: field of a job, and the name in it. Raises `Invalid` naming the field.
        """
        wanted = list(named)
        known = {row.name for row in store.rows(session, self.kind, (name for _, name in wanted), hold=True)}
        refuse_unknown(self.kind, wanted, known)

    def reconcile(self) -> list[str]:
        """Publish what is missing or older in etcd; the names. Never lowers a revision. Raises `Unavailable`."""
        publisher = self._publisher
        prefix = publisher.keys.obj(self.kind, "")
        live = {kv.key.removeprefix(prefix): revision_of(kv) for kv in publisher.client.list(prefix).kvs}
        mended = []
        for found in self._db.read(lambda session: store.newest(session, self.kind)):
            there, record = live.get(found.name), self.record(found)
            if record is None or (there is None and found.deleted) or (there is not None and there >= found.revision):
                continue
            publish_object(publisher.client, publisher.keys, publisher.sealer, self.kind, record)
            mended.append(found.name)
        return mended

    # -- parts -----------------------------------------------------------------------------

    def view(self, session: Session, row: ObjectRow) -> V:
        """A row as it is shown."""
        jobs = store.user_names(session, self.kind, row.name)
        return self.shape(row.name, row.revision, row.document, row.updated_at, row.updated_by, jobs)

    def _go_live(self, found: Newest) -> bool:
        publisher, record = self._publisher, self.record(found)
        if record is None:
            return True
        try:
            publish_object(publisher.client, publisher.keys, publisher.sealer, self.kind, record)
        except CronyError as error:
            log.warning("%s %s is saved and follows when etcd is back: %s", self.kind, found.name, error)
            return False
        return True

    def _missing(self, name: str) -> NotFound:
        listing = f"crony {self.kind} list"
        return NotFound(f"No {self.kind} is called {name}", hint=f"look for its name with: {listing}")

    def _expect(self, name: str, row: ObjectRow | None, revision: int | None) -> None:
        there = row.revision if row is not None else 0
        if revision is not None and revision != there:
            raise Conflict(
                f"The {self.kind} {name} was changed meanwhile",
                why=f"it is at revision {there}, you edited {revision}",
                hint="load it again and repeat your change",
            )

    def _note(self, session: Session, row: ObjectRow, action: str, change: Change) -> None:
        """The version and the audit entry of a change, in its transaction."""
        session.add(
            ObjectVersionRow(
                kind=row.kind, name=row.name, revision=row.revision, save=change.save, action=action,
                document=self.kept(row.document), actor=change.actor, at=row.updated_at,
            )
        )  # fmt: skip
        session.flush()
        told = {"revision": row.revision, **self.told(row.document)}
        audit.add(
            session, change.entry, change.actor, f"{self.kind}.{action}", self.kind, row.name, told, change.address
        )


def refuse_unknown(kind: str, named: Iterable[tuple[str, str]], known: Iterable[str]) -> None:
    """Refuse names that are not `known`. Raises `Invalid` naming the field of the first."""
    there = set(known)
    for field, name in named:
        if name not in there:
            raise Invalid(field, f"names the {kind} {name}, which there is not", hint=f"save that {kind} first")
