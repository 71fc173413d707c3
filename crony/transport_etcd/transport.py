"""The Kombu transport `etcd3://`: evented, one wake descriptor per connection, no request in the loop's thread."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from array import array
from typing import Any

from kombu.transport import virtual

from crony.errors import CronyError
from crony.transport_etcd import SCHEME, errors, hooks, options
from crony.transport_etcd.channel import Channel, Consumer
from crony.transport_etcd.claims import Delivery
from crony.transport_etcd.deaf import SelfTest
from crony.transport_etcd.errors import BrokerUnavailable, mapped
from crony.transport_etcd.inbox import Inbox
from crony.transport_etcd.link import Link, link_to
from crony.transport_etcd.pump import Pump

log = logging.getLogger("crony.transport")

CLOSE_TIMEOUT = 5.0
"""Longest time that closing a connection takes, seconds."""
_DELIVERIES_PER_TURN = 50


class Transport(virtual.Transport):
    """One connection. Kombu makes a new one after each loss; the link behind it stays."""

    Channel = Channel

    client: Any
    driver_type = SCHEME
    driver_name = "crony"
    default_port = options.DEFAULT_PORT  # type: ignore[assignment]
    can_parse_url = False
    polling_interval = None  # type: ignore[assignment]

    connection_errors = errors.CONNECTION_ERRORS  # type: ignore[assignment]
    channel_errors = errors.CHANNEL_ERRORS
    recoverable_connection_errors = errors.RECOVERABLE_CONNECTION_ERRORS
    recoverable_channel_errors = errors.RECOVERABLE_CHANNEL_ERRORS

    implements = virtual.Transport.implements.extend(
        asynchronous=True,
        exchange_type=frozenset({"direct", "topic", "fanout"}),
        heartbeats=False,
        batch_publish=True,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)  # type: ignore[no-untyped-call]
        _introduce()
        self._reset()

    def _reset(self) -> None:
        """As new: nothing of an earlier connection or of the process we were forked from is touched."""
        self._pid = os.getpid()
        self.channels = []
        self._avail_channels = []
        self._used_channel_ids = array("H")
        self._link: Link | None = None
        self._pump: Pump | None = None
        self._consumers: list[Consumer] = []
        self._self_test: SelfTest | None = None
        self._loop: Any = None
        self.inbox = Inbox()
        self.exclusive: set[str] = set()
        """Exclusive queues declared on this connection: they go with it."""

    def driver_version(self) -> str:
        """Crony's version."""
        from crony import __version__

        return __version__

    # -- connecting ------------------------------------------------------------------------------------

    def establish_connection(self) -> Transport:
        """Talk to etcd within the connect timeout. Raises one of `connection_errors`."""
        if not self.usable:
            self._reset()
        with mapped():
            link = link_to(options.of(self.client))
            timeout = float(self.client.connect_timeout or link.options.timeout)
            options.reach(link.options.endpoints, timeout / 2)
            link.client.get(link.keys.control, timeout=timeout / 2)
        self._link = link
        link.join(self)
        # `inspect stats` shows the options.
        self.client.transport_options = {**(self.client.transport_options or {}), "counters": link.counters}
        self._avail_channels.append(self.create_channel(self))  # type: ignore[no-untyped-call]
        return self

    @property
    def link(self) -> Link:
        """The process's link. Raises `BrokerUnavailable` when not connected."""
        if self._link is None or not self.ours:
            raise BrokerUnavailable("not connected")
        return self._link

    @property
    def ours(self) -> bool:
        """Whether this process made the connection; a forked child must not act for its parent."""
        return self._pid == os.getpid()

    @property
    def usable(self) -> bool:
        """Whether the connection is up, as far as one can tell without asking."""
        return self._link is not None and self.ours

    def verify_connection(self, connection: Any) -> bool:
        """Whether the connection can go on: a flag, no request."""
        return self.usable and self.inbox.error is None

    def fail(self, error: Exception) -> None:
        """The connection cannot go on: who consumes from it is told in their own thread."""
        if self._pump is not None or self.exclusive:
            self.inbox.fail(error)

    def close_connection(self, connection: Any) -> None:
        """Give back, flush, let go; within `CLOSE_TIMEOUT`. In a forked child: only forget."""
        if not self.ours:
            self._reset()
            return
        link, pump = self._link, self._pump
        if link is None:
            return
        deadline = time.monotonic() + CLOSE_TIMEOUT
        if self._self_test is not None:
            self._self_test.stop()
            self._self_test = None
        if pump is not None:
            pump.stop(1.0)
        for channel in [*self._avail_channels, *self.channels]:
            with contextlib.suppress(*self.connection_errors, *self.channel_errors, CronyError):
                channel.close()
        self.channels, self._avail_channels = [], []
        self._forget_exclusive(link)
        self._leave_loop()
        self._link = self._pump = None
        link.leave(self, max(0.1, min(3.0, deadline - time.monotonic())))

    def _collect(self, connection: Any) -> None:
        """After a fork or a loss: let go without waiting for etcd longer than needed."""
        self.close_connection(connection)

    def _forget_exclusive(self, link: Link) -> None:
        queues, self.exclusive = self.exclusive, set()
        if not queues or link.session_or_none is None:
            return

        def forget() -> None:
            for queue in queues:
                with contextlib.suppress(CronyError):
                    link.queues.delete(queue, link.session_or_none)

        if self.inbox.error is None:
            forget()
        else:
            threading.Thread(target=forget, name="crony-forget", daemon=True).start()

    # -- consuming -------------------------------------------------------------------------------------

    def feed(self, consumer: Consumer) -> None:
        """Begin to fetch for a consumer."""
        if self._pump is None:
            self._pump = Pump(self.link, self.inbox)
            self.inbox.on_demand = self._pump.wake
            after = self.link.options.deaf_after
            self._self_test = SelfTest(self.link, self.inbox, after, lambda: self._consumers, self._hears_nothing)
            self._self_test.start()
        self._consumers = [*self._consumers, consumer]
        self._pump.add(consumer)

    def starve(self, consumer: Consumer) -> list[Delivery]:
        """Stop fetching for a consumer; what waited for it."""
        self._consumers = [each for each in self._consumers if each is not consumer]
        if self._pump is not None:
            self._pump.remove(consumer)
        return self.inbox.withdraw(consumer)

    def _hears_nothing(self, sentence: str) -> None:
        self.link.counters["deaf"] += 1
        log.error("%s; reconnecting", sentence)
        self.fail(BrokerUnavailable(sentence))

    def wake(self) -> None:
        """Credit returned or a queue changed."""
        pump = self._pump
        if pump is not None:
            pump.wake()

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver one message - and those for acknowledging consumers that are here already.

        Raises `socket.timeout` when none came in time, or the error that ended the connection.
        """
        if hooks.loop_moved is not None:
            hooks.loop_moved()
        item = self.inbox.pop(timeout)
        if item is None:
            raise TimeoutError("timed out")
        self._after_pop()
        item.consumer.channel.deliver(*item)
        if item.consumer.no_ack:
            return
        while (more := self.inbox.pop_more()) is not None:
            more.consumer.channel.deliver(*more)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Deliver from the loop's thread whenever something waits."""
        link = self.link
        self._loop = loop
        link.loops.add(threading.get_ident())
        fd = self.inbox.wake_fd()
        loop.add_reader(fd, self.on_wake, fd)

    def on_wake(self, fd: int) -> None:
        """Deliver what waits, not more than a turn's share. Raises the error that ended the connection."""
        self.inbox.rearm()
        try:
            for _ in range(_DELIVERIES_PER_TURN):
                item = self.inbox.pop()
                if item is None:
                    break
                item.consumer.channel.deliver(*item)
        finally:
            self.inbox.remind()
            self._after_pop()

    @property
    def in_loop(self) -> bool:
        """Whether the calling thread runs an event loop, which must not wait for etcd."""
        link = self._link
        return link is not None and threading.get_ident() in link.loops

    def _after_pop(self) -> None:
        pump = self._pump
        if pump is not None and pump.throttled:
            pump.wake()

    def _leave_loop(self) -> None:
        loop, self._loop = self._loop, None

        def done(fd: int) -> None:
            if loop is not None and fd in loop.readers:
                loop.remove_reader(fd)

        self.inbox.close(done)
        if loop is not None and self._link is not None:
            self._link.loops.discard(threading.get_ident())

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """What a URL without host means."""
        return {"port": self.default_port, "hostname": "127.0.0.1"}


def _introduce() -> None:
    """Tell those who ask for drivers by name about ours: Celery's start-up sync in a worker, the pages of Flower.

    Only what is loaded already is touched, so other processes pay nothing.
    """
    module = sys.modules.get("celery.worker.consumer.mingle")
    if module is not None:
        module.Mingle.compatible_transports.add(SCHEME)
    if "flower.utils.broker" in sys.modules:
        from crony.transport_etcd import flower

        flower.introduce()


__all__ = ["CLOSE_TIMEOUT", "Transport"]
