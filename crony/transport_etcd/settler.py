"""Acks and releases (PROTOCOL 18), many in one request, in the background.

Whoever settles a message compares its fence, so an ack that comes too late removes nothing: it is counted and logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from crony.errors import CronyError
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, is_run_queue
from crony.etcd.txn import MAX_OPS, Txn, TxnResult, mod
from crony.transport_etcd import hooks
from crony.transport_etcd.claims import CLAIMS_PER_REQUEST, Delivery, claim_value
from crony.transport_etcd.errors import is_transient
from crony.transport_etcd.queue import read_claim

log = logging.getLogger("crony.transport")

_Entry = tuple[Delivery, bool]

LET_GO_AFTER = 0.5
"""How long a run whose task was acknowledged may take to end its attempt, seconds."""
_LOOKED_AT = 0.1
"""Seconds longer that nearly all wait, so that one request looks at many: most have ended long before."""


_RIDES_FOR = 0.05
"""Seconds after a request for claims in which acks wait for the next one, to travel with it."""
_RIDE_WAIT = 0.005
"""How long they wait for it at most."""


class Settler:
    """Acks and releases, many in one request, by a thread of its own; repeats them until etcd has answered."""

    def __init__(self, client: Client, keys: Keys) -> None:
        """`client`, `keys`: of the link."""
        self._client, self._keys = client, keys
        self._pending: deque[_Entry] = deque()
        self._later: deque[tuple[float, Delivery]] = deque()
        self._busy = 0
        self._riding = 0
        self._rode = 0.0
        self._idle = False
        self._flushing = 0
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._doubtful = False
        self.stale = 0
        """Settlements refused because the claim was not ours any more."""

    def ack(self, delivery: Delivery) -> None:
        """The message is dealt with. On a run queue nothing is deleted (N4): see `hooks.let_go`."""
        if is_run_queue(delivery.queue):
            self._let_go_later(delivery)
        else:
            self._submit(delivery, False)

    def requeue(self, delivery: Delivery) -> None:
        """The consumer gives a message back that it was handed. For a run, `hooks.requeued` is asked first."""
        self._submit(delivery, True)

    def release(self, deliveries: Iterable[Delivery], *, unseen: bool = False) -> None:
        """Give back messages nobody began: claim without holder, place and count kept (transaction 18).

        `unseen`: no consumer was handed them, so it was no delivery; of a run the count stays, the leader judges it.
        """
        for delivery in deliveries:
            delivery.tag = ""
            delivery.count -= unseen and not is_run_queue(delivery.queue)
            self._submit(delivery, True)

    def flush(self, timeout: float) -> bool:
        """Wait until everything submitted is settled, `timeout` seconds at most; whether it is."""
        deadline = time.monotonic() + timeout
        with self._change:
            self._flushing += 1
            self._change.notify_all()
            try:
                while self._pending or self._busy or self._riding:
                    if not self._change.wait(deadline - time.monotonic()):
                        return False
                return True
            finally:
                self._flushing -= 1

    def ride(self, most: int, apart_from: set[str]) -> Ride | None:
        """Waiting acks, `most` at most, to travel with a request for claims; those of other keys than these.

        From now on acks wait a moment for the next such request.
        """
        self._rode = time.monotonic()
        if not self._pending or most <= 0:
            return None
        with self._change:
            batch: list[_Entry] = []
            while self._pending and len(batch) < most and not self._pending[0][1]:
                if self._keys.claim(self._pending[0][0].queue, self._pending[0][0].place) in apart_from:
                    break
                batch.append(self._pending.popleft())
            if not batch:
                return None
            self._riding += len(batch)
        return Ride(self, batch)

    def _rode_home(self, count: int, back: Sequence[_Entry], in_doubt: bool) -> None:
        with self._change:
            self._riding -= count
            self._pending.extendleft(reversed(back))
            self._doubtful = self._doubtful or in_doubt
            if back:
                self._start()
            if back or self._flushing:
                self._change.notify_all()

    def close(self, timeout: float) -> None:
        """Flush, then stop the thread. A later ack starts it again."""
        if not self.flush(timeout):
            log.warning("%d acks are not confirmed; their messages may be delivered again", self.waiting)
        with self._change:
            self._closed = True
            self._change.notify_all()

    @property
    def waiting(self) -> int:
        """Settlements not confirmed yet."""
        return len(self._pending) + self._busy + self._riding

    # -- parts -------------------------------------------------------------------------------------

    def _submit(self, delivery: Delivery, requeue: bool) -> None:
        if not delivery.fence:
            return
        with self._change:
            self._pending.append((delivery, requeue))
            self._start()
            if self._idle or requeue or len(self._pending) >= CLAIMS_PER_REQUEST:
                self._change.notify_all()

    def _let_go_later(self, delivery: Delivery) -> None:
        if hooks.let_go is None:
            return
        with self._change:
            self._later.append((time.monotonic() + LET_GO_AFTER, delivery))
            self._start()
            if len(self._later) == 1:  # else it looks in time anyway
                self._change.notify_all()

    def _start(self) -> None:
        self._closed = False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="crony-settler", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._change:
                while not self._pending and not self._due():
                    if self._closed and not self._later:
                        self._thread = None
                        return
                    self._idle = True
                    self._change.wait(self._until_due())
                    self._idle = False
                if pause:
                    self._change.wait(pause)
                else:
                    self._wait_for_a_ride()
                again, self._doubtful = pause > 0 or self._doubtful, False
                batch = [self._pending.popleft() for _ in range(min(len(self._pending), CLAIMS_PER_REQUEST))]
                self._busy = len(batch)
            batch = [entry for entry in batch if not (entry[1] and self._handled(entry[0]))]
            try:
                if batch:
                    self._settle(batch, again)
                batch = []
                self._let_go_due()
                pause = 0.0
            except Exception as error:
                if not pause:
                    trace = not (isinstance(error, CronyError) and is_transient(error))
                    log.warning("acks wait for etcd: %s", error, exc_info=trace)
                pause = min(1.0, (pause or 0.05) * 2)
                with self._change:
                    self._pending.extendleft(reversed(batch))
            finally:
                with self._change:
                    self._busy = 0
                    self._change.notify_all()

    def _wait_for_a_ride(self) -> None:
        """While claims are made, acks travel with them: one request instead of two, and hundreds fewer a second."""
        now = time.monotonic()
        until = now + _RIDE_WAIT
        while (
            now < until
            and now - self._rode < _RIDES_FOR
            and not self._flushing
            and len(self._pending) < CLAIMS_PER_REQUEST
            and not any(requeue for _, requeue in self._pending)
        ):
            self._change.wait(until - now)
            now = time.monotonic()

    def _settle(self, batch: Sequence[_Entry], again: bool) -> None:
        txn = Txn()
        members = self._spell(batch, txn.nest)
        if not members:
            return
        result: TxnResult = self._client.txn(txn)
        self._settled(members, result.responses, result.revision, again)

    def _spell(self, batch: Sequence[_Entry], add: Callable[[Txn], Any]) -> list[Delivery]:
        """Give `add` a transaction for each settlement; those settled, each once."""
        members: dict[str, _Entry] = {}
        for entry in batch:
            key = self._keys.claim(entry[0].queue, entry[0].place)
            known = members.get(key)
            # Of two claims of ours on one message the older has ended; of two words on one claim the first counts.
            if known is None or known[0].fence < entry[0].fence:
                members[key], entry = entry, known or entry
            if members[key] is not entry:
                _tell(entry[0], 0)
        for key, (delivery, requeue) in members.items():
            each = Txn().when(mod(key, delivery.fence))
            if requeue:
                each.put(key, claim_value("", delivery.count))
            else:
                each.delete(self._keys.message(delivery.queue, delivery.place)).delete(key)
            add(each)
        return [delivery for delivery, _ in members.values()]

    def _settled(self, members: Sequence[Delivery], results: Sequence[TxnResult], revision: int, again: bool) -> None:
        for delivery, nested in zip(members, results, strict=True):
            if not nested.succeeded and not again:
                self.stale += 1
                log.info("message %s of queue %s is not ours any more", delivery.place, delivery.queue)
            _tell(delivery, revision if nested.succeeded else 0)

    @staticmethod
    def _handled(delivery: Delivery) -> bool:
        """Whether the node deals with a run that its pool gave back; asked once."""
        if hooks.requeued is None or not delivery.value or not delivery.tag:
            return False
        delivery.tag = ""
        try:
            handled = hooks.requeued(delivery.facts, delivery.value)
        except Exception:
            log.exception("the hook `requeued` failed for %s", delivery.place)
            return False
        if handled:
            _tell(delivery, 0)
        return handled

    # -- run queues --------------------------------------------------------------------------------

    def _due(self) -> bool:
        return bool(self._later) and self._later[0][0] + _LOOKED_AT <= time.monotonic()

    def _until_due(self) -> float | None:
        return max(0.0, self._later[0][0] + _LOOKED_AT - time.monotonic()) if self._later else None

    def _let_go_due(self) -> None:
        """Look at the claims of runs that Celery has let go of; of those still there the node is told."""
        while self._due():
            now = time.monotonic()
            waiting = [delivery for due, delivery in islice(self._later, MAX_OPS) if due <= now]
            ended = hooks.ended
            doubtful = [each for each in waiting if ended is None or not ended(each.facts)]
            read = Txn()
            for delivery in doubtful:
                read.get(self._keys.claim(delivery.queue, delivery.place))
            answers = self._client.txn(read).responses if doubtful else []
            with self._change:
                for _ in waiting:
                    self._later.popleft()
            for delivery, found in zip(doubtful, answers, strict=True):
                if found:
                    self._let_go(delivery, found[0])

    @staticmethod
    def _let_go(delivery: Delivery, held: KV) -> None:
        hook, now = hooks.let_go, read_claim(held)
        if hook is None or held.mod < delivery.fence:
            return
        if now.holder != delivery.incarnation or now.deliveries != delivery.count:
            return
        try:
            hook({**delivery.facts, "fence": held.mod}, delivery.value)
        except Exception:
            log.exception("the hook `let_go` failed for %s", delivery.place)


class Ride:
    """Acks on their way with a request for claims: see `claims.Ride`."""

    def __init__(self, settler: Settler, batch: list[_Entry]) -> None:
        self.txns: list[Txn] = []
        self._settler, self._batch = settler, batch
        self._members = settler._spell(batch, self.txns.append)

    def arrived(self, results: Sequence[TxnResult], revision: int) -> None:
        """The request was carried out."""
        self._settler._settled(self._members, results, revision, False)
        self._settler._rode_home(len(self._batch), (), False)

    def returned(self, *, in_doubt: bool) -> None:
        """It was not, or nobody knows: they wait again."""
        self._settler._rode_home(len(self._batch), self._batch, in_doubt)


def _tell(delivery: Delivery, revision: int) -> None:
    after, delivery.after = delivery.after, None
    if after is not None:
        after(revision)
