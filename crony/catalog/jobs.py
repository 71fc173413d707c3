"""Jobs as people edit them. Saving is: the database first (job, version, audit in one transaction), then publish.

What dies in between is made good by `reconcile`, which makes etcd agree with the database without
ever lowering a revision. Every job is named by its id or its name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from crony.catalog.calendars import Calendars
from crony.catalog.chains import keep_parents, let_go
from crony.catalog.channels import AlertRules, Channels
from crony.catalog.keeping import check_calendars, check_size, named_by, names_of
from crony.catalog.objects import Objects
from crony.catalog.pools import Pools
from crony.catalog.publishing import Publisher
from crony.catalog.secrets import Rotated, Secrets, rotate
from crony.catalog.views import JobView, Preview, Reconciled, VersionView, preview, view_of
from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.job import Job, parse
from crony.domain.sealing import Cipher
from crony.domain.signing import Sealer
from crony.errors import Conflict, Invalid, NotFound
from crony.etcd.client import Client
from crony.etcd.keys import Keys, prefix_end
from crony.store import audit, calendars, objects, parents
from crony.store import cursor as cursors
from crony.store.cursor import Paged, limit_of
from crony.store.db import Database
from crony.store.models import JobRow, JobVersionRow
from crony.store.search import folded, searchable

LIKE = 1000
"""Most names that one that is not found is compared with, by its beginning and by its end."""


class Catalog:
    """The jobs of one namespace, and what they name.

    `sealer` signs what is published: nodes and centres trust only such documents. `cipher` encrypts secrets.
    """

    def __init__(self, db: Database, client: Client, keys: Keys, sealer: Sealer, cipher: Cipher | None = None) -> None:
        self.db, self.client, self.keys, self.sealer = db, client, keys, sealer
        self._publisher = Publisher(db, client, keys, sealer)
        self.calendars = Calendars(self._publisher)
        self.pools = Pools(self._publisher)
        self.cipher = cipher or Cipher(())
        self.secrets = Secrets(self._publisher, self.cipher)
        self.channels = Channels(self._publisher, self.cipher)
        self.alert_rules = AlertRules(self._publisher, self.channels)
        self.published: tuple[Objects[Any, Any], ...] = (self.pools, self.secrets, self.channels, self.alert_rules)
        """What jobs name and etcd has, by kind."""

    # -- saving ----------------------------------------------------------------------------

    def create(self, document: Mapping[str, Any], actor: str, *, address: str = "") -> JobView:
        """A new job, live on return. Raises `Invalid`, `Conflict` (the name is taken), `SavedNotLive`."""
        job = parse(document)
        self._publisher.refuse_past(None, job)
        ident, save, entry, now = ids.job_id(), ids.fresh("s"), audit.entry_id(), _now()

        def put(session: Session) -> JobView:
            known = session.get(JobRow, ident)
            if known is not None:  # our own commit, whose answer was lost
                return view_of(known)
            self._name_free(session, job.name, ident)
            earlier = session.scalar(select(func.max(JobRow.generation)).where(JobRow.name == job.name))
            row = JobRow(
                id=ident,
                name=job.name,
                live_name=job.name,
                generation=(earlier or 0) + 1,
                revision=1,
                enabled=job.enabled,
                document=job.document(),
                search=searchable(job.document()),
                created_at=now,
                updated_at=now,
                updated_by=actor,
                deleted_at=None,
            )
            session.add(row)
            self._keep_to(session, ident, job)
            self._note(session, row, "create", save, entry, actor, address)
            return view_of(row)

        return self._publisher.go_live(self._save(put, job.name), job)

    def update(
        self,
        job: str,
        document: Mapping[str, Any],
        revision: int | None,
        actor: str,
        *,
        address: str = "",
        action: str = "update",
    ) -> JobView:
        """Save a new document, if the job is still at `revision` (None: whatever it is at).

        A document that says the same as the saved one makes no new revision. Raises `Invalid`,
        `NotFound`, `Conflict` (changed by somebody else, or the name is taken), `SavedNotLive`.
        """
        new = parse(document)
        return self._change(job, lambda _: new, revision, actor, action, address)

    def set_enabled(
        self,
        job: str,
        enabled: bool,
        actor: str,
        *,
        until: int = 0,
        revision: int | None = None,
        address: str = "",
    ) -> JobView:
        """Pause or resume; with `until` (epoch second) the schedule goes on by itself after that second.

        A resume also ends a pause that the leader made, of which the catalogue knows nothing: it is saved as a new
        revision though the document says the same. What would have been due during a pause is recorded as skipped when
        it goes on. Raises `Invalid` for an `until` that is over.
        """
        if until and until <= SYSTEM.wall():
            raise Invalid("until", "is over", hint="choose a later instant, or resume the job")
        action = "resume" if enabled else "pause"
        on = enabled or bool(until)
        again = False
        if enabled:
            standing = self.get(job).standing
            again = standing is None or bool(standing.held)
        return self._change(
            job,
            lambda old: replace(parse(old), enabled=on, paused_until=until),
            revision,
            actor,
            action,
            address,
            again=again,
        )

    def rollback(self, job: str, to: int, actor: str, *, revision: int | None = None, address: str = "") -> JobView:
        """Save the document of an earlier revision again, as a new revision."""
        document = self.version(job, to).document
        return self.update(job, document, revision, actor, address=address, action="rollback")

    def delete(self, job: str, actor: str, *, revision: int | None = None, address: str = "") -> JobView:
        """Delete: its runs stay in the archive, its name is free again. Deleting twice raises `NotFound`."""
        save, entry = ids.fresh("s"), audit.entry_id()

        def put(session: Session) -> JobView:
            row = self._row(session, job, lock=True, deleted_by=save)
            if row.deleted_at is None:
                _expect(row, revision)
                let_go(session, row.id, row.name, "deleted")
                row.revision, row.live_name, row.deleted_at = row.revision + 1, None, _now()
                row.updated_at, row.updated_by = row.deleted_at, actor
                objects.name_them(session, row.id, {})
                parents.name_them(session, row.id, ())
                self._note(session, row, "delete", save, entry, actor, address)
            return view_of(row)

        return self._publisher.go_live(self.db.transaction(put), None)

    def _change(
        self,
        job: str,
        make: Callable[[Mapping[str, Any]], Job],
        revision: int | None,
        actor: str,
        action: str,
        address: str,
        *,
        again: bool = False,
    ) -> JobView:
        """`make`: the new job from the stored document. `again`: save also what says the same."""
        save, entry = ids.fresh("s"), audit.entry_id()
        found = self.db.read(lambda session: view_of(self._row(session, job)))
        self._publisher.refuse_past(found.id, make(found.document), _readable(found))

        def put(session: Session) -> JobView:
            row = self._row(session, found.id, lock=True)
            mine = session.scalar(select(JobVersionRow.save).where(*_version(row)))
            if mine == save:  # our own commit, whose answer was lost
                return view_of(row)
            _expect(row, revision)
            new = make(row.document)
            document = new.document()
            if document == row.document and not again:
                return view_of(row)
            self._name_free(session, new.name, row.id)
            if new.name != row.name:
                let_go(session, row.id, row.name, "renamed")
            row.name = row.live_name = new.name
            row.document, row.enabled, row.revision = document, new.enabled, row.revision + 1
            row.search = searchable(document)
            self._keep_to(session, row.id, new)
            row.updated_at, row.updated_by = _now(), actor
            self._note(session, row, action, save, entry, actor, address)
            return view_of(row)

        view = self._save(put, found.name)
        return self._publisher.go_live(view, parse(view.document))

    def _save(self, put: Callable[[Session], JobView], name: str) -> JobView:
        try:
            return self.db.transaction(put)
        except IntegrityError:
            raise Conflict(
                "The name was taken in this moment", hint=f"look at the job {name}, then try again"
            ) from None

    def _name_free(self, session: Session, name: str, ident: str) -> None:
        holder = session.scalar(select(JobRow.id).where(JobRow.live_name == name))
        if holder is not None and holder != ident:
            raise Conflict(f"There is a job {name} already", hint="choose another name, or edit that job")

    def _keep_to(self, session: Session, ident: str, job: Job) -> None:
        """Refuse what the job names and is not there, and keep what it names."""
        names = names_of(job.schedules)
        known = calendars.contents(session, names, hold=True)
        check_calendars(job.schedules, known, many=job.many)
        check_size(job, known, keep_parents(session, ident, job))
        self.pools.check(((f"limits[{index}]", name) for index, name in enumerate(job.limits)), session)
        self.secrets.check(((f"secrets.{variable}", name) for variable, name in job.secrets), session)
        self.channels.check_job(session, job)
        objects.name_them(session, ident, named_by(job))

    def _note(
        self, session: Session, row: JobRow, action: str, save: str, entry: str, actor: str, address: str
    ) -> None:
        """The version and the audit entry of a change, in its transaction."""
        version = JobVersionRow(
            job_id=row.id,
            revision=row.revision,
            save=save,
            action=action,
            name=row.name,
            document=row.document,
            actor=actor,
            at=row.updated_at,
        )
        session.add(version)
        session.flush()
        detail = {"name": row.name, "revision": row.revision}
        audit.add(session, entry, actor, f"job.{action}", "job", row.id, detail, address)

    def reconcile_objects(self) -> dict[str, list[str]]:
        """Publish what jobs name and etcd does not have yet: names by kind. Raises `Unavailable`."""
        return {kind.kind: names for kind in self.published if (names := kind.reconcile())}

    def rotate(self, actor: str, *, address: str = "") -> Rotated:
        """Encrypt all that is encrypted with the newest key (see `secrets.rotate`)."""
        return rotate(self.published, self.cipher, actor, address=address)

    def reconcile(self, *, now: float | None = None) -> Reconciled:
        """Make etcd agree with the database (see `Publisher.reconcile`)."""
        return self._publisher.reconcile(now=now)

    # -- reading ---------------------------------------------------------------------------

    def get(self, job: str) -> JobView:
        """One job by id or name; deleted ones by id only. Raises `NotFound`."""
        view = self.db.read(lambda session: view_of(self._row(session, job, deleted=True)))
        return replace(view, standing=self._publisher.standings([view.id]).get(view.id))

    def list(
        self,
        *,
        q: str = "",
        enabled: bool | None = None,
        folder: str = "",
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Paged[JobView]:
        """A page of jobs by name: `q` occurs, whatever its case, in name, tags, owner, description or action; `folder`
        is a prefix such as `billing/`."""
        size = limit_of(limit)
        query = _matching(select(JobRow).where(JobRow.deleted_at.is_(None)), q, enabled, folder)
        if cursor is not None:
            (after,) = cursors.parts("jobs", cursor, str)
            query = query.where(JobRow.name > str(after))
        rows = self.db.read(lambda session: session.scalars(query.order_by(JobRow.name).limit(size + 1)).all())
        found = self._publisher.standings([row.id for row in rows[:size]])
        items = [replace(view_of(row), standing=found.get(row.id)) for row in rows[:size]]
        return Paged(items, cursors.make("jobs", items[-1].name) if len(rows) > size else None)

    def count(self, *, q: str = "", enabled: bool | None = None, folder: str = "") -> int:
        """How many jobs such a list has."""
        query = select(func.count()).select_from(JobRow).where(JobRow.deleted_at.is_(None))
        return int(self.db.read(lambda session: session.scalar(_matching(query, q, enabled, folder))) or 0)

    def versions(self, job: str, *, limit: int | None = None, cursor: str | None = None) -> Paged[VersionView]:
        """A page of the saves of a job, newest first."""
        size, before = limit_of(limit), 2**62
        if cursor is not None:
            before = int(cursors.parts("versions", cursor, int)[0])

        def look(session: Session) -> Sequence[JobVersionRow]:
            row = self._row(session, job, deleted=True)
            query = select(JobVersionRow).where(JobVersionRow.job_id == row.id, JobVersionRow.revision < before)
            return session.scalars(query.order_by(JobVersionRow.revision.desc()).limit(size + 1)).all()

        rows = self.db.read(look)
        items = [VersionView(row.revision, row.action, row.actor, row.at, row.document) for row in rows[:size]]
        return Paged(items, cursors.make("versions", items[-1].revision) if len(rows) > size else None)

    def version(self, job: str, revision: int) -> VersionView:
        """One save of a job. Raises `NotFound`."""

        def look(session: Session) -> VersionView:
            row = session.get(JobVersionRow, (self._row(session, job, deleted=True).id, revision))
            if row is None:
                raise NotFound(f"Job {job} has no revision {revision}")
            return VersionView(row.revision, row.action, row.actor, row.at, row.document)

        return self.db.read(look)

    def fires_preview(self, document: Mapping[str, Any], n: int = 10) -> Preview:
        """The next fires of a document's schedule. Raises `Invalid`."""
        return preview(document, n, lookup=self.calendars.contents)

    def _row(
        self, session: Session, job: str, *, lock: bool = False, deleted: bool = False, deleted_by: str = ""
    ) -> JobRow:
        query = select(JobRow).where(or_(JobRow.id == job, JobRow.live_name == job))
        row = session.scalars(query.with_for_update() if lock else query).first()
        if row is not None and row.deleted_at is not None and not deleted:
            mine = session.scalar(select(JobVersionRow.save).where(*_version(row)))
            row = row if deleted_by and mine == deleted_by else None
        if row is None:
            near = _near(session, job)
            hint = f"did you mean {near}?" if near else "look for its name with: crony job list"
            raise NotFound(f"There is no job {job}", hint=hint)
        return row


