"""Upkeep: what is not used any more goes. One process of those that consume looks after the queues of all.

Each step compares what it has seen, so two processes that both believe it is their turn do no harm; the leased key only
spares them the work. Exclusive queues are each process's own affair: nobody else can know that they are used.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from crony.errors import CronyError
from crony.etcd.keys import decode
from crony.etcd.txn import absent
from crony.transport_etcd.contents import names_under
from crony.transport_etcd.declared import Declared

if TYPE_CHECKING:
    from crony.transport_etcd.link import Link

log = logging.getLogger("crony.transport")


class Upkeep:
    """Runs in every process that consumes; works in one of them at a time."""

    tick = 1.0
    """How often the process's own exclusive queues are looked at, seconds."""
    unused_every = 5.0
    """How often unused queues are looked for; less often where that takes long."""
    contents_every = 30.0
    """How often the contents of all queues are looked at; less often where that takes long."""
    grace = 30.0
    """How long an auto-delete queue stays whose last consumer did not delete it (it crashed), seconds."""
    never_consumed = 3600.0
    """How long an auto-delete queue stays that never had a consumer, seconds. (RabbitMQ keeps it for ever.)"""

    def __init__(self, link: Link) -> None:
        """`link`: of this process."""
        self._link = link
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unused: dict[str, tuple[int, float]] = {}
        self._orphans: set[str] = set()
        self.deleted = 0
        """Queues deleted because nobody used them."""
        self.expired = 0
        """Messages dealt with because they had expired."""

    def start(self) -> None:
        """Begin, unless that is so already. Needs the link's session."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stop = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._stop,), name="crony-upkeep", daemon=True)
                self._thread.start()

    def stop(self, timeout: float = 0.5) -> None:
        """End, and let another process have its turn. Never raises."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self, stop: threading.Event) -> None:
        unused_at = time.monotonic() + self.unused_every * random.uniform(0.5, 1.0)
        contents_at = time.monotonic() + self.contents_every * random.uniform(0.5, 1.0)
        while not stop.wait(self.tick):
            if self._link.client.closed:
                return
            try:
                self.exclusive()
                began = time.monotonic()
                if began < min(unused_at, contents_at):
                    continue
                mine = self.my_turn()
                if began >= unused_at:
                    if mine:
                        self.unused()
                    unused_at = time.monotonic() + max(self.unused_every, 50 * (time.monotonic() - began))
                if began >= contents_at:
                    began = time.monotonic()
                    if mine:
                        self.contents(stop)
                    contents_at = time.monotonic() + max(self.contents_every, 20 * (time.monotonic() - began))
            except CronyError as error:
                log.debug("upkeep waits for etcd: %s", error)
            except Exception:
                log.exception("upkeep failed")
        with contextlib.suppress(CronyError):
            session = self._link.session_or_none
            if session is not None and session.holds(self._link.keys.upkeep):
                session.detach(self._link.keys.upkeep)

    def my_turn(self) -> bool:
        """Whether this process looks after the queues of all."""
        session, key = self._link.session_or_none, self._link.keys.upkeep
        if session is None or not session.alive:
            return False
        if session.holds(key):
            stored = self._link.client.get(key)
            return stored is not None and stored.lease == session.lease
        return session.attach(key, b"{}", guard=absent(key))

    # -- what is done ------------------------------------------------------------------------------------

    def exclusive(self) -> None:
        """Delete exclusive queues of ours that have been unused for as long as they may be."""
        link = self._link
        for queue in link.queues.idle(link.presence.queues):
            link.queues.delete(queue, link.session_or_none)
            self.deleted += 1

    def unused(self) -> None:
        """Delete queues of all that have been unused for as long as they may be, by our own clock."""
        link, now = self._link, time.monotonic()
        volatile = {name: (each, seen) for name, each, seen in self._records() if each.volatile}
        consumers = self._consumers() if volatile else Counter()
        for name in [name for name in self._unused if name not in volatile or consumers[name]]:
            del self._unused[name]
        for name, (declared, revision) in volatile.items():
            if consumers[name]:
                continue
            seen, since = self._unused.get(name, (0, now))
            if seen != revision:
                since = now
            self._unused[name] = revision, since
            if now - since < self._life(declared):
                continue
            if link.queues.delete(name, None, if_unused=True, seen=revision) is not None:
                self.deleted += 1
                log.info("queue %s was deleted: nobody used it for %.0f s", name, now - since)
            self._unused.pop(name, None)

    def _life(self, declared: Declared) -> float:
        kept = self.grace if declared.consumed else self.never_consumed
        lives = [declared.expires] if declared.expires is not None else []
        if declared.auto_delete and (declared.consumed or not lives):
            lives.append(kept)
        return min(lives)

    def contents(self, stop: threading.Event | None = None) -> None:
        """Deal with expired messages; make a record for messages whose queue has none, so that they are seen."""
        link = self._link
        declared = {name: each for name, each, _ in self._records()}
        orphans: set[str] = set()
        for name in names_under(link.client, link.keys.plain_queues):
            if stop is not None and stop.is_set():
                return
            known = declared.get(name)
            if known is None:
                orphans.add(name)
                if name in self._orphans and link.client.count(link.keys.messages(name)):
                    link.client.txn(link.queues.creation(name))
            elif known.ttl is not None:
                self.expired += link.contents.expire_aged(name, known.ttl)
            else:
                self.expired += link.contents.expire_head(name)
        self._orphans = orphans

    # -- looking ---------------------------------------------------------------------------------------

    def _records(self) -> Iterator[tuple[str, Declared, int]]:
        prefix = self._link.keys.queue_records
        for kv in self._link.client.list(prefix).kvs:
            yield decode(kv.key.removeprefix(prefix)), Declared.read(kv.value), kv.mod

    def _consumers(self) -> Counter[str]:
        prefix = self._link.keys.consumers
        pairs = self._link.client.list(prefix, keys_only=True).kvs
        return Counter(decode(kv.key.removeprefix(prefix).partition("/")[0]) for kv in pairs)


__all__ = ["Upkeep"]
