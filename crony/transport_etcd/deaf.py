"""A self-test of a consuming connection: is there work for us that we do not take?

Whatever the reason - a watch that went silent without an error, a thread that died - the sign is the same: subscribed,
credit left, the same message ready for seconds, nothing claimed. Then the connection is failed, so that its consumer
reconnects, and everything behind it is made anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from crony.errors import CronyError
from crony.etcd.keys import prefix_end
from crony.transport_etcd import hooks
from crony.transport_etcd.queue import read_claim

if TYPE_CHECKING:
    from crony.transport_etcd.channel import Consumer
    from crony.transport_etcd.inbox import Inbox
    from crony.transport_etcd.link import Link

log = logging.getLogger("crony.transport")

_LOOKS = 4
_HEAD = 100


class SelfTest:
    """Looks at a connection's queues every now and then, in a thread of its own, while nothing arrives."""

    def __init__(
        self, link: Link, inbox: Inbox, after: float, consumers: Callable[[], Iterable[Consumer]],
        deaf: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`after`: seconds a ready message may be left alone. `deaf(sentence)` is called once, at most."""
        self._link, self._inbox, self._after = link, inbox, after
        self._consumers, self._deaf = consumers, deaf
        self._stop = threading.Event()
        self._counts: dict[Consumer, int] = {}
        """How many messages each consumer had had at the last look."""
        self._ignored: dict[Consumer, tuple[str, float]] = {}
        """The first message that each consumer could have, and since when it is the same and nothing else came."""
        self._thread = threading.Thread(target=self._run, name="crony-self-test", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._after / _LOOKS):
            try:
                sentence = self._look()
            except (CronyError, OSError):
                self._ignored.clear()  # etcd is away: nobody hears anything
                continue
            if sentence:
                self._deaf(sentence)
                return

    def _look(self) -> str:
        if self._inbox.error is not None:
            return ""
        now = time.monotonic()
        counts, self._counts = self._counts, {each: self._inbox.arrived(each) for each in self._consumers()}
        before, self._ignored = self._ignored, {}
        for consumer, arrived in self._counts.items():
            if arrived != counts.get(consumer) or not self._could_take(consumer):
                continue
            place, since = before.get(consumer, ("", now))
            ready = self._ready(consumer)
            if not ready:
                continue
            if ready != place:
                since = now
            self._ignored[consumer] = ready, since
            if now - since >= self._after:
                return (
                    f"deaf: queue {consumer.queue} has had a message ready for {now - since:.1f} s, there is credit, "
                    "and nothing was claimed"
                )
        return ""

    def _could_take(self, consumer: Consumer) -> bool:
        if not consumer.active or not self._inbox.wanted:
            return False
        if consumer.no_ack:
            return not self._inbox.backlog()
        if hooks.may_claim is not None and not hooks.may_claim(consumer.queue):
            return False
        session = self._link.session_or_none
        if session is None or not session.alive:
            return False
        qos = consumer.channel.qos
        taken = self._link.adopted if hooks.node and qos.prefetch_count else 0
        return qos.can_consume_max_estimate() - taken > 0

    def _ready(self, consumer: Consumer) -> str:
        """Place of the first message that nobody holds; empty: there is none in sight."""
        client, keys, queue = self._link.client, self._link.keys, consumer.queue
        prefix = keys.messages(queue)
        head = client.range(prefix, prefix_end(prefix), limit=1, keys_only=True)
        if not head.kvs:
            return ""
        head = client.range(prefix, prefix_end(prefix), limit=_HEAD, keys_only=True)
        claims = keys.claims(queue)
        held = {kv.key.removeprefix(claims) for kv in client.list(claims).kvs if read_claim(kv).holder}
        places = (kv.key.removeprefix(prefix) for kv in head.kvs)
        return next((place for place in places if place not in held), "")


__all__ = ["SelfTest"]
