"""Marking: the leader of shard 0 says that etcd went on, and tells the database; see `domain.mark` (22, M6, I8)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from crony.beat.duty import Background
from crony.domain.mark import Seen, behind
from crony.errors import CronyError, Halted
from crony.etcd.client import Client
from crony.lifecycle.mark import check, put
from crony.lifecycle.move import Lead, transaction
from crony.lifecycle.watermark import Watermark
from crony.store import marks
from crony.store.db import Database

EVERY = 5.0
KEEP_EVERY = 1.0
"""Seconds: the database must not know outcomes of a time of which it has no mark."""
CATALOGUE = "read docs/how-to/restore.md, then run `crony recover catalogue`; until then nothing of it is published"


class Marking:
    """One leader's marks. In threads of its own, as the database may be away."""

    def __init__(
        self,
        client: Client,
        lead: Lead,
        watermark: Watermark,
        database: Database | None,
        halt: Callable[[Halted], None],
    ) -> None:
        """`halt` is told when etcd turns out to be older than what this centre or the database knows of it."""
        self._client, self._lead, self._watermark, self._halt = client, lead, watermark, halt
        self._found: Seen | None = None
        self._archived = 0
        self.background = Background("mark", EVERY, lambda: self._halting(self._mark))
        self.keeping: Background | None = None
        """Telling the database."""
        if database is not None:
            keep = functools.partial(self._halting, functools.partial(self._keep, database))
            self.keeping = Background("mark-in-database", KEEP_EVERY, keep)

    def _halting(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Halted as error:
            self._halt(error)
            raise

    def _mark(self) -> None:
        before = self._watermark.look(self._client)  # first of all: a new mark would hide that an old one is back
        move, _ = put(self._lead.keys, before, at=self._client.now(), archived=self._archived)
        if not self._client.txn(transaction(self._lead, [move])).succeeded:
            raise CronyError("the mark could not be put", why="another centre leads, or put one just now")
        self._found = self._watermark.look(self._client)

    def _keep(self, database: Database) -> None:
        found = self._found
        if found is None:
            return
        why = behind(marks.load(database, self._lead.keys.namespace), found)
        if why:
            raise CronyError("the database was restored to an earlier state", why=why, hint=CATALOGUE)
        found = replace(found, revision=max(found.revision, self._client.revision))
        later = marks.keep(database, self._lead.keys.namespace, found)
        if later is not None:
            # A leader after us may have noted more: what etcd says now decides.
            check(later, self._watermark.look(self._client))
        self._archived = found.mod
