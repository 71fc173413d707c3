"""The session thread of a connection: watches its queues, claims as far as the credit goes, fills the inbox.

It never delivers and never blocks the consuming thread. When etcd is away it waits and goes on where it was.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from crony.errors import CronyError, Halted, Unavailable
from crony.etcd.errors import OuterRefused
from crony.etcd.keys import is_run_queue
from crony.etcd.txn import MAX_OPS
from crony.transport_etcd import claims, hooks
from crony.transport_etcd.claims import CLAIMS_PER_REQUEST, Pick
from crony.transport_etcd.errors import is_transient, mapped
from crony.transport_etcd.inbox import Inbox, Item
from crony.transport_etcd.link import Link
from crony.transport_etcd.queue import Candidate
from crony.transport_etcd.reader import QueueReader

if TYPE_CHECKING:
    from crony.transport_etcd.channel import Channel, Consumer

log = logging.getLogger("crony.transport")

_TICK = 1.0
_SOON = 0.25
_ORPHANS_EVERY = 0.25
_MAX_BACKLOG = 500
_LINGER = 0.003
_BUSY_FOR = 0.02


class Pump:
    """Feeds one connection's inbox. Started by its first consumer."""

    def __init__(self, link: Link, inbox: Inbox) -> None:
        """`link`: the process's; `inbox`: the connection's."""
        self._link, self._inbox = link, inbox
        self._consumers: list[Consumer] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turn = 0
        self._dead: set[str] = set()
        self._orphans_checked = 0.0
        self._troubled = False
        self._waiting_for: tuple[Channel, int] | None = None
        self._missed = False
        self._claimed_at = 0.0
        self.tried = 0
        """Claims asked for so far."""
        self.refused = 0
        """Claims that somebody else had made before."""
        self.throttled = False
        """Waiting for the consuming thread: it should `wake` us when it has caught up."""

    def add(self, consumer: Consumer) -> None:
        """Feed this consumer too."""
        with self._lock:
            self._consumers = [*self._consumers, consumer]
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="crony-pump", daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, consumer: Consumer) -> None:
        """Stop feeding it."""
        with self._lock:
            self._consumers = [each for each in self._consumers if each is not consumer]

    def wake(self) -> None:
        """Something may have become possible: a message, credit, a hook."""
        waiting = self._waiting_for
        if waiting is not None and waiting[0].qos.credit() < waiting[1]:
            self._missed = True  # it is counting already, and looks again in a moment
            return
        if not self._wake.is_set():
            self._wake.set()

    def stop(self, timeout: float) -> None:
        """End the thread, within `timeout` seconds; what a claim under way brings later is given back."""
        self._stop.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _TICK
        while not self._stop.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                pause = self._cycle()
                self._troubled = False
            except Halted as error:
                self._inbox.fail(error)
                return
            except CronyError as error:
                if not is_transient(error) and not isinstance(error, OuterRefused):
                    self._give_up(error)
                    return
                log.log(logging.DEBUG if self._troubled else logging.WARNING, "claiming waits for etcd: %s", error)
                self._troubled = True
                pause = _SOON if isinstance(error, OuterRefused) else 0.5
                self._stop.wait(pause)
                self._wake.set()
            except Exception as error:
                log.exception("the session thread failed")
                self._give_up(error)
                return

    def _give_up(self, error: Exception) -> None:
        try:
            with mapped():
                raise error
        except Exception as known:
            self._inbox.fail(known)

    def _cycle(self) -> float:
        """Claim all that may be claimed now; seconds until something may become possible without being told."""
        self._link.sweep()
        pause = _SOON if self._look_for_dead() else _TICK
        busy = True
        while busy and not self._stop.is_set():
            busy = self._take()
            for channel in {consumer.channel for consumer in self._consumers if not consumer.no_ack}:
                busy = self._claim(channel) or busy
        return pause

    # -- without acknowledgement -------------------------------------------------------------------------

    def _take(self) -> bool:
        """Fetch for consumers without acknowledgement; whether there may be more."""
        more = False
        if not self._inbox.wanted:
            return False  # taking is for good: only what somebody waits for
        for consumer in self._consumers:
            if not consumer.no_ack or consumer.reader is None:
                continue
            self.throttled = self._inbox.backlog() >= _MAX_BACKLOG
            if self.throttled:
                return False
            found = consumer.reader.take(CLAIMS_PER_REQUEST)
            if not found:
                continue
            picks = [Pick(consumer.queue, candidate) for candidate in found]
            try:
                deliveries = claims.take(self._link.client, self._link.keys, picks)
            except Unavailable:
                for candidate in found:
                    consumer.reader.give_back(candidate)
                raise
            for delivery in deliveries:
                if delivery is not None and not self._link.publisher.expired(delivery):
                    self._inbox.push(consumer, delivery)
            more = True
        return more

    # -- with acknowledgement --------------------------------------------------------------------------

    def _claim(self, channel: Channel) -> bool:
        """Claim for one channel, up to its credit; whether there may be more."""
        credit = min(self._patient_credit(channel), CLAIMS_PER_REQUEST)
        if credit <= 0 or not (channel.qos.prefetch_count or self._inbox.wanted):
            return False  # without a limit, only what somebody waits for: nobody shall hoard a whole queue
        session = self._link.session()
        if not session.alive:
            return False
        chosen = self._choose(channel, credit, session.incarnation)
        if not chosen:
            return False
        picks = [Pick(consumer.queue, candidate) for consumer, candidate in chosen]
        keys, settler = self._link.keys, self._link.settler
        ride = settler.ride(MAX_OPS - len(picks), {keys.claim(queue, seen.place) for queue, seen in picks})
        try:
            deliveries = claims.claim(self._link.client, keys, session.incarnation, picks, ride)
        except (Unavailable, OuterRefused):
            for consumer, candidate in chosen:
                assert consumer.reader is not None
                consumer.reader.give_back(candidate)
            raise
        self.tried += len(picks)
        self._claimed_at = time.monotonic()
        ours: list[Item] = []
        known: dict[QueueReader, list[tuple[Candidate, int]]] = {}
        asked: dict[QueueReader, list[bool]] = {}
        for (consumer, candidate), delivery in zip(chosen, deliveries, strict=True):
            assert consumer.reader is not None
            asked.setdefault(consumer.reader, []).append(delivery is None)
            if delivery is None:
                self.refused += 1
                continue
            known.setdefault(consumer.reader, []).append((candidate, delivery.fence))
            if not self._link.burial.fit(delivery):
                continue
            delivery.tag = delivery.own_tag
            ours.append(Item(consumer, delivery))
        for reader, refused in asked.items():
            reader.contention.noted(len(refused), sum(refused), alone=reader.alone(session.incarnation))
        for reader, candidates in known.items():
            reader.claimed(candidates, session.incarnation)
        channel.qos.claimed([item.delivery for item in ours])
        late = ours if self._stop.is_set() else self._inbox.push_all(ours)
        if late:
            given_back = [item.delivery for item in late]
            channel.qos.withdraw(given_back)
            settler.release(given_back, unseen=True)
        if not known:  # what we know is out of date: a moment later the watch has told more
            self._stop.wait(_LINGER)
        return bool(known) or any(reader.ready for reader in asked)

    def _patient_credit(self, channel: Channel) -> int:
        """The channel's credit; while it is busy, a small rest is let grow for a moment: claims travel together."""
        credit = self._credit(channel)
        few = channel.qos.prefetch_count * 3 // 4
        if 0 < credit < few and time.monotonic() - self._claimed_at < _BUSY_FOR and not self._stop.is_set():
            again = self._wake.is_set()
            self._wake.clear()
            self._missed, self._waiting_for = False, (channel, few)
            if self._credit(channel) < few:
                self._wake.wait(_LINGER)
            self._waiting_for = None
            if again or self._missed:  # what woke us may be about another channel
                self._wake.set()
            credit = self._credit(channel)
        return credit

    def _credit(self, channel: Channel) -> int:
        # On a node credit means free slots of its pool: what came by an earlier connection and still runs has some.
        # Elsewhere Celery lowers the prefetch count itself after a loss.
        taken = self._link.adopted if hooks.node and channel.qos.prefetch_count else 0
        return max(0, channel.qos.can_consume_max_estimate() - taken)

    def _choose(self, channel: Channel, credit: int, incarnation: str) -> list[tuple[Consumer, Candidate]]:
        """What to claim: the queues take turns in going first; orphans of dead holders before new messages."""
        consumers = [each for each in self._consumers if each.channel is channel and not each.no_ack]
        may_claim = hooks.may_claim
        chosen: list[tuple[Consumer, Candidate]] = []
        for consumer in self._in_turn(consumers):
            if consumer.reader is None or (may_claim is not None and not may_claim(consumer.queue)):
                continue
            left = credit - len(chosen)
            if left <= 0:
                break
            if self._dead and not is_run_queue(consumer.queue):
                orphans = consumer.reader.take_orphans(self._dead, left)
                chosen += [(consumer, candidate) for candidate in orphans]
                left -= len(orphans)
            if left > 0:
                found = consumer.reader.take_in_turn(left, incarnation, self._link.sessions.live, self._stop)
                chosen += [(consumer, candidate) for candidate in found]
        return chosen

    def _in_turn(self, consumers: list[Consumer]) -> list[Consumer]:
        """Run queues count as one queue among the others: among them the one with the first message goes first."""
        runs = [each for each in consumers if is_run_queue(each.queue)]
        runs.sort(key=lambda each: each.reader.first if each.reader is not None else "")
        turns = [[each] for each in consumers if not is_run_queue(each.queue)]
        turns += [runs] if runs else []
        self._turn += 1
        start = self._turn % max(1, len(turns))
        return [each for turn in turns[start:] + turns[:start] for each in turn]

    def _look_for_dead(self) -> bool:
        """Find holders of plain messages that are gone; whether some may be soon."""
        now = time.monotonic()
        if now - self._orphans_checked < _ORPHANS_EVERY:
            return bool(self._dead)
        self._orphans_checked = now
        holders: set[str] = set()
        for consumer in self._consumers:
            if consumer.reader is not None and not consumer.no_ack and not is_run_queue(consumer.queue):
                holders |= consumer.reader.holders()
        self._dead, coming = self._link.sessions.dead(holders)
        return coming or bool(self._dead)
