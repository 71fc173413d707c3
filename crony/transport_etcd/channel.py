"""A Kombu channel on etcd: declares, consumes (see `declaring`, `consuming`) and publishes. The link does the work."""

from __future__ import annotations

import contextlib
from typing import Any

from crony.errors import CronyError
from crony.transport_etcd import hooks
from crony.transport_etcd.batch import PublishBatch
from crony.transport_etcd.consuming import Consumer, Consuming
from crony.transport_etcd.declaring import Declaring
from crony.transport_etcd.errors import QueueNotFound, mapped
from crony.transport_etcd.publish import STAMP, TRANSIENT


class Channel(Declaring, Consuming):
    """One channel of one connection; usable until closed, and for acks even after."""

    # -- publishing ------------------------------------------------------------------------------------

    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Any = None,
        properties: Any = None,
    ) -> dict[str, Any]:
        """The message, with its place fixed: Kombu prepares anew for each retry, with the same `properties`."""
        properties = {} if properties is None else properties
        properties.setdefault("delivery_info", {})
        properties.setdefault("priority", priority or self.default_priority)
        properties.setdefault(STAMP, self._link.publisher.stamps.next())
        return {
            "body": body,
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": headers or {},
            "properties": properties,
        }

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, timeout: float | None = None, **kwargs: Any
    ) -> None:
        """Put a message where it belongs; returns when etcd has it. What may be lost does not hold up a loop."""
        link = self.link
        properties = message["properties"]
        properties["delivery_info"] = {
            **(properties.get("delivery_info") or {}),
            "exchange": exchange or "",
            "routing_key": routing_key,
        }
        if exchange and properties.get("delivery_mode") == TRANSIENT and self._transport.in_loop:
            link.publisher.outbox.post({**message, "properties": dict(properties)}, exchange, routing_key or "")
        else:
            with mapped():
                reached = link.publisher.publish(message, exchange or "", routing_key or "", timeout=timeout)
            if not reached and kwargs.get("mandatory"):
                self._return(message, exchange or "", routing_key or "")
        properties.pop(STAMP, None)

    def _return(self, message: dict[str, Any], exchange: str, routing_key: str) -> None:
        """Nobody is bound: tell who asked for it (`Producer(on_return=...)`), at once and in this thread."""
        error = QueueNotFound("NO_ROUTE - no queue is bound for this message", (60, 40), "Channel.basic_publish", 312)
        for returned in list(self.events["basic_return"]):
            returned(error, exchange, routing_key, message)

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """What `Producer.batch` collects messages in."""
        return PublishBatch(self, self.link.publisher, max_size)

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel the consumers and give back what was never handed to a pool (N7). In a forked child: only forget."""
        if self.closed:
            return
        self.closed = True
        for tag in list(self._by_tag):
            with contextlib.suppress(CronyError, OSError):
                self.basic_cancel(tag)
        if self._ours and len(self._credit):
            self._give_back(keep=hooks.in_pool())
            self._link.adopt(self._credit.outstanding())
        if self.connection is not None:
            self.connection.close_channel(self)

    @property
    def state(self) -> Any:
        """Kombu's local table of bindings: unused, etcd has the real one."""
        return self._transport.state


__all__ = ["Channel", "Consumer"]
