"""Cursors: every job's to now, with a record of each fire in between of which nobody knows what became (P1)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sqlalchemy import select

from crony.domain import afterend, ids
from crony.domain.calendar import Calendar
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Outcome, SkipReason
from crony.domain.record import UnknownRecord
from crony.domain.run import Done
from crony.domain.signing import BadSeal, Verifier
from crony.errors import CronyError
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move
from crony.lifecycle.note import note
from crony.lifecycle.recover import set_back
from crony.lifecycle.skip import skipped_fires
from crony.recovery.fires import Gap, gaps, lived
from crony.store import calendars, recovery
from crony.store.db import Database
from crony.store.models import ObjectRow
from crony.store.recovery import KnownFires, SavedJob

log = logging.getLogger("crony.recover")

WHY = "etcd was restored from a backup; whether they ran since is not known"


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one job's cursor, and how many fires are recorded as unknown."""

    job: str
    move: Move
    unknown: int


class Cursors:
    """Looks at all jobs of the backup, and at those of the database that the backup does not have."""

    def __init__(self, client: Client, keys: Keys, webs: Verifier, database: Database | None, now: float) -> None:
        """`webs` opens published documents; `now`: epoch seconds."""
        self._client, self._keys, self._webs, self._database = client, keys, webs, database
        self._now, self._until = now, int(now)
        self._calendars: dict[str, Calendar] | None = None

    def look(self) -> tuple[dict[str, LiveJob], list[Step]]:
        """The published jobs, and the steps that are still to be made. Raises as client and database."""
        saved = {job.id: job for job in recovery.jobs(self._database)} if self._database is not None else {}
        prefix = self._keys.done("")
        cursors = {kv.key.removeprefix(prefix): kv for kv in self._client.list(prefix).kvs}
        published: dict[str, LiveJob] = {}
        steps: list[Step] = []
        there = set()
        for kv in self._client.list(self._keys.job("")).kvs:
            job = kv.key.removeprefix(self._keys.job(""))
            there.add(job)
            try:
                live = LiveJob.read(self._webs.open(kv.value))
                cursor = cursors.get(job)
                done = Done.read(cursor.value) if cursor is not None else Done(live.since_at)
                published[job] = live
                if done.upto_at < self._until:
                    steps += self._move(live, kv, cursor, done, saved.get(job))
            except (BadSeal, UnknownRecord) as error:
                log.warning("job %s is left alone: %s", job, error)
        for job, found in saved.items():
            if job not in there:
                steps += self._created_since(found)
        return published, steps

    def _move(self, live: LiveJob, kv: KV, cursor: KV | None, done: Done, saved: SavedJob | None) -> Iterator[Step]:
        """One cursor; none where nothing was due, which is the same wherever it stands."""
        whole, until = live, self._until
        if saved is not None and saved.revision > live.revision:
            saves = self._saves(saved, live.revision)
            whole = lived(live, live.id, live.generation, saves, self._all(), done.upto_at) or live
            until = self._end(saved)
        try:
            first = afterend.known(whole, done).next_due(done.upto_at)
        except CronyError as error:
            log.warning("what was due of job %s cannot be told: %s", live.id, error)
            first = None
        due = first is not None and first <= until
        if not due and not done.awaits and whole is live:
            return
        known = self._known(live.id, done.upto_at)
        found = gaps(whole, done, until, known) if due else []
        after = replace(done, upto_at=max(self._until, known.last), fires=done.fires + len(known.runs), due_at=None,
                        due_seen=0)  # fmt: skip
        if not live.deleted:
            after = afterend.fired(live, after, "", self._now)
        seen = cursor.mod if cursor is not None else 0
        skips = [self._skip(whole, gap) for gap in found]
        move = note(self._keys, live.id, job_seen=kv.mod, done_seen=seen, done=after, skips=skips)
        yield Step(live.id, move, sum(gap.count for gap in found))

    def _created_since(self, saved: SavedJob) -> Iterator[Step]:
        """Records for a job that the backup does not have: it is published as new, due from now on only."""
        saves = self._saves(saved, 0)
        begun = int(saves[0][1]) if saves else 0
        live = lived(None, saved.id, saved.generation, saves, self._all(), begun)
        if live is None:
            return
        job, keys = self._keys.job(saved.id), self._keys
        for gap in gaps(live, Done(begun), self._end(saved), self._known(saved.id, begun)):
            key = keys.out(ids.fire_run_id(live.id, live.generation, gap.first), 0)
            if self._client.get(key) is None:  # else put by a recovery before this one
                move = set_back(keys, {job: 0, key: 0}, outcomes=[(0, self._skip(live, gap))])
                yield Step(saved.id, move, gap.count)

    def _saves(self, saved: SavedJob, after: int) -> list[tuple[int, float, dict[str, object]]]:
        """The saves later than a revision; a deletion says nothing of schedules."""
        assert self._database is not None
        found = recovery.versions(self._database, saved.id, after)
        return [each for each in found if saved.deleted_at is None or each[0] < saved.revision]

    def _end(self, saved: SavedJob) -> int:
        return self._until if saved.deleted_at is None else min(self._until, int(saved.deleted_at))

    def _known(self, job: str, after: int) -> KnownFires:
        return recovery.fires(self._database, job, after) if self._database is not None else KnownFires()

    def _all(self) -> dict[str, Calendar]:
        """All calendars as they are now."""
        if self._calendars is None and self._database is not None:
            query = select(ObjectRow).where(ObjectRow.kind == "calendar")
            rows = self._database.read(lambda session: session.scalars(query).all())
            self._calendars = {row.name: calendars.calendar_of(row) for row in rows}
        return self._calendars or {}

    def _skip(self, live: LiveJob, gap: Gap) -> Outcome:
        reason = SkipReason.RESTORED
        return skipped_fires(live, reason, WHY, first=gap.first, last=gap.last, count=gap.count, at=self._now)
