"""The jobs in a book, with their cursors: one entry each, which is all that is kept of their two keys."""

from __future__ import annotations

from collections.abc import Iterator

from crony.beat.alive import Alive
from crony.beat.entries import JobEntry
from crony.beat.news import News
from crony.domain.record import UnknownRecord
from crony.domain.run import Done
from crony.etcd.keys import Keys


class Jobs:
    """Part of one book: `job/` and `done/`."""

    def __init__(self, keys: Keys, news: News, alive: Alive) -> None:
        self._documents, self._cursors = keys.job(""), keys.done("")
        self.prefixes = self._documents, self._cursors
        """What its keys begin with."""
        self._news, self._alive = news, alive
        self.entries: dict[str, JobEntry] = {}
        self.saved_at = 0
        """Revision of the latest save of a job that it knows."""

    def seen(self, key: str) -> int:
        """Last known revision of one of its keys; 0: absent."""
        document = key.startswith(self._documents)
        entry = self.entries.get(key[len(self._documents if document else self._cursors) :])
        return 0 if entry is None else entry.seen if document else entry.done_seen

    def keys(self) -> Iterator[str]:
        """Of all that it knows."""
        for entry in self.entries.values():
            if entry.seen:
                yield self._documents + entry.id
            if entry.done_seen:
                yield self._cursors + entry.id

    def put(self, key: str, value: bytes, revision: int) -> bool:
        """One of its keys has this value since `revision`; whether that is news."""
        if key.startswith(self._documents):
            entry = self._entry(key[len(self._documents) :])
            if revision <= entry.seen:
                return False
            entry.publish(value, revision)
            self.saved_at = max(self.saved_at, revision)
            self._edited(entry)
            return True
        entry = self._entry(key[len(self._cursors) :])
        if revision <= entry.done_seen:
            return False
        try:
            done: Done | None = Done.read(value)
        except UnknownRecord:
            done = None  # whoever acts on it decides what that means
        self._news.doubt |= entry.limbo and entry.done_seen != 0
        entry.done, entry.done_seen, entry.limbo = done, revision, False
        self._news.jobs.add(entry.id)
        return True

    def drop(self, key: str) -> None:
        """One of its keys was deleted."""
        if key.startswith(self._documents):
            entry = self._entry(key[len(self._documents) :])
            entry.publish(b"", 0)
            self._edited(entry)
        else:
            entry = self._entry(key[len(self._cursors) :])
            entry.done, entry.done_seen = None, 0
        if not entry.seen and not entry.done_seen:
            del self.entries[entry.id]

    def _entry(self, job: str) -> JobEntry:
        entry = self.entries.get(job)
        if entry is None:
            entry = self.entries[job] = JobEntry(job)
        return entry

    def _edited(self, entry: JobEntry) -> None:
        # What was in doubt cannot happen any more, but it may have: this may be told before what it did (S1).
        self._news.doubt |= entry.limbo
        entry.problem, entry.limbo = "", False
        entry.refusals, entry.rest_until = 0, 0.0
        self._news.jobs.add(entry.id)
        self._news.waits.update(self._alive.line(entry.id))
