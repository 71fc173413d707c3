"""What the connections of one process share: one client, one session, one settler, one view of exchanges.

A worker opens several Kombu connections (consumer, events, pool); each has its own channels, but acks, leases and
incarnations belong to the process. A forked child starts without any of it and makes its own.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Protocol

from crony.errors import CronyError
from crony.etcd.client import KV
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.session import Session, process_session
from crony.etcd.watch import Event, Watcher
from crony.transport_etcd import hooks
from crony.transport_etcd.burial import Burial
from crony.transport_etcd.claims import Delivery
from crony.transport_etcd.contents import Contents
from crony.transport_etcd.delayed import DelayedOwner
from crony.transport_etcd.errors import BrokerUnavailable, SessionLost
from crony.transport_etcd.exchange import Tables
from crony.transport_etcd.options import Options
from crony.transport_etcd.presence import Presence
from crony.transport_etcd.publish import Publisher
from crony.transport_etcd.queues import Queues
from crony.transport_etcd.settler import Settler
from crony.transport_etcd.upkeep import Upkeep

log = logging.getLogger("crony.transport")

ABSENT_FOR = 1.0
"""How long the session of a claim's holder has to be away before the claim may be taken over, seconds."""
_ORPHAN_GRACE = 2.0
_EXIT_TIMEOUT = 2.0
_MANY = 10_000


class Listener(Protocol):
    """Somebody to be told when the session is lost, and when there may be something to do."""

    def fail(self, error: Exception) -> None:
        """The connection cannot go on."""

    def wake(self) -> None:
        """Credit may have returned."""


class Counters(dict[str, int]):
    """What went wrong so far, by name. Its text never changes, because Kombu compares options by their text."""

    def __repr__(self) -> str:
        return "counters"


class Link:
    """Shared by all connections of this process with the same options. Get it with `link_to`, then `join`/`leave`."""

    def __init__(self, options: Options) -> None:
        """Connects on first use."""
        self.options = options
        self.counters = Counters(deaf=0, sessions_lost=0)
        self.keys = Keys(options.namespace)
        self.client = options.client()
        self.tables = Tables(self.client, self.keys)
        self.queues = Queues(self.client, self.keys, self.tables)
        self.publisher = Publisher(self.client, self.keys, self.tables, self.queues, eta_in_etcd=options.eta_in_etcd)
        self.settler = Settler(self.client, self.keys)
        self.burial = Burial(
            self.client, self.keys, self.queues, self.settler, self.publisher.expired, options.delivery_limit
        )
        self.contents = Contents(self.client, self.keys, self.queues, self.publisher, self.burial)
        self.presence = Presence(self.keys)
        self.upkeep = Upkeep(self)
        self.sessions = Sessions(self)
        self.delayed = DelayedOwner(
            self.client, self.keys, self.publisher.stamps, self.publisher.limits, self.session, options.eta_in_etcd
        )
        self._lock = threading.RLock()
        self._users: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._session: Session | None = None
        self._alive = threading.Event()
        self._orphans: dict[str, tuple[Delivery, float]] = {}
        self._swept = 0.0
        self.loops: set[int] = set()
        """Threads that run an event loop: they publish what may be lost through the outbox."""

    # -- connections ---------------------------------------------------------------------------------

    def join(self, user: Listener) -> None:
        """A connection is up."""
        with self._lock:
            self._users.add(user)

    def leave(self, user: Listener, timeout: float) -> None:
        """A connection closes: what it left in the background is flushed, `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        self.publisher.outbox.flush(min(1.0, timeout))
        self.settler.flush(max(0.0, deadline - time.monotonic()))
        self.burial.flush(max(0.0, deadline - time.monotonic()))
        with self._lock:
            self._users.discard(user)
            last = not self._users
        if last:
            self.publisher.outbox.close()
            self.settler.close(0.0)
            self.tables.close()
            self.sessions.stop()
            self.upkeep.stop()
            self.delayed.stop()

    # -- the session ---------------------------------------------------------------------------------

    def session(self, wait: float = 0.0) -> Session:
        """The process's session, started on first use; waits up to `wait` seconds for it to be alive."""
        with self._lock:
            if self._session is None:
                self._session = process_session(self.client, self.keys, self.options.session_ttl)
                self._session.listen(self._session_changed)
                if self._session.alive:
                    self._alive.set()
            session = self._session
        if wait and not session.alive:
            self._alive.wait(wait)
        return session

    @property
    def session_or_none(self) -> Session | None:
        """The session, if anything needed one yet."""
        return self._session

    def _session_changed(self, alive: bool) -> None:
        if alive:
            self._alive.set()
            return
        self._alive.clear()
        self.counters["sessions_lost"] += 1
        self.queues.all_gone()
        for user in list(self._users):
            user.fail(SessionLost("the session in etcd was lost: what this process holds may be taken over by others"))

    # -- deliveries that outlive their connection -----------------------------------------------------

    def adopt(self, deliveries: Iterable[Delivery]) -> None:
        """Their channel is closed, but the pool still has them (N7): they stay ours until acked or dropped by it."""
        with self._lock:
            self._orphans.update({delivery.tag: (delivery, time.monotonic()) for delivery in deliveries})

    def disown(self, delivery: Delivery) -> None:
        """It was settled."""
        if self._orphans:
            with self._lock:
                known = self._orphans.pop(delivery.tag, None)
                users = list(self._users) if known is not None else []
            for user in users:
                user.wake()

    @property
    def adopted(self) -> int:
        """How many deliveries of closed channels the pool still has."""
        return len(self._orphans)

    def sweep(self) -> None:
        """Release adopted deliveries that the pool has dropped; called every now and then while connected."""
        now = time.monotonic()
        if not self._orphans or now - self._swept < _ORPHAN_GRACE / 4:
            return
        self._swept = now
        busy = hooks.in_pool()
        with self._lock:
            for tag, (delivery, seen) in list(self._orphans.items()):
                if tag in busy:
                    self._orphans[tag] = (delivery, now)
                elif now - seen > _ORPHAN_GRACE:
                    del self._orphans[tag]
                    self.settler.release([delivery])

    def shut(self) -> None:
        """The process ends: confirm acks, give the lease back so that others need not wait for it, close the sockets.

        A connection that is still open is told that it cannot go on.
        """
        self.delayed.stop()
        settled = self.settler.flush(_EXIT_TIMEOUT)
        self.burial.flush(_EXIT_TIMEOUT)
        self.upkeep.stop()
        self.publisher.outbox.flush(_EXIT_TIMEOUT)
        for user in list(self._users):
            user.fail(BrokerUnavailable("this process gave up its link to etcd"))
        if self._session is not None:
            with contextlib.suppress(CronyError):
                self._session.close()
        self.publisher.outbox.close()
        self.settler.close(0.0)
        self.tables.close()
        self.sessions.stop()
        if settled:
            self.client.close()


