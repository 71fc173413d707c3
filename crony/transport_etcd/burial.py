"""Messages that go no further: expired ones, and those delivered too often. Dropped, or set aside as dead letters.

A message is moved in one transaction that compares its claim's revision, so whoever comes too late moves nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys, is_run_queue
from crony.etcd.txn import PUBLISH_BYTES, Compare, Txn, mod
from crony.transport_etcd.claims import Delivery
from crony.transport_etcd.letters import seal
from crony.transport_etcd.queues import Queues
from crony.transport_etcd.settler import Settler

log = logging.getLogger("crony.transport")

EXPIRED = "expired"
REJECTED = "rejected"


class Burial:
    """Sets messages aside, in a thread of its own; repeats it until etcd has answered."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        queues: Queues,
        settler: Settler,
        expired: Callable[[Delivery], bool],
        limit: int,
    ) -> None:
        """`expired`: whether a message has outlived itself; `limit`: deliveries allowed where a queue says nothing."""
        self._client, self._keys, self._queues, self._settler = client, keys, queues, settler
        self._expired, self._limit = expired, limit
        self._waiting: deque[tuple[Delivery, str]] = deque()
        self._busy = False
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self.buried = 0
        """Messages this process set aside."""

    def fit(self, delivery: Delivery) -> bool:
        """Whether a message we have just claimed may be handed over. If not, it is dealt with in the background."""
        if is_run_queue(delivery.queue):
            return True  # the leader's business (N3)
        declared = self._queues.declared(delivery.queue)
        if self._expired(delivery):
            if declared.keeps_dead:
                self.post(delivery, EXPIRED)
            else:
                self._settler.ack(delivery)
            return False
        limit = declared.limit(self._limit)
        if not limit or delivery.count <= limit:
            return True
        self.post(delivery, f"delivered {delivery.count - 1} times, {limit} allowed")
        return False

    def rejected(self, delivery: Delivery) -> None:
        """The consumer refused the message for good: a dead letter where the queue keeps them, else dropped."""
        if is_run_queue(delivery.queue) or not self._queues.declared(delivery.queue).keeps_dead:
            self._settler.ack(delivery)
        else:
            self.post(delivery, REJECTED)

    def post(self, delivery: Delivery, reason: str) -> None:
        """Set a claimed message aside soon."""
        if not delivery.fence:
            return
        with self._change:
            self._waiting.append((delivery, reason))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="crony-burial", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything posted is done, `timeout` seconds at most; whether it is."""
        deadline = time.monotonic() + timeout
        with self._change:
            while self._waiting or self._busy:
                if not self._change.wait(deadline - time.monotonic()):
                    return False
            return True

    def bury(self, queue: str, place: str, reason: str, count: int, *holds: Compare) -> bool:
        """Move a message to the dead letters now, if `holds` holds; False: it is gone, or they do not."""
        key, claim = self._keys.message(queue, place), self._keys.claim(queue, place)
        stored = self._client.get(key)
        if stored is None:
            return False
        letter = seal(queue, stored.value, reason, count, time.time() + self._client.clock_offset)
        txn = Txn(max_bytes=PUBLISH_BYTES).when(mod(key, stored.mod), *holds)
        txn.put(self._keys.letter(queue, place), letter).delete(key).delete(claim)
        if not self._client.txn(txn).succeeded:
            return False
        self.buried += 1
        log.warning("message %s of queue %s is a dead letter now: %s", place, queue, reason)
        return True

    def _run(self) -> None:
        pause = 0.05
        while True:
            with self._change:
                if not self._waiting:
                    self._thread = None
                    self._busy = False
                    self._change.notify_all()
                    return
                delivery, reason = self._waiting[0]
                self._busy = True
            count = delivery.count if reason in (EXPIRED, REJECTED) else delivery.count - 1
            held = mod(self._keys.claim(delivery.queue, delivery.place), delivery.fence)
            try:
                if not self.bury(delivery.queue, delivery.place, reason, count, held):
                    log.info("message %s of queue %s is not ours any more", delivery.place, delivery.queue)
            except CronyError as error:
                log.warning("a message of queue %s waits to be set aside: %s", delivery.queue, error)
                if self._client.closed:
                    return
                time.sleep(pause)
                pause = min(1.0, pause * 2)
                continue
            except Exception:
                log.exception("message %s of queue %s cannot be set aside", delivery.place, delivery.queue)
            pause = 0.05
            with self._change:
                self._waiting.popleft()


__all__ = ["EXPIRED", "REJECTED", "Burial"]
