"""What a centre knows of one shard, whether it leads it or stands by: the book, the agenda, and the news for them.

Everything first, then what happened since that listing began, in the order in which each stream tells it. That is the
same for whoever leads and for whoever stands by, so one that stands by needs no listing when it is elected: see
`catch_up`.
"""

from __future__ import annotations

import gc
import logging
import queue
import time
from collections.abc import Callable
from typing import Any

from crony.beat.agenda import Agenda
from crony.beat.book import Book
from crony.beat.feed import Feed, streams
from crony.clock import Clock
from crony.domain.shards import Part
from crony.domain.signing import Verifier
from crony.errors import CronyError, Unavailable, Unknown
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.txn_result import TxnResult
from crony.etcd.watch import Event
from crony.lifecycle.move import Lead, transaction
from crony.lifecycle.told import told

log = logging.getLogger("crony.beat")

MANY = 10_000
"""Jobs from which on it is worth telling Python's collector of garbage to leave them out."""
PATIENCE = 1.0
"""Seconds after which a watch that has not told of the election is opened anew; each time twice as many."""


class Knowledge:
    """Of one shard. Owned by one thread at a time; only `begin` and `hear` are called by others."""

    def __init__(self, feed: Feed, keys: Keys, part: Part, webs: Verifier, clock: Clock) -> None:
        self.part, self._feed, self._keys = part, feed, keys
        self.book = Book(keys, part)
        self.book.pools.trusted = webs
        self.agenda = Agenda(self.book, webs, clock.wall, clock.monotonic)
        self.events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        """News, and for a leader what else its loop has to take."""
        self.listed_at = 0
        self.revisions: list[int] = []
        """How far each stream has told."""
        self._frozen = False

    def join(self) -> None:
        """Take in everything there is. Raises as the client; it can be tried again with a new one only."""
        self.listed_at = self.book.catalogue.saved_at = self._feed.join(self)
        self.revisions = [self.listed_at for _ in streams(self._keys)]
        if len(self.book.jobs) >= MANY:
            self._frozen = True
            gc.freeze()

    def leave(self) -> bool:
        """It is not needed any more. Whether it is so large that its room should be got back now."""
        self._feed.leave(self)
        if self._frozen:
            gc.unfreeze()
        return self._frozen

    def wake(self) -> None:
        """Have `take` return now."""
        self.events.put(("woken",))

    # -- from the feed -------------------------------------------------------------------------

    def begin(self, pairs: list[KV]) -> None:
        """Some of what there was when it joined."""
        put = self.book.put
        for kv in pairs:
            put(kv.key, kv.value, kv.mod, kv.create)

    def hear(self, what: str, stream: int, items: list[Any], revision: int) -> None:
        """News, for whoever owns this."""
        self.events.put((what, stream, items, revision))

    # -- for the owner -------------------------------------------------------------------------

    def take(self, sleep: float, other: Callable[..., None] | None = None) -> None:
        """Wait for news, then take all there is. `other` is given what is no news of the feed."""
        events = self.events
        try:
            item = events.get(timeout=sleep) if sleep > 0 else events.get_nowait()
            while True:
                what, *facts = item
                if what == "events":
                    self._happened(*facts)
                elif what == "snapshot":
                    self._listed(*facts)
                elif other is not None:
                    other(what, *facts)
                item = events.get_nowait()
        except queue.Empty:
            return

    def _happened(self, stream: int, events: list[Event], revision: int) -> None:
        book = self.book
        for event in events:
            if event.mod <= self.listed_at:
                continue  # the listing has it, or something newer
            if event.kind == "put":
                book.put(event.key, event.value, event.mod, event.create)
            else:
                book.drop(event.key, event.mod)
        self.revisions[stream] = max(revision, self.revisions[stream])

    def _listed(self, stream: int, pairs: list[KV], revision: int) -> None:
        if revision <= self.listed_at:
            return
        start, end = streams(self._keys)[stream]
        self.book.replace(start, end, ((kv.key, kv.value, kv.mod, kv.create) for kv in pairs), revision)
        self.revisions[stream] = max(revision, self.revisions[stream])

    def list_runs_anew(self) -> bool:
        """After a late surprise the book may lack a run; a listing cannot. False: etcd is away, decide nothing."""
        start, end = streams(self._keys)[-1]
        try:
            runs, revision = self._feed.runs_of(self.part)
        except CronyError as error:
            log.warning("the runs cannot be listed anew: %s", error)
            return False
        log.warning("an unanswered transaction arrived late; the runs were listed anew at revision %d", revision)
        self.book.replace(start, end, ((kv.key, kv.value, kv.mod, kv.create) for kv in runs), revision)
        self.book.news.doubt = False
        return True

    # -- standing by, and being elected --------------------------------------------------------

    def stand_by(self, sleep: float) -> bool:
        """Take in news while somebody else leads. Nobody looks at them now: who is elected looks at everything.

        Whether documents are still to be read.
        """
        self.take(sleep)
        unread = self.agenda.learn()
        self.book.rest()
        (_, first), (_, second), _ = streams(self._keys)
        told = self.revisions
        self.book.forget(lambda key: told[0 if key < first else 1 if key < second else 2])
        return unread

    def catch_up(self, client: Client, lead: Lead, lives: Callable[[], bool]) -> int:
        """Know everything up to the own election, as a listing made now would; the revision up to which it does.

        One transaction under the new term puts a key in the range of each stream. A stream that has told of it has told
        of all that was written before, and nothing written under an earlier term can come after it: each of its
        transactions compares that term. Raises `Unavailable` when the term is over (`lives`) before that.
        """
        answer = self._tell(client, lead, lives)
        if not answer.succeeded:
            raise Unavailable("the term was over before it began", hint="another centre leads")
        patience = PATIENCE
        hurry_at = time.monotonic() + patience
        while min(self.revisions) < answer.revision:
            if not lives():
                raise Unavailable("the term was over before all was known", hint="another centre leads")
            self.take(0.05)
            if time.monotonic() >= hurry_at:
                patience *= 2
                hurry_at += patience
                log.warning("a watch has not told of the election yet: they are opened anew")
                self._feed.reopen()
        self.book.wake()
        self.book.catalogue.saved_at = max(self.book.catalogue.saved_at, answer.revision)
        return answer.revision

    def _tell(self, client: Client, lead: Lead, lives: Callable[[], bool]) -> TxnResult:
        """Repeated without harm: it puts the same again."""
        move = told(lead.keys, self.part.number, lead.term.number)
        while True:
            try:
                return client.txn(transaction(lead, [move]))
            except (Unavailable, Unknown):
                if not lives():
                    raise
                time.sleep(0.1)