class Sessions:
    """Which incarnations are alive, by a watch; runs only while somebody consumes queues that others consume, too."""

    def __init__(self, link: Link) -> None:
        """`link`: whose namespace."""
        self._link = link
        self._live: set[str] = set()
        self._missing: dict[str, float] = {}
        self._watcher: Watcher | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Watch, unless that is so already."""
        with self._lock:
            if self._watcher is None:
                prefix = self._link.keys.sessions
                self._watcher = Watcher(
                    self._link.client,
                    prefix,
                    prefix_end(prefix),
                    on_snapshot=self._on_snapshot,
                    on_events=self._on_events,
                    name="crony-sessions",
                )
                self._watcher.start()

    def stop(self) -> None:
        """Stop watching."""
        with self._lock:
            watcher, self._watcher = self._watcher, None
            self._missing.clear()
        if watcher is not None:
            watcher.stop(0.5)

    def _on_snapshot(self, kvs: list[KV], revision: int) -> None:
        prefix = self._link.keys.sessions
        self._live = {kv.key.removeprefix(prefix) for kv in kvs}

    def _on_events(self, events: list[Event], revision: int) -> None:
        prefix = self._link.keys.sessions
        live = set(self._live)
        for event in events:
            change = live.add if event.kind == "put" else live.discard
            change(event.key.removeprefix(prefix))
        self._live = live

    @property
    def live(self) -> set[str]:
        """Incarnations that are alive, as far as is known."""
        return self._live

    def dead(self, holders: Iterable[str]) -> tuple[set[str], bool]:
        """Those of these incarnations that are absent for a second by our own clock; whether others may be soon."""
        watcher = self._watcher
        if watcher is None or not watcher.healthy or not watcher.synced(0):
            self._missing.clear()
            return set(), False
        now = time.monotonic()
        absent = {holder for holder in holders if holder not in self._live}
        if len(self._missing) > _MANY:
            self._missing.clear()
        known = absent | (self._missing.keys() - self._live)
        self._missing = {holder: self._missing.get(holder, now) for holder in known}
        dead = {holder for holder in absent if now - self._missing[holder] >= ABSENT_FOR}
        return dead, len(dead) < len(absent)


_links: dict[Options, Link] = {}
_lock = threading.Lock()


def link_to(options: Options) -> Link:
    """This process's link with these options."""
    with _lock:
        link = _links.get(options)
        if link is None:
            link = _links[options] = Link(options)
        return link


def _forked() -> None:
    global _lock
    _lock = threading.Lock()
    _links.clear()


def shut() -> None:
    """This process is done: confirm acks, give leases back. Also called at exit; a forked child shuts only its own."""
    with _lock:
        links = list(_links.values())
        _links.clear()
    for link in links:
        link.shut()


os.register_at_fork(after_in_child=_forked)
atexit.register(shut)

__all__ = ["ABSENT_FOR", "Link", "Sessions", "link_to", "shut"]
