"""What lies in the run queues: messages with the claims beside them, and how much work that is for each node."""

from __future__ import annotations

from crony.beat import facts
from crony.beat.entries import Queued
from crony.beat.load import Load
from crony.beat.news import News
from crony.domain.ids import place_ident
from crony.domain.queues import node_of, own
from crony.domain.run import Claim

Where = tuple[str, str]
"""Queue and place in it."""


class Lying:
    """Part of one book: `run/q/`."""

    def __init__(self, news: News) -> None:
        self._news = news
        self.queued: dict[Where, Queued] = {}
        self.places: dict[str, Where] = {}
        """Run -> where its message lies."""
        self.load = Load()
        """Runs of each queue."""
        self._claims: dict[Where, tuple[Claim, int]] = {}
        self._others: set[Where] = set()
        """Messages of runs of other shards: they are part of a queue's load."""

    def message(self, where: Where, value: bytes, revision: int) -> None:
        """A message of this shard lies there."""
        run = place_ident(where[1])
        before = self.queued.get(where)
        claim, claim_seen = self._claims.get(where, (None, 0))
        item = Queued(run, *where, value, revision, claim, claim_seen)
        item.counted = before.counted if before else ""
        self.queued[where] = item
        self._weigh(item)
        self.places[run] = where

    def foreign(self, where: Where) -> None:
        """A message of another shard lies there."""
        if where not in self._others:
            self._others.add(where)
            self.load.came(place_ident(where[1]), where[0])

    def gone(self, where: Where) -> str:
        """A message is gone: the run of this shard that it was of; empty: it was of another one."""
        if where in self._others:
            self._others.discard(where)
            self.load.left(where[0])
            return ""
        item = self.queued.pop(where, None)
        if item is not None and item.counted:
            self.load.left(item.counted)
        run = place_ident(where[1])
        if self.places.get(run) == where:
            del self.places[run]
        return run

    def claimed(self, where: Where, value: bytes, revision: int) -> None:
        """Somebody holds the message there, or has given it back."""
        claim = facts.claim(value)
        self._claims[where] = (claim, revision)
        item = self.queued.get(where)
        if item is not None:
            item.claim, item.claim_seen = claim, revision
            self._weigh(item)
            self._news.queues |= not claim.incarnation

    def unclaimed(self, where: Where) -> None:
        """Nobody has ever held it, or it is gone, too."""
        self._claims.pop(where, None)
        item = self.queued.get(where)
        if item is not None:
            item.claim, item.claim_seen = None, 0
            self._weigh(item)
            self._news.queues = True

    def _weigh(self, item: Queued) -> None:
        """Count it as work of its node: of who holds it, where it lies in a shared queue."""
        node = node_of(item.queue) or item.node
        where = own(node) if node else ""
        if where != item.counted:
            if item.counted:
                self.load.left(item.counted)
            if where:
                self.load.came(item.run, where)
            item.counted = where
