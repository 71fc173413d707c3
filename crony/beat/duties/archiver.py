"""Archiving: settled outcomes go to the database in bulk, and leave etcd a while later (transaction 17, D7).

In a thread of its own: with the database away nothing else waits, and nothing is deleted. What is kept in memory is
bounded; beyond that the outcomes are read from etcd again when their turn comes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from crony.beat.duty import Background
from crony.domain.node import NodeFacts
from crony.domain.outcome import Outcome
from crony.domain.record import UnknownRecord
from crony.etcd.client import Client
from crony.lifecycle.archive import LIMIT, archive
from crony.lifecycle.move import Lead, transaction
from crony.store import archive as store
from crony.store.db import Database

log = logging.getLogger("crony.beat")

EVERY = 0.25
KEEP = 60.0
"""Seconds an archived outcome stays in etcd: a repeated end or completion still finds it (A6)."""
IN_MEMORY = 32 * 1024 * 1024
"""Most bytes of outcomes held for a database that is away."""
NODES_EVERY = 10.0


@dataclass(slots=True)
class Item:
    """A settled outcome: key, revision, and its value unless it was let go."""

    key: str
    seen: int
    value: bytes | None


class Archiver:
    """Writes what the settling duty hands over. `take` belongs to the loop, the rest to its own thread."""

    def __init__(self, client: Client, lead: Lead, database: Database | None) -> None:
        self._client, self._lead, self._database = client, lead, database
        self._lock = threading.Lock()
        self._todo: deque[Item] = deque()
        self._bytes = 0
        self._written: deque[tuple[float, str, int]] = deque()
        self._nodes_at = 0.0
        self.nodes: list[NodeFacts] = []
        """Facts of the live nodes; replaced as a whole by the loop."""
        self.background = Background("archiver", EVERY, self._work)
        if database is None:
            log.warning("no database is set (CRONY_DATABASE_URL): outcomes stay in etcd")

    @property
    def backlog(self) -> int:
        """Outcomes that the database does not have yet."""
        return len(self._todo)

    def take(self, items: Iterable[Item]) -> None:
        """Outcomes to archive, in order."""
        with self._lock:
            for item in items:
                size = len(item.value or b"")
                if self._bytes + size > IN_MEMORY:
                    item.value = None
                else:
                    self._bytes += size
                self._todo.append(item)
            full = len(self._todo) >= store.BATCH
        if full:
            self.background.nudge()

    def _work(self) -> None:
        if self._database is None:
            return
        self._delete_old()
        while self._todo and not self.background.stopping:
            with self._lock:
                batch = [self._todo[index] for index in range(min(store.BATCH, len(self._todo)))]
            store.write(self._database, self._outcomes(batch))
            now = time.monotonic()
            with self._lock:
                for item in batch:
                    self._todo.popleft()
                    self._bytes -= len(item.value or b"")
                    self._written.append((now, item.key, item.seen))
            self._delete_old()
        if self.nodes and time.monotonic() >= self._nodes_at:
            store.write(self._database, [], self.nodes)
            self._nodes_at = time.monotonic() + NODES_EVERY

    def _outcomes(self, batch: list[Item]) -> list[Outcome]:
        found: list[Outcome] = []
        for item in batch:
            value = item.value
            if value is None:
                kept = self._client.get(item.key)
                if kept is None:
                    continue  # archived and deleted by a leader before us
                value = kept.value
            try:
                found.append(Outcome.read(value))
            except UnknownRecord as error:
                log.error("the outcome %s cannot be archived and is dropped: %s", item.key, error)
        return found

    def _delete_old(self) -> None:
        """Delete what the database has had for long enough."""
        while self._written and self._written[0][0] <= time.monotonic() - KEEP and not self.background.stopping:
            due = [(key, seen) for at, key, seen in self._head() if at <= time.monotonic() - KEEP]
            answer = self._client.txn(transaction(self._lead, [archive(dict(due))]))
            if not answer.succeeded:
                there = [(key, seen) for key, seen in due if (kv := self._client.get(key)) and kv.mod == seen]
                if len(there) == len(due):
                    return  # not the leader any more
                if there and not self._client.txn(transaction(self._lead, [archive(dict(there))])).succeeded:
                    return
            for _ in due:
                self._written.popleft()

    def _head(self) -> list[tuple[float, str, int]]:
        return [self._written[index] for index in range(min(LIMIT, len(self._written)))]
