"""Leading a shard for one term: one loop that knows, decides and commits, fed by watches and timers.

Nobody else touches the book. Each round takes all news, lets every duty do what it can, and sleeps until the next
due instant or the next news. The loop ends when the term does; whatever it still had under way fails its compares.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from crony.beat.book import Book
from crony.beat.clockwatch import ClockWatch
from crony.beat.commit import Committer, Result, Verdict
from crony.beat.desk import Desk
from crony.beat.duties.ages import Ages
from crony.beat.duties.alerts import Delivery, Losses, Undelivered
from crony.beat.duties.archiver import Archiver
from crony.beat.duties.compaction import Compaction
from crony.beat.duties.failover import Failover
from crony.beat.duties.firing import Firing
from crony.beat.duties.inbox import Inbox
from crony.beat.duties.pruning import IdemPruning, Pruning
from crony.beat.duties.quarantine import Quarantine
from crony.beat.duties.reconcile import reconciling
from crony.beat.duties.retention import retention
from crony.beat.duties.settling import Settling
from crony.beat.duties.waiting import Waiting
from crony.beat.duty import Background, Duty
from crony.beat.office import Office
from crony.beat.router import Router
from crony.clock import Clock
from crony.domain.signing import Sealer, Verifier
from crony.errors import CronyError, Halted
from crony.etcd.client import KV, Client
from crony.etcd.election import Term
from crony.etcd.keys import Keys
from crony.etcd.txn import Compare
from crony.etcd.watch import Event, Watcher
from crony.lifecycle.move import Lead
from crony.settings import Settings
from crony.store.db import Database

log = logging.getLogger("crony.beat")

REPORT_EVERY = 60.0
LONGEST_SLEEP = 0.2
"""Seconds; bounds how late a stop is noticed."""


class Leader:
    """One term of one shard."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        client: Client,
        keys: Keys,
        term: Term,
        *,
        sealer: Sealer,
        webs: Verifier,
        centres: Verifier,
        database: Database | None = None,
    ) -> None:
        """Ready to lead. Raises `Unavailable` when etcd is away."""
        self._client, self._keys, self._term = client, keys, term
        self._events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._watchers: list[Watcher] = []
        self._revisions: list[int] = []
        self._mark: tuple[int, list[int]] = (0, [])
        """A batch's number, and how far each stream had told when it was the next one."""
        self._faults: dict[str, str] = {}
        self.ready = False
        """It knows everything of the shard and decides."""
        book = Book(keys)
        shards = client.get(keys.shards)
        lead = Lead(keys, term.compare(), shards.mod if shards else 0)
        self._lead = lead
        committer = Committer(client, lead, lambda result: self._events.put(("result", result)))
        desk = Desk(sealer, centres, Router(book, clock.monotonic), client.now)
        self.office = Office(settings, clock, client, keys, book, desk, committer, webs)
        self._clockwatch = ClockWatch(self.office)
        self._archiver = Archiver(client, lead, database)
        self._undelivered = Undelivered(client.count(keys.alert("")))
        # Without a name of its own a centre is known by its host: begun anew there it is not another one.
        name = settings.centre or socket.gethostname()
        delivery = Delivery(client, lead, database, self._undelivered, centre=name).background
        self._settling = Settling(self.office, self._archiver, self._undelivered, delivery, term=term.revision)
        self._duties: list[Duty] = [
            self._clockwatch,
            Firing(self.office),
            Inbox(self.office),
            Waiting(self.office),
            Failover(self.office),
            Quarantine(self.office),
            Losses(self.office, self._undelivered, delivery),
            Ages(self.office, self._undelivered, delivery),
            self._settling,
            Pruning(self.office),
        ]
        self._turn = 0
        self._report_at = clock.monotonic() + REPORT_EVERY
        self._background: list[Background] = [
            self._archiver.background,
            delivery,
            Compaction(client, self.office.holds).background,
            IdemPruning(client, keys, lead).background,
        ]
        self.reconcile: Background | None = None
        if database is not None:
            self._background.append(retention(database, clock, settings.retention_days))
            self.reconcile = reconciling(database, client, keys, sealer)
            self._background.append(self.reconcile)

    def lead(self, stop: threading.Event) -> None:
        """Until `stop` is set or the term is lost. Raises `Unavailable`, `Unknown` or `Halted` when it cannot begin."""
        self._term.on_lost(lambda: self._events.put(("lost",)))
        try:
            self._begin()
            while not stop.is_set() and self._term.believes and not self._clockwatch.hopeless:
                self._round()
                self._report()
        finally:
            self._end()

    @property
    def client(self) -> Client:
        """Of the centre."""
        return self._client

    @property
    def keys(self) -> Keys:
        """Of the centre's namespace."""
        return self._keys

    @property
    def held(self) -> bool:
        """Whether nothing may be dispatched now."""
        return bool(self.office.holds) or self.office.book.stopped

    def compares(self) -> list[Compare]:
        """What whoever dispatches for this leader beside its loop has to compare: the term, and the stop switch."""
        return self._lead.compares(self.office.book.seen(self._keys.control))

    def _report(self) -> None:
        now = self.office.mono()
        if now >= self._report_at:
            self._report_at = now + REPORT_EVERY
            log.info("status: %s", self.status())

    def status(self) -> dict[str, Any]:
        """What it does and what it cannot do right now, for logs and people."""
        book, office = self.office.book, self.office
        return {
            "term": self._term.revision,
            "held": office.holds.reasons,
            "failing": self._faults | {duty.name: duty.failure for duty in self._background if duty.failure},
            "jobs": len(book.jobs),
            "problems": {job.id: job.problem for job in list(book.jobs.values()) if job.problem},
            "requested": len(book.requests),
            "waiting": len(book.waits),
            "queued": len(book.queued),
            "nodes": sorted(book.nodes),
            "archive_backlog": self._archiver.backlog,
            "alerts_undelivered": self._undelivered.count,
            "counts": dict(office.counts),
        }

    # -- one round -----------------------------------------------------------------------------

    def _round(self) -> None:
        book = self.office.book
        if book.news.doubt and not self._list_runs_anew():
            self._take(LONGEST_SLEEP)
            return
        # By turns: a duty with a mountain of work must not take every place in the committer.
        self._turn = (self._turn + 1) % len(self._duties)
        wishes = [self._work(duty) for duty in self._duties[self._turn :] + self._duties[: self._turn]]
        self._forget()
        self._settling.stream_revision = self._revisions[-1]
        sleep = min([LONGEST_SLEEP, *(wish for wish in wishes if wish is not None)])
        self._take(sleep)

    def _forget(self) -> None:
        """Let the book forget deletions of which no older news can come: the streams had told them before the oldest
        batch under way was sent, and what answers it was read or written after that."""
        committer, (number, revisions) = self.office.committer, self._mark
        if committer.oldest < number:
            return
        (_, first), (_, second), _ = self._ranges()
        self.office.book.forget(lambda key: revisions[0 if key < first else 1 if key < second else 2])
        self._mark = committer.lined_up, list(self._revisions)

    def _work(self, duty: Duty) -> float | None:
        """One duty's turn. A fault of ours in it must not end the term: the others go on, it tries again."""
        try:
            return duty.work()
        except Exception as error:
            name = type(duty).__name__
            if self._faults.get(name) != repr(error):
                log.exception("the duty %s failed; it tries again", name)
                self._faults[name] = repr(error)
            return LONGEST_SLEEP

    def _take(self, sleep: float) -> None:
        """Wait for news, then take all there is."""
        try:
            item = self._events.get(timeout=sleep) if sleep > 0 else self._events.get_nowait()
            while True:
                self._handle(*item)
                item = self._events.get_nowait()
        except queue.Empty:
            return

    def _handle(self, what: str, *facts: Any) -> None:
        if what == "events":
            self._happened(*facts)
        elif what == "snapshot":
            self._listed(*facts)
        elif what == "result":
            self._finished(*facts)

    def _happened(self, stream: int, events: list[Event], revision: int) -> None:
        book = self.office.book
        for event in events:
            if event.kind == "put":
                book.put(event.key, event.value, event.mod, event.create)
            else:
                book.drop(event.key, event.mod)
        self._revisions[stream] = max(revision, self._revisions[stream])

    def _listed(self, stream: int, pairs: list[KV], revision: int) -> None:
        start, end = self._ranges()[stream]
        self.office.book.replace(start, end, ((kv.key, kv.value, kv.mod, kv.create) for kv in pairs), revision)
        self._revisions[stream] = max(revision, self._revisions[stream])

    def _finished(self, result: Result) -> None:
        book = self.office.book
        self.office.committer.finished(result)
        if result.deposed:
            log.warning("another centre leads, or the number of shards changed: this term is over")
            self._events.put(("lost",))
            self._term.resign()
            return
        if isinstance(result.error, Halted):
            raise result.error
        if result.verdict is Verdict.DONE:
            for step in result.batch.steps:
                for key, value in step.move.puts.items():
                    book.put(key, value, result.revision, 0 if step.move.seen.get(key) else result.revision)
                for key in step.move.deletes:
                    book.drop(key, result.revision)
            if self.office.committer.well() and self.reconcile is not None:
                self.reconcile.nudge()  # webs could not publish either
        for key, found in result.fresh.items():
            if found is not None:
                book.put(key, found.value, found.mod, found.create)
            else:
                book.drop(key, result.revision)
        if result.verdict in (Verdict.UNSENT, Verdict.LIMBO):
            self.office.committer.away(result.error, self.office.mono())
        self.office.counts[f"{result.batch.kind}_{result.verdict.value}"] += len(result.batch.steps)
        for step in result.batch.steps:
            try:
                step.settle(result.verdict)
            except Exception:
                log.exception("a %s step could not be settled", result.batch.kind)

    # -- beginning and end ---------------------------------------------------------------------

    def _ranges(self) -> list[tuple[str, str]]:
        """Three streams. All of `run/` and the sessions in one, so that each transaction on runs is seen whole (E5)."""
        root = self._keys.root
        return [
            (f"{root}cmd/", f"{root}done0"),
            (f"{root}job/", f"{root}pool0"),
            (f"{root}run/", f"{root}settled\0"),
        ]

    def _begin(self) -> None:
        """List everything of the shard at one revision, and watch from the next one on."""
        book, revision = self.office.book, 0
        for start, end in self._ranges():
            page = self._client.list_range(start, end, revision=revision)
            revision = revision or page.revision
            for kv in page.kvs:
                book.put(kv.key, kv.value, kv.mod, kv.create)
        self._revisions = [revision for _ in self._ranges()]
        self._mark = self.office.committer.lined_up, list(self._revisions)
        for stream, (start, end) in enumerate(self._ranges()):
            watcher = Watcher(
                self._client,
                start,
                end,
                on_snapshot=self._tell("snapshot", stream),
                on_events=self._tell("events", stream),
                from_revision=revision + 1,
                name=f"crony-beat-watch-{stream}",
            )
            self._watchers.append(watcher)
            watcher.start()
        for duty in self._background:
            duty.start()
        self.ready = True
        log.info("leading with %d jobs, %d waiting and %d queued runs, %d nodes, from revision %d",
                 len(book.jobs), len(book.waits), len(book.queued), len(book.nodes), revision)  # fmt: skip

    def _tell(self, what: str, stream: int) -> Callable[[list[Any], int], None]:
        return lambda items, revision: self._events.put((what, stream, items, revision))

    def _end(self) -> None:
        """Stop first, then clean up: no last write (rule 7)."""
        for duty in self._background:
            duty.stop()
        if self._term.believes:  # a clean stop: what is on its way is ours to see through, briefly
            self.office.committer.close(0.3)
        self._term.resign()
        self.office.committer.close(0.0)
        for watcher in self._watchers:
            watcher.stop(0.2)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.office.counts.items()))
        log.info("term %d is over: %s", self._term.revision, counts or "nothing happened in it")

    def _list_runs_anew(self) -> bool:
        """After a late surprise the book may lack a run; a listing cannot. False: etcd is away, decide nothing."""
        start, end = self._ranges()[-1]
        try:
            page = self._client.list_range(start, end)
        except CronyError as error:
            log.warning("the runs cannot be listed anew: %s", error)
            return False
        log.warning("an unanswered transaction arrived late; the runs were listed anew at revision %d", page.revision)
        self.office.book.replace(start, end, ((kv.key, kv.value, kv.mod, kv.create) for kv in page.kvs), page.revision)
        self.office.book.news.doubt = False
        return True
