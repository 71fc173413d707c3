"""What every part of a channel stands on: its link, its credit, its consumers, and whose process it is."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kombu.transport import virtual

from crony.transport_etcd.delivered import Message
from crony.transport_etcd.errors import BrokerUnavailable
from crony.transport_etcd.qos import QoS

if TYPE_CHECKING:
    from crony.transport_etcd.consuming import Consumer
    from crony.transport_etcd.link import Link
    from crony.transport_etcd.transport import Transport


class Opened(virtual.Channel):
    """An open channel of one connection."""

    supports_fanout = True
    supports_batch_publish = True
    Message = Message
    do_restore = False
    body_encoding = None  # type: ignore[assignment]

    def __init__(self, connection: Transport, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)  # type: ignore[no-untyped-call]
        self._pid = os.getpid()
        self._link: Link = connection.link
        self._transport: Transport = connection
        self._credit = QoS(self._wake)
        self._by_tag: dict[str, Consumer] = {}
        self.events: defaultdict[str, set[Any]] = defaultdict(set)

    @property
    def qos(self) -> QoS:
        """Credit and what is outstanding."""
        return self._credit

    @property
    def _ours(self) -> bool:
        """Whether this process opened the channel; a forked child must not act for its parent."""
        return self._pid == os.getpid()

    def _wake(self) -> None:
        self._transport.wake()

    @property
    def link(self) -> Link:
        """The process's link. Raises `BrokerUnavailable` when the channel is closed or was inherited by a fork."""
        if self.closed or not self._ours or not self._transport.usable:
            raise BrokerUnavailable("the channel is closed")
        return self._link


__all__ = ["Opened"]
