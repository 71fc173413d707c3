"""Leading a shard for one term: one loop that knows, decides and commits, fed by news and timers.

Nobody else touches the book. Each round takes all news, lets every duty do what it can, and sleeps until the next
due instant or the next news. The loop ends when the term does; whatever it still had under way fails its compares.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

from crony.beat.clockwatch import STEP, ClockWatch
from crony.beat.commit import Committer, Result, Verdict
from crony.beat.desk import Desk
from crony.beat.duties.ages import Ages
from crony.beat.duties.alerts import Room as AlertRoom
from crony.beat.duties.alerts import Undelivered
from crony.beat.duties.announcing import Announcing
from crony.beat.duties.backfilling import Backfilling
from crony.beat.duties.compaction import Room
from crony.beat.duties.deadlines import Deadlines
from crony.beat.duties.ends import Ends
from crony.beat.duties.failover import Failover
from crony.beat.duties.firing import Firing
from crony.beat.duties.inbox import Inbox
from crony.beat.duties.leftovers import Leftovers
from crony.beat.duties.pruning import Pruning
from crony.beat.duties.punctuality import Punctuality
from crony.beat.duties.quarantine import Quarantine
from crony.beat.duties.slots import Slots
from crony.beat.duties.splitting import Splitting
from crony.beat.duties.takenin import TakingIn
from crony.beat.duties.telling import Telling
from crony.beat.duties.waiting import Waiting
from crony.beat.duties.zonewatch import ZoneWatch
from crony.beat.duty import Background, Duty
from crony.beat.feed import streams
from crony.beat.household import Household
from crony.beat.knowledge import Knowledge
from crony.beat.office import Office
from crony.beat.router import Router
from crony.clock import Clock
from crony.domain import tzdata
from crony.domain.figures import Figures
from crony.domain.shards import Part
from crony.domain.signing import Sealer, Verifier
from crony.errors import Halted
from crony.etcd.client import Client
from crony.etcd.election import Term
from crony.etcd.keys import Keys
from crony.etcd.txn import Compare
from crony.lifecycle.move import Lead
from crony.lifecycle.shards import Sharding
from crony.lifecycle.watermark import Watermark
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
        part: Part,
        sharding: Sharding,
        knowledge: Knowledge,
        sealer: Sealer,
        webs: Verifier,
        centres: Verifier,
        watermark: Watermark,
        database: Database | None = None,
        figures: Figures | None = None,
    ) -> None:
        """Ready to lead `part`, one of the shards that `sharding` tells of, going by what is known of it. Raises
        `Unavailable` when etcd is away."""
        self._client, self._keys, self._term = client, keys, term
        self.part, self._knowledge = part, knowledge
        self._events = knowledge.events
        self._mark: tuple[int, list[int]] = (0, [])
        """A batch's number, and how far each stream had told when it was the next one."""
        self._faults: dict[str, str] = {}
        self.ready = False
        """It knows everything of the shard and decides."""
        book, agenda = knowledge.book, knowledge.agenda
        lead = Lead(keys, term.compare(), sharding.seen)
        self._lead = lead
        committer = Committer(client, lead, lambda result: self._events.put(("result", result)))
        desk = Desk(sealer, centres, Router(book, clock.monotonic), client.now, book.pools)
        figures = figures or Figures()
        self.office = Office(settings, clock, client, keys, book, agenda, desk, committer, webs, figures=figures)
        agenda.wall = self.office.wall
        self._clockwatch = ClockWatch(self.office)
        self._announcing = Announcing(client, lead, part, centre=settings.lasting_centre_name)
        undelivered = Undelivered(client.count(keys.alert("")))
        self.household: Household | None = None
        """What the leader of shard 0 does for all."""
        if part.first:
            self.household = Household(
                self.office,
                lead,
                undelivered,
                database,
                sealer,
                term=term.revision,
                watermark=watermark,
                halt=lambda error: self._events.put(("halt", error)),
            )
            room = self.household.delivery
        else:
            room = AlertRoom(client, keys, undelivered).background
        firing = Firing(self.office, undelivered, room)
        self._taking_in = TakingIn(client, lead, part, term=term.revision)
        self._duties: list[Duty] = [
            ZoneWatch(self.office),
            firing,
            Inbox(self.office),
            Ends(self.office, undelivered, room),
            Backfilling(self.office),
            Waiting(self.office),
            Failover(self.office),
            Deadlines(self.office),
            Quarantine(self.office),
            Slots(self.office),
            Splitting(self.office),
            Ages(self.office, undelivered, room),
            Punctuality(self.office, undelivered, room),
            Leftovers(self.office),
            Pruning(self.office),
        ]
        self._background: list[Background] = [
            room,
            self._announcing.background,
            self._taking_in.background,
            Telling(client, lead, part).background,
            Room(client, self.office.holds, settings.etcd_quota * 2**20).background,
        ]
        if self.household is not None:
            self._duties += self.household.duties
            self._background += self.household.background
        self._turn = 0
        self._report_at = clock.monotonic() + REPORT_EVERY

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
        return bool(self.office.holds) or self.office.book.stopped or abs(self.office.stepped) > STEP

    def hand_over(self) -> None:
        """Say that the next leader of the shard follows by agreement, and is no news. Raises as the client."""
        self._announcing.hand_over()

    def compares(self) -> list[Compare]:
        """What whoever dispatches for this leader beside its loop has to compare: the term, and the stop switch."""
        return self._lead.compares(self.office.book.seen(self._keys.control))

    def _report(self) -> None:
        now = self.office.mono()
        if now >= self._report_at:
            self._report_at = now + REPORT_EVERY
            log.info("status of shard %d: %s", self.part.number, self.status())

    def states(self) -> dict[str, dict[str, float]]:
        """How it stands, for the figures of its centre. Any thread may ask."""
        failing = [*self._faults, *(duty.name for duty in self._background if duty.failure)]
        return {
            "jobs": {"": len(self.office.book.jobs)},
            "held": dict.fromkeys(self.office.holds.reasons, 1.0),
            "failing": {_label(name): 1.0 for name in failing},
            **(self.household.states() if self.household is not None else {}),
        }

    def untrusted(self) -> dict[str, str]:
        """Jobs whose documents it cannot act on, and why; some of them when they are many. Any thread may ask."""
        return self.office.agenda.untrusted()

    def status(self) -> dict[str, Any]:
        """What it does and what it cannot do right now, for logs and people."""
        book, office = self.office.book, self.office
        return {
            "term": self._term.revision,
            "tzdata": tzdata.version(),
            "held": office.holds.reasons,
            "failing": self._faults | {duty.name: duty.failure for duty in self._background if duty.failure},
            "jobs": len(book.jobs),
            "hints_that_lied": office.agenda.lies,
            "problems": {job.id: job.problem for job in list(book.jobs.values()) if job.problem},
            "requested": len(book.requests),
            "waiting": len(book.waits),
            "in_parts": len(book.joins),
            "queued": len(book.queued),
            "accepted": len(book.accepted),
            "nodes": sorted(book.nodes),
            **(self.household.status() if self.household is not None else {}),
            "counts": dict(office.counts),
        }

    # -- one round -----------------------------------------------------------------------------

    def _round(self) -> None:
        book = self.office.book
        if book.news.doubt and not self._knowledge.list_runs_anew():
            self._take(LONGEST_SLEEP)
            return
        if self.office.committer.idle:
            book.pools.nothing_under_way()
        wishes = [self._work(self._clockwatch)]  # before anything is decided
        # By turns: a duty with a mountain of work must not take every place in the committer.
        self._turn = (self._turn + 1) % len(self._duties)
        wishes += [self._work(duty) for duty in self._duties[self._turn :] + self._duties[: self._turn]]
        if self.office.agenda.knows:
            self._taking_in.upto(book.catalogue.saved_at)
        self._forget()
        if self.household is not None:
            self.household.runs_known_to(self._knowledge.revisions[-1])
        sleep = min([LONGEST_SLEEP, *(wish for wish in wishes if wish is not None)])
        self._take(sleep)

    def _forget(self) -> None:
        """Let the book forget deletions of which no older news can come: the streams had told them before the oldest
        batch under way was sent, and what answers it was read or written after that."""
        committer, (number, revisions) = self.office.committer, self._mark
        if committer.oldest < number:
            return
        (_, first), (_, second), _ = streams(self._keys)
        self.office.book.forget(lambda key: revisions[0 if key < first else 1 if key < second else 2])
        self._mark = committer.lined_up, list(self._knowledge.revisions)

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
        self._knowledge.take(sleep, self._handle)

    def _handle(self, what: str, *facts: Any) -> None:
        if what == "result":
            self._finished(*facts)
        elif what == "halt":
            raise facts[0]

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
            if self.office.committer.well() and self.household is not None:
                self.household.etcd_is_back()
        for key, found in result.fresh.items():
            if found is not None:
                book.put(key, found.value, found.mod, found.create)
            else:
                book.drop(key, result.revision)
        if result.verdict in (Verdict.UNSENT, Verdict.LIMBO):
            self.office.committer.away(result.error, self.office.mono())
        self.office.counts[f"{result.batch.kind}_{result.verdict.value}"] += len(result.batch.steps)
        self.office.figures.count("decisions", result.verdict.value, len(result.batch.steps))
        for step in result.batch.steps:
            book.pools.decided(step.move.puts, done=result.verdict is Verdict.DONE)
            try:
                step.settle(result.verdict)
            except Exception:
                log.exception("a %s step could not be settled", result.batch.kind)

    # -- beginning and end ---------------------------------------------------------------------

    def _begin(self) -> None:
        """Everything of the shard up to the election, and from then on what happens."""
        book = self.office.book
        revision = self._knowledge.catch_up(self._client, self._lead, lambda: self._term.believes)
        self._mark = self.office.committer.lined_up, list(self._knowledge.revisions)
        for duty in self._background:
            duty.start()
        self.ready = True
        sizes = len(book.jobs), len(book.waits), len(book.queued), len(book.nodes)
        log.info("leading shard %d with %d jobs, %d waiting and %d queued runs, %d nodes, from revision %d",
                 self.part.number, *sizes, revision)  # fmt: skip

    def _end(self) -> None:
        """Stop first, then clean up: no last write (rule 7)."""
        for duty in self._background:
            duty.stop()
        if self._term.believes:  # a clean stop: what is on its way is ours to see through, briefly
            self.office.committer.close(0.3)
        self._term.resign()
        self.office.committer.close(0.0)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.office.counts.items()))
        log.info("term %d is over: %s", self._term.revision, counts or "nothing happened in it")


def _label(name: str) -> str:
    """The name of a duty as a label: `FailOver` and `fail over` alike."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
