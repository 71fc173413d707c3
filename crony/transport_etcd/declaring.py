"""The part of a channel that declares: exchanges, queues, bindings, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from amqp.protocol import queue_declare_ok_t  # type: ignore[import-untyped]
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.utils.uuid import uuid

from crony.transport_etcd import max_length
from crony.transport_etcd.declared import Declared
from crony.transport_etcd.errors import BrokerUnavailable, mapped, not_found, precondition
from crony.transport_etcd.exchange import Exchange, canonical
from crony.transport_etcd.opened import Opened

log = logging.getLogger("crony.transport")

_MANY = 2000
_noticed: set[str] = set()


class Declaring(Opened):
    """Declares, binds, measures, empties and deletes."""

    # -- exchanges -------------------------------------------------------------------------------------

    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str = "direct",
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Any = None,
        nowait: bool = False,
        passive: bool = False,
    ) -> None:
        """Create an exchange, or (passive) raise `QueueNotFound` if it is not there."""
        type = type or "direct"
        exchange = exchange or f"amq.{type}"
        with mapped():
            if passive:
                if not self.link.tables.exists(exchange):
                    raise not_found("exchange", exchange)
                return
            self.link.tables.declare(exchange, Exchange(type, bool(durable), bool(auto_delete), canonical(arguments)))

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Remove an exchange and its bindings; the queues stay. Raises `PreconditionFailed` if it is in use."""
        with mapped():
            if not self.link.tables.delete(exchange, if_unused=if_unused):
                raise precondition(f"exchange {exchange!r} has bindings", "exchange")

    def get_exchanges(self) -> list[str]:
        """Names of exchanges that have bindings."""
        return sorted({exchange for _, exchange, _ in self.list_bindings()})

    def list_bindings(self) -> Iterable[tuple[str, str, str]]:
        """(queue, exchange, routing key) of every binding of the namespace."""
        with mapped():
            return list(self.link.tables.everything())

    def get_table(self, exchange: str) -> list[tuple[str, None, str]]:
        """(routing key, None, queue) of every binding of an exchange."""
        with mapped():
            return [(each.routing_key, None, each.queue) for each in self.link.tables.read(exchange).bindings]

    def typeof(self, exchange: str, default: str = "direct") -> Any:
        """Kombu's object for the exchange's type."""
        with mapped():
            kind = self.link.tables.seen(exchange).type if exchange else default
        return (self.exchange_types or {})[kind]

    # -- queues ----------------------------------------------------------------------------------------

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        """Kombu's keywords (`expires`, `message_ttl`, …) as the arguments that RabbitMQ knows."""
        return to_rabbitmq_queue_arguments(arguments or {}, **kwargs)

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Create a queue, or (passive) raise `QueueNotFound`. Returns (name, ready messages, consumers).

        Raises `NotEquivalent` (406) when the queue exists with other properties, naming the first that differs;
        arguments that mean nothing here need not agree (`declared.EFFECTIVE` names those that must). `Locked` (405):
        it is exclusive to another process.
        """
        queue = queue or f"amq.gen-{uuid()}"
        link = self.link
        with mapped():
            if passive:
                if not link.queues.exists(queue):
                    raise not_found("queue", queue)
            else:
                max_length.check(queue, arguments or {})
                declared = Declared(bool(durable), bool(exclusive), bool(auto_delete), dict(arguments or {}))
                session = link.session(link.options.timeout) if declared.leased else None
                standing = link.queues.declare(queue, declared, session)
                self._notice(queue, declared)
                if exclusive:
                    self._transport.exclusive.add(queue)
                    link.upkeep.start()
                if standing == "created":
                    return queue_declare_ok_t(queue, 0, 0)
                if standing == "known" and exclusive:  # nobody else can consume it, and who can has no use for a size
                    return queue_declare_ok_t(queue, 0, link.presence.count(queue))
            return queue_declare_ok_t(queue, link.contents.size(queue), link.queues.consumers(queue))

    def _notice(self, queue: str, declared: Declared) -> None:
        exchange = declared.arguments.get("x-dead-letter-exchange")
        if exchange is not None and queue not in _noticed:
            _noticed.add(queue)
            log.warning(
                "queue %s: dead letters are kept in etcd (`crony queue dead %s`), not sent to the exchange %r",
                queue,
                queue,
                exchange,
            )

    def queue_bind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Bind a queue to an exchange."""
        link = self.link
        with mapped():
            session = link.session() if link.queues.learn(queue).leased else None
            if session is None and queue in self._transport.exclusive:
                raise BrokerUnavailable(f"the exclusive queue {queue!r} cannot be bound: it went with its session")
            link.queues.bind(queue, exchange or "amq.direct", routing_key or "", session)

    def queue_unbind(
        self, queue: str, exchange: str | None = None, routing_key: str = "", arguments: Any = None, **kwargs: Any
    ) -> None:
        """Remove a binding."""
        link = self.link
        with mapped():
            link.queues.unbind(queue, exchange or "amq.direct", routing_key or "", link.session_or_none)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> int:
        """Remove a queue with its bindings and messages, and return how many; a run queue is left alone.

        Raises `PreconditionFailed` (406) when it has a consumer (`if_unused`) or a message, also a claimed one
        (`if_empty`). One that is not there is fine.
        """
        link = self.link
        with mapped():
            if if_empty:
                link.contents.size(queue)  # what has expired does not count
            purged = 0
            if not if_unused and not if_empty and link.client.count(link.keys.messages(queue)) > _MANY:
                purged = link.contents.purge(queue)  # in pieces: one huge transaction would hold up everybody
            deleted = link.queues.delete(queue, link.session_or_none, if_unused=if_unused, if_empty=if_empty)
            if deleted is None:
                raise link.queues.refuse_delete(queue)
        self._transport.exclusive.discard(queue)
        return purged + deleted

    def after_reply_message_received(self, queue: str) -> None:
        """Remote control has collected its replies: their queue goes, unless it went with its consumer."""
        if queue in self._transport.exclusive:
            self.queue_delete(queue)

    def _size(self, queue: str) -> int:
        with mapped():
            return self.link.contents.size(queue)

    def _purge(self, queue: str) -> int:
        with mapped():
            return self.link.contents.purge(queue)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        with mapped():
            return self.link.queues.exists(queue)


__all__ = ["Declaring"]
