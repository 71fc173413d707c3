"""`crony recover catalogue`: a database that was restored learns from etcd what has been published since (M5).

Nothing is lowered: what has a higher revision in etcd (a job, calendar, pool, secret) is taken over, what etcd knows as
deleted is deleted. A job of which etcd knows nothing was most likely deleted since; it is kept, switched off.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from crony.catalog.calendars import Calendars
from crony.catalog.jobs import Catalog
from crony.catalog.keeping import named_by
from crony.catalog.objects import Objects
from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.calendar import parse_calendar
from crony.domain.job import parse
from crony.domain.livejob import LiveJob
from crony.domain.record import UnknownRecord
from crony.domain.signing import BadSeal, Verifier
from crony.errors import CronyError, Invalid
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.mark import look
from crony.store import audit, marks, objects, parents
from crony.store.db import Database
from crony.store.models import JobRow, JobVersionRow, ObjectRow, ObjectVersionRow
from crony.store.objects import Newest
from crony.store.search import searchable

log = logging.getLogger("crony.recover")

ACTOR = "crony recover"


@dataclass(slots=True)
class Imported:
    """What was taken over, by name; `failed`: id to why."""

    jobs: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    calendars: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    """What jobs name, each with its kind."""
    switched_off: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def catalogue(db: Database, client: Client, keys: Keys, webs: Verifier, catalog: Catalog) -> Imported:
    """Take over what is published. `webs` opens documents: others are nobody's. Raises as client and database."""
    found, published = Imported(), set[str]()
    for kind in catalog.published:  # before the jobs that name them
        _objects(db, client, keys, webs, kind, found)
    lives = _published(client, keys, webs, found)
    for live in sorted(lives, key=lambda live: not live.deleted):  # deleted ones first: their names are free then
        published.add(live.id)
        try:
            if live.deleted:
                _delete(db, live, found)
            else:
                _take(db, catalog, live, found)
        except Invalid as error:
            found.failed[live.id] = str(error)
    _switch_off(db, catalog, published | found.failed.keys(), found)
    marks.keep(db, keys.namespace, look(client, keys))
    return found


def _published(client: Client, keys: Keys, webs: Verifier, found: Imported) -> list[LiveJob]:
    prefix, lives = keys.job(""), []
    for kv in client.list(prefix).kvs:
        try:
            lives.append(LiveJob.read(webs.open(kv.value)))
        except (BadSeal, UnknownRecord) as error:
            found.failed[kv.key.removeprefix(prefix)] = str(error)
    return lives


def _delete(db: Database, live: LiveJob, found: Imported) -> None:
    def put(session: Session) -> bool:
        row = session.get(JobRow, live.id, with_for_update=True)
        if row is None or row.revision >= live.revision:
            return False
        row.revision, row.live_name, row.deleted_at = live.revision, None, live.published_at or _now()
        row.updated_at, row.updated_by = _now(), ACTOR
        objects.name_them(session, row.id, {})
        parents.name_them(session, row.id, ())
        _note(session, row)
        return True

    if db.transaction(put):
        found.deleted.append(live.name)


def _take(db: Database, catalog: Catalog, live: LiveJob, found: Imported) -> None:
    """Raises `Invalid` for a document that cannot be saved here."""
    document, contents = bare(live.document or {})
    job = parse(document)
    above = live.job.after.ids if live.job.after else ()

    def put(session: Session) -> tuple[bool, list[str]]:
        row = session.get(JobRow, live.id, with_for_update=True)
        if row is not None and row.revision >= live.revision:
            return False, []
        holder = session.scalar(select(JobRow.id).where(JobRow.live_name == live.name, JobRow.id != live.id))
        if holder is not None:
            raise Invalid(
                "name", f"{live.name} is the name of job {holder}", hint="rename that one, then run this again"
            )
        if row is None:
            row = JobRow(id=live.id, created_at=live.published_at or _now())
            session.add(row)
        row.name = row.live_name = live.name
        row.generation, row.revision, row.enabled = live.generation, live.revision, job.enabled
        row.document, row.search, row.deleted_at = job.document(), searchable(job.document()), None
        row.updated_at, row.updated_by = _now(), ACTOR
        learnt = [name for name, content in contents.items() if _calendar(session, catalog.calendars, name, content)]
        session.flush()
        objects.name_them(session, row.id, named_by(job))
        parents.name_them(session, row.id, above)
        _note(session, row)
        return True, learnt

    taken, learnt = db.transaction(put)
    if taken:
        found.jobs.append(live.name)
        found.calendars += learnt


