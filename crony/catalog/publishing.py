"""How saved jobs become live: publishing them, and the reconcile that makes etcd agree with the database.

Nothing here ever lowers a revision, so running twice, late or beside a save does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import select

from crony.catalog.keeping import names_of
from crony.catalog.views import JobView, Reconciled, SavedNotLive, Standing, view_of
from crony.domain.job import Job
from crony.domain.livejob import LiveJob
from crony.domain.record import UnknownRecord
from crony.domain.run import Done
from crony.domain.signing import Sealer, peek
from crony.errors import Conflict, CronyError, NotFound, Unavailable, Unknown
from crony.etcd.client import KV, Client
from crony.etcd.errors import Compacted
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.txn import Txn
from crony.lifecycle.publish import NEWER, publish, refuse_past
from crony.lifecycle.taken import taken_in
from crony.store import calendars, parents
from crony.store.db import Database
from crony.store.models import JobRow

log = logging.getLogger("crony.catalog")

_PAGE = 500


class Publisher:
    """The way from the database to etcd. `sealer` signs what is published."""

    def __init__(self, db: Database, client: Client, keys: Keys, sealer: Sealer) -> None:
        self.db, self.client, self.keys, self.sealer = db, client, keys, sealer

    def refuse_past(self, ident: str | None, new: Job, old: Job | None = None) -> None:
        """Refuse an `at` that is over before anything is saved; without etcd the publish records it instead."""
        if new.enabled and any(schedule.kind == "at" for schedule in new.schedules):
            try:
                refuse_past(self.client, self.keys, ident, new, old)
            except (Unavailable, Unknown):
                log.warning("etcd is away: whether an instant of job %s is over is seen when it goes live", new.name)

    def go_live(self, view: JobView, job: Job | None, *, ask: bool = True) -> JobView:
        """Publish what was just saved. Raises `SavedNotLive` when that has to wait.

        `ask`: wait a moment for a leader to take it in, and say whether one has.
        """
        try:
            published = self._publish(view, job)
        except CronyError as error:
            raise SavedNotLive(view, str(error)) from error
        standing = self.standings([view.id]).get(view.id)
        if standing is None and published != NEWER:
            standing = Standing(int(published))
        if standing is not None and ask and view.deleted_at is None:
            standing = replace(standing, taken_in=self._taken_in(view.id))
        return replace(view, standing=standing)

    def _taken_in(self, job: str) -> bool | None:
        try:
            found = self.client.get(self.keys.job(job))
        except CronyError:
            return None
        return taken_in(self.client, self.keys, job, found.mod) if found is not None else None

    def _publish(
        self, view: JobView, job: Job | None, *, free: bool = True, claim: bool = True, now: float | None = None
    ) -> int | str:
        live = LiveJob(
            view.id,
            view.name,
            view.generation,
            view.revision,
            document=None if view.deleted_at is not None else self._filled(job or view.job),
            deleted=view.deleted_at is not None,
        )
        try:
            return publish(self.client, self.keys, self.sealer, live, late=True, claim=claim, now=now)
        except Conflict:
            holder = self._former_holder(view.name) if free else None
            if holder is None:
                raise
        # The job that has our name in etcd gave it up in the database. It may want the one we have there.
        self._publish(holder, None, free=False, claim=False, now=now)
        published = self._publish(view, job, free=False, now=now)
        self._publish(holder, None, free=False, now=now)
        return published

    def _filled(self, job: Job) -> Job:
        """The job with its calendars as they are now: later than the view of it, so never older than it needs.

        And with the ids of its parents, which nobody renames while it names them.
        """
        names, after = names_of(job.schedules), job.after.jobs if job.after else ()
        if not names and not after:
            return job
        known = self.db.read(lambda session: calendars.contents(session, names))
        above = self.db.read(lambda session: parents.ids_of(session, after))
        for name in after:
            if name not in above:
                raise NotFound(f"There is no job {name}", hint="save it, or take it out of the job")
        try:
            return job.filled(known, above)
        except KeyError as missing:
            raise NotFound(
                f"There is no calendar {missing.args[0]}", hint="save it, or take it out of the job"
            ) from None

    def _former_holder(self, name: str) -> JobView | None:
        """The job that has a name in etcd, if the database says that it has another now or is deleted."""
        held = self.client.get(self.keys.name(name))
        if held is None:
            return None
        ident = held.value.decode("utf-8", "replace")
        holder = self.db.read(lambda session: session.get(JobRow, ident))
        return None if holder is None or holder.live_name == name else view_of(holder)

    def reconcile(self, *, now: float | None = None) -> Reconciled:
        """Make etcd agree with the database: publish what is missing or older there, put tombstones where deleted.

        Reads etcd first, then the database, so that a save in between is never undone; never lowers a
        revision (a higher one in etcd is reported and left). `now`: the instant from which what is published holds
        (default: etcd's). Raises `Unavailable` when either is away.
        """
        result = Reconciled()
        names = {kv.value.decode("utf-8", "replace"): kv.key for kv in self.client.list(self.keys.name("")).kvs}
        live = dict(self._published())
        seen: set[str] = set()
        for page in self._pages():
            for ident, name, revision, deleted in page:
                seen.add(ident)
                there = live.get(ident)
                if there is None:
                    if not deleted:
                        self._mend(ident, result.published, result, now)
                elif there[0] < revision or (there == (revision, False) and names.get(ident) != self.keys.name(name)):
                    self._mend(ident, result.deleted if deleted else result.published, result, now)
                elif there[0] > revision:
                    result.ahead.append(ident)
                    log.error(
                        "job %s is published as revision %d, the database knows only %d: nothing is lowered; "
                        "was an older backup restored?", ident, there[0], revision,
                    )  # fmt: skip
        for ident, (revision, deleted) in live.items():
            if ident not in seen and not deleted:
                result.strange.append(ident)
                log.error(
                    "job %s (revision %d) is published but not in the database; it is left as it is", ident, revision
                )
        if result.published or result.deleted:
            log.info("reconcile published %d jobs and deleted %d", len(result.published), len(result.deleted))
        return result

    def _mend(self, ident: str, done: list[str], result: Reconciled, now: float | None) -> None:
        try:
            view = self.db.read(lambda session: view_of(session.get_one(JobRow, ident)))
            self._publish(view, None, now=now)
            done.append(ident)
        except (Unavailable, Unknown):
            raise
        except CronyError as error:
            result.failed[ident] = str(error)
            log.error("job %s cannot be published: %s", ident, error)

    def _published(self) -> Iterator[tuple[str, tuple[int, bool]]]:
        """(id, (revision, deleted)) of every published job, page by page: documents are not kept."""
        prefix = self.keys.job("")
        start, end, at = prefix, prefix_end(prefix), 0
        while True:
            try:
                page = self.client.range(start, end, limit=_PAGE, revision=at)
            except Compacted:  # too slow: go on at the newest revision; what changed meanwhile is only newer
                at = 0
                continue
            at = at or page.revision
            for kv in page.kvs:
                live = _read(kv)
                yield kv.key[len(prefix) :], (live.revision, live.deleted) if live else (0, False)
            if not page.more or not page.kvs:
                return
            start = page.kvs[-1].key + "\0"

    def _pages(self) -> Iterator[Sequence[tuple[str, str, int, bool]]]:
        last, columns = "", (JobRow.id, JobRow.name, JobRow.revision, JobRow.deleted_at)
        while True:
            query = select(*columns).where(JobRow.id > last).order_by(JobRow.id).limit(_PAGE)
            rows = self.db.read(lambda session, query=query: session.execute(query).all())  # type: ignore[misc]
            yield [(ident, name, revision, deleted is not None) for ident, name, revision, deleted in rows]
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def standings(self, jobs: Sequence[str]) -> dict[str, Standing]:
        """How the jobs stand with the centre; empty when etcd does not answer. Tombstones count."""
        found: dict[str, Standing] = {}
        try:
            for start in range(0, len(jobs), 50):
                some, txn = jobs[start : start + 50], Txn()
                for ident in some:
                    txn.get(self.keys.job(ident)).get(self.keys.done(ident))
                answers = iter(self.client.txn(txn).responses)
                for ident, published, cursor in zip(some, answers, answers, strict=True):
                    live = _read(published[0]) if published else None
                    if live is not None:
                        found[ident] = Standing.of(live, _done(cursor[0]) if cursor else None)
        except (Unavailable, Unknown) as error:
            log.info("how jobs stand is not known now: %s", error)
        return found


def _done(kv: KV) -> Done | None:
    try:
        return Done.read(kv.value)
    except UnknownRecord:
        return None


def _read(kv: KV) -> LiveJob | None:
    try:
        return LiveJob.read(peek(kv.value))
    except (ValueError, KeyError, TypeError, UnknownRecord):
        return None
