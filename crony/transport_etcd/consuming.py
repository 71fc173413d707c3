"""The part of a channel that consumes and settles: consumers, deliveries, acks, rejects, credit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from crony.domain.queues import read_shared
from crony.errors import CronyError
from crony.etcd.keys import is_run_queue
from crony.transport_etcd import fetch
from crony.transport_etcd.claims import Delivery
from crony.transport_etcd.errors import mapped
from crony.transport_etcd.opened import Opened
from crony.transport_etcd.reader import BroadcastReader, QueueReader

if TYPE_CHECKING:
    from crony.transport_etcd.channel import Channel
    from crony.transport_etcd.link import Link

log = logging.getLogger("crony.transport")


@dataclass(slots=True, eq=False)
class Consumer:
    """Somebody who consumes a queue on a channel."""

    tag: str
    queue: str
    no_ack: bool
    channel: Channel
    callback: Callable[[Any], Any]
    reader: QueueReader | None = None
    broadcasts: list[BroadcastReader] = field(default_factory=list)
    active: bool = True
    presence: str = ""
    """Key that says we consume the queue."""
    auto_delete: bool = False
    """The queue goes with its last consumer."""


class Consuming(Opened):
    """Consumes and settles."""

    # -- consuming -------------------------------------------------------------------------------------

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any
    ) -> str:
        """Deliver the queue's messages to `callback` from now on."""
        link = self.link
        consumer = Consumer(consumer_tag, queue, bool(no_ack), cast("Channel", self), callback)
        with mapped():
            broadcasts = link.queues.broadcasts(queue)
            session = link.session(link.options.timeout)
            consumer.presence = link.presence.enter(queue, f"{consumer_tag}.{id(self):x}", session)
            consumer.auto_delete = link.queues.use(queue, consume=True).auto_delete
        if not is_run_queue(queue) or read_shared(queue):
            link.sessions.start()  # several consume it: they take turns
        if not is_run_queue(queue):
            link.delayed.start()
            link.upkeep.start()
        consumer.reader = QueueReader(link, queue, self._wake)
        for exchange, since in broadcasts.items():
            consumer.broadcasts.append(self._listen(link, consumer, exchange, since))
        self._by_tag[consumer_tag] = consumer
        self._consumers.add(consumer_tag)
        self._tag_to_queue[consumer_tag] = queue
        self._transport.feed(consumer)
        consumer.reader.start()
        for broadcast in consumer.broadcasts:
            broadcast.start()
        return consumer_tag

    def _listen(self, link: Link, consumer: Consumer, exchange: str, since: int) -> BroadcastReader:
        def deliver(place: str, message: dict[str, Any]) -> None:
            delivery = Delivery(consumer.queue, f"0{place}", 0, 1, "", message, b"")
            if not consumer.no_ack:
                delivery.tag = f"{exchange}/{place}"
                self._credit.claimed([delivery])
            self._transport.inbox.push(consumer, delivery)

        return BroadcastReader(link, consumer.queue, exchange, since, deliver)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop delivering; what was claimed for this consumer and not delivered is given back at once."""
        consumer = self._by_tag.pop(consumer_tag, None)
        self._consumers.discard(consumer_tag)
        self._tag_to_queue.pop(consumer_tag, None)
        if consumer is None:
            return
        waited = self._transport.starve(consumer)
        if not self._ours:
            return
        if not consumer.no_ack:
            self._credit.withdraw(waited)
            self._link.settler.release(waited, unseen=True)
        for reader in (consumer.reader, *consumer.broadcasts):
            if reader is not None:
                reader.stop()
        self._gone(consumer)

    def _gone(self, consumer: Consumer) -> None:
        """One consumer less; the last one of an auto-delete queue takes the queue with it."""
        link, queue = self._link, consumer.queue
        session, lost = link.session_or_none, self._transport.inbox.error is not None
        told = link.presence.leave(queue, consumer.presence, session, wait=not lost)
        if not told or not consumer.auto_delete:
            return
        try:
            if link.queues.delete(queue, session, if_unused=True) is not None:
                self._transport.exclusive.discard(queue)
        except CronyError as error:
            log.info("queue %s was not deleted: %s", queue, error)

    def deliver(self, consumer: Consumer, delivery: Delivery) -> None:
        """Hand a message to its consumer (in the consuming thread)."""
        if not consumer.no_ack:
            self._credit.delivered()
        consumer.callback(self._message(delivery))

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """One message, or None. What was settled before is visible."""
        link = self.link
        with mapped():
            link.queues.use(queue)
            session = None if no_ack else link.session(link.options.timeout)
            found = fetch.broadcast(link, queue) or fetch.message(link, queue, session)
        if found is None:
            return None
        if found.fence:
            self._credit.claimed([found])
            self._credit.delivered()
        return self._message(found)

    def _message(self, delivery: Delivery) -> Any:
        payload = delivery.message
        properties = payload["properties"]
        info = {"exchange": "", "routing_key": delivery.queue, **(properties.get("delivery_info") or {})}
        info["redelivered"] = delivery.count > 1
        info["routing_key"] = info["routing_key"] or delivery.queue
        properties["delivery_info"] = info
        properties["delivery_tag"] = delivery.tag or delivery.place
        if delivery.fence:
            properties["crony"] = delivery.facts
        return self.Message(payload, channel=self)  # type: ignore[no-untyped-call]

    # -- settling --------------------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """The message is dealt with; etcd is told in the background."""
        for delivery in self._settled(delivery_tag, multiple):
            self._link.settler.ack(delivery)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give the message back (its place and count stay), or drop it: a dead letter where the queue keeps them."""
        if not requeue:
            for refused in self._settled(delivery_tag, multiple=False):
                self._link.burial.rejected(refused)
            return
        delivery = self._credit.giving_back(delivery_tag) if self._ours else None
        if delivery is None:
            return
        self._link.disown(delivery)
        if not delivery.fence:  # a broadcast: nothing in etcd to give back
            self._credit.given_back()
            return

        def after(revision: int) -> None:
            # In this order: what was given back goes before what would fill its credit.
            for consumer in list(self._by_tag.values()):
                if revision and consumer.queue == delivery.queue and consumer.reader is not None:
                    consumer.reader.released(delivery.place, revision, delivery.count)
            self._credit.given_back()

        delivery.after = after
        self._link.settler.requeue(delivery)

    def _settled(self, delivery_tag: str, multiple: bool) -> list[Delivery]:
        deliveries = self._credit.settle(delivery_tag, multiple) if self._ours else []
        for delivery in deliveries:
            self._link.disown(delivery)
        return deliveries

    def basic_recover(self, requeue: bool = False) -> None:
        """Give back everything unacknowledged of this channel."""
        if not requeue:
            raise NotImplementedError("recover(requeue=False) is not supported")
        self._give_back(keep=frozenset())

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Most unacknowledged messages of this channel; 0: no limit."""
        self._credit.prefetch_count = prefetch_count

    def _give_back(self, keep: Container[str]) -> None:
        free = [delivery for delivery in self._credit.outstanding() if delivery.tag not in keep]
        for delivery in free:
            self._credit.settle(delivery.tag)
        self._link.settler.release(free)


__all__ = ["Consumer", "Consuming"]