def _calendar(session: Session, kind: Calendars, name: str, content: Mapping[str, Any]) -> bool:
    """Take over a calendar as a job has it, if it is later than the one here."""
    made = parse_calendar(content)
    row = session.get(ObjectRow, ("calendar", name))
    described = {**made.document(), "description": row.document.get("description", "") if row is not None else ""}
    document = parse_calendar(described).document()
    return _object(session, kind, Newest(name, made.revision, document, False))


def _objects(
    db: Database, client: Client, keys: Keys, webs: Verifier, kind: Objects[Any, Any], found: Imported
) -> None:
    """Take over what jobs name, of one kind."""
    prefix = keys.obj(kind.kind, "")
    for kv in client.list(prefix).kvs:
        try:
            told = kind.stored(webs.open(kv.value))
            taken = db.transaction(lambda session, told=told: _object(session, kind, told))  # type: ignore[misc]
        except (BadSeal, UnknownRecord) as error:
            found.failed[kv.key.removeprefix(prefix)] = str(error)
            continue
        if taken:
            found.objects.append(f"{kind.kind} {told.name}")


def _object(session: Session, of: Objects[Any, Any], found: Newest) -> bool:
    """Take over an object, or its deletion, if it is later than what is known here."""
    kind = of.kind
    row = session.get(ObjectRow, (kind, found.name), with_for_update=True)
    last = objects.last(session, kind, found.name)
    if max(row.revision if row is not None else 0, last.revision if last is not None else 0) >= found.revision:
        return False
    if row is None:
        row = ObjectRow(kind=kind, name=found.name)
        session.add(row)
    row.revision, row.document = found.revision, found.document
    row.updated_at, row.updated_by = _now(), ACTOR
    session.flush()
    action = "delete" if found.deleted else "recover"
    session.add(
        ObjectVersionRow(kind=kind, name=row.name, revision=row.revision, save=ids.fresh("s"), action=action,
                         document=of.kept(row.document), actor=ACTOR, at=row.updated_at)
    )  # fmt: skip
    if found.deleted:
        session.delete(row)
    audit.add(session, audit.entry_id(), ACTOR, f"{kind}.recover", kind, found.name, {"revision": found.revision})
    return True


def _switch_off(db: Database, catalog: Catalog, published: set[str], found: Imported) -> None:
    """Jobs of which etcd knows nothing: saved, deleted and forgotten since the backup, or never published at all."""
    query = select(JobRow.id, JobRow.name).where(JobRow.deleted_at.is_(None), JobRow.enabled.is_(True))
    rows = db.read(lambda session: session.execute(query).all())
    for ident, name in rows:
        if ident in published:
            continue
        try:
            catalog.set_enabled(ident, False, ACTOR)
            found.switched_off.append(name)
        except CronyError as error:
            found.failed[ident] = str(error)


def bare(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """A published document as it was saved, with the names of its calendars, and their contents."""
    contents: dict[str, Mapping[str, Any]] = {}

    def name(item: Any) -> Any:
        if isinstance(item, Mapping):
            contents[str(item.get("name"))] = item
            return item.get("name")
        return item

    def one(schedule: Any) -> Any:
        if not isinstance(schedule, Mapping) or not isinstance(schedule.get("calendars"), Mapping):
            return schedule
        kept = {part: [name(item) for item in items] if isinstance(items, list) else items
                for part, items in schedule["calendars"].items()}  # fmt: skip
        return {**schedule, "calendars": kept}

    schedule = document.get("schedule")
    plain = [one(item) for item in schedule] if isinstance(schedule, list) else one(schedule)
    saved = {**document, "schedule": plain} if "schedule" in document else dict(document)
    if isinstance(after := document.get("after"), Mapping):  # the ids of its parents are published only
        saved["after"] = {field: value for field, value in after.items() if field != "ids"}
    return saved, contents


def _note(session: Session, row: JobRow) -> None:
    """The version and the audit entry."""
    session.flush()
    session.add(
        JobVersionRow(job_id=row.id, revision=row.revision, save=ids.fresh("s"), action="recover", name=row.name,
                      document=row.document, actor=ACTOR, at=row.updated_at)
    )  # fmt: skip
    detail = {"name": row.name, "revision": row.revision}
    audit.add(session, audit.entry_id(), ACTOR, "job.recover", "job", row.id, detail)


def _now() -> float:
    return round(SYSTEM.wall(), 3)