def _near(session: Session, name: str) -> str:
    """The name of a job most like this one, of those that begin or end as it does; empty: none is like it."""
    query, like = select(JobRow.live_name).where(JobRow.live_name.is_not(None)).limit(LIKE), name.lower()[:200]
    head = func.lower(JobRow.live_name).startswith(like[:2], autoescape=True)
    tail = func.lower(JobRow.live_name).endswith(like.rpartition("/")[2][-4:], autoescape=True)
    names = [str(found) for each in (head, tail) for found in session.scalars(query.where(each))]
    by_text = {found.lower(): found for found in names}
    near = difflib.get_close_matches(like, by_text, n=1, cutoff=0.7)
    return by_text[near[0]] if near else ""


def _matching(query: Select[Any], q: str, enabled: bool | None, folder: str) -> Select[Any]:
    if len(q) > 200 or len(folder) > 255:
        raise Invalid("q", "is too long")
    if q:
        text = folded(q)
        by_name = func.lower(JobRow.name).contains(text, autoescape=True)
        found = JobRow.search.contains(text, autoescape=True)
        query = query.where(or_(found, and_(JobRow.search.is_(None), by_name)))
    if enabled is not None:
        query = query.where(JobRow.enabled.is_(enabled))
    if folder:
        query = query.where(JobRow.name >= folder, JobRow.name < prefix_end(folder))
    return query


def _readable(view: JobView) -> Job | None:
    """The job as saved; None when it cannot be read any more (its zone is gone, say), which an edit may mend."""
    try:
        return view.job
    except Invalid:
        return None


def _now() -> float:
    """Now, to the millisecond that the database keeps."""
    return round(SYSTEM.wall(), 3)


def _version(row: JobRow) -> tuple[Any, Any]:
    return JobVersionRow.job_id == row.id, JobVersionRow.revision == row.revision


def _expect(row: JobRow, revision: int | None) -> None:
    if revision is not None and row.revision != revision:
        raise Conflict(
            f"Job {row.name} was changed by {row.updated_by}",
            why=f"it is at revision {row.revision}, you edited {revision}",
            hint="load it again and repeat your change",
        )
