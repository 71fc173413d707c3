"""What keeps a consumer's view current: of a queue (a window from its head), of the broadcasts of an exchange."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from crony.etcd.client import KV, Page
from crony.etcd.keys import prefix_end
from crony.etcd.watch import Event, Watcher
from crony.transport_etcd.contention import TURN, Contention, turns
from crony.transport_etcd.link import Link
from crony.transport_etcd.message import Undecodable, decode
from crony.transport_etcd.queue import READY_LIMIT, Candidate, Window, read_claim

log = logging.getLogger("crony.transport")

PAGE = 500
_COMPANY = 5.0
"""How long somebody who made a claim counts as somebody who may make another, seconds."""


class _QueueWatcher(Watcher):
    """A watch whose listing is the reader's: pages of keys from the head, not everything with its values."""

    def __init__(self, load: Callable[[], int], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, on_snapshot=lambda pairs, revision: None, **kwargs)
        self._load = load

    def _snapshot(self) -> None:
        self._revision, self._listed = self._load(), True


class QueueReader:
    """The window of one queue, kept current by one watch stream over its messages and claims."""

    def __init__(self, link: Link, queue: str, wake: Callable[[], None]) -> None:
        """`wake` is called, from the watch's thread, when something may have become ready."""
        self.queue = queue
        self._link, self._wake = link, wake
        self._messages, self._claims = link.keys.messages(queue), link.keys.claims(queue)
        self._window = Window()
        self.contention = Contention()
        self._claimants: dict[str, float] = {}
        self._lock = threading.Lock()
        self._replay: list[Event] | None = None
        self._loaded = False
        start = link.keys.queue(queue)
        self._watcher = _QueueWatcher(
            self._load,
            link.client,
            start,
            prefix_end(start),
            on_events=self._on_events,
            name=f"crony-queue-{queue}",
        )

    def start(self) -> None:
        """Begin to follow the queue."""
        self._watcher.start()

    def stop(self) -> None:
        """Stop following it."""
        self._watcher.stop(0.05)

    # -- for the pump --------------------------------------------------------------------------------

    def take(self, most: int) -> list[Candidate]:
        """Up to `most` messages that look ready, best first. Fills the window again when it is drained."""
        if not self._loaded:
            return []
        with self._lock:
            found = self._window.take(most, self.contention)
            drained = not found and self._window.needs_filling
        if drained:
            self._refill()
            with self._lock:
                found = self._window.take(most, self.contention)
        return found

    def take_in_turn(self, most: int, me: str, others: Collection[str], stop: threading.Event) -> list[Candidate]:
        """As `take`, when others are after the same few messages: each takes those whose turn is theirs.

        Waits some milliseconds for the others' turns to pass.
        """
        crowd = 2 * len(others)
        with self._lock:
            few = self._window.head(crowd + 1)
        if not self.contention.spread or not few or len(few) > crowd or len(others) < 2:
            return self.take(most)
        waits = turns(few, me, others)
        soonest = min(waits)
        if soonest:
            stop.wait(soonest * TURN)
        mine = [place for place, wait in zip(few, waits, strict=True) if wait == soonest]
        with self._lock:
            return self._window.take_these(mine[:most])

    def alone(self, me: str) -> bool:
        """Whether no other incarnation than `me`, and no other consumer of this process, claims from the queue."""
        if self._link.presence.count(self.queue) > 1:
            return False
        since = time.monotonic() - _COMPANY
        with self._lock:
            self._claimants = {name: at for name, at in self._claimants.items() if at > since}
            return not self._claimants.keys() - {me}

    @property
    def first(self) -> str:
        """Place of the first message that looks ready; behind all places when there is none, before them when the
        window has to be filled to tell."""
        with self._lock:
            return next(iter(self._window.head(1)), "" if self._window.needs_filling else "~")

    @property
    def ready(self) -> int:
        """How many messages look ready, of those remembered."""
        return len(self._window)

    def take_orphans(self, dead: set[str], most: int) -> list[Candidate]:
        """Up to `most` messages held by dead incarnations."""
        with self._lock:
            return self._window.take_orphans(dead, most)

    def holders(self) -> set[str]:
        """Incarnations that hold claims of this queue."""
        with self._lock:
            return self._window.holders()

    def give_back(self, candidate: Candidate) -> None:
        """It was not tried to claim it after all."""
        with self._lock:
            self._window.give_back(candidate)

    def claimed(self, candidates: Iterable[tuple[Candidate, int]], incarnation: str) -> None:
        """These are ours; each with its fence."""
        with self._lock:
            for candidate, fence in candidates:
                self._window.claimed(candidate, fence, incarnation)

    def released(self, place: str, revision: int, deliveries: int) -> None:
        """We gave it back."""
        with self._lock:
            self._window.released(place, revision, deliveries)

    # -- listing and watching --------------------------------------------------------------------------

    def _load(self) -> int:
        """Claims and the head of the queue at one revision (in the watch's thread)."""
        client = self._link.client
        first = self._page(self._messages, 0)
        claims = client.list(self._claims, revision=first.revision).kvs
        held = [(kv.key.removeprefix(self._claims), read_claim(kv)) for kv in claims]
        with self._lock:
            self._window.set_claims(held)
        self._fill(first)
        self._loaded = True
        self._wake()
        return first.revision

    def _refill(self) -> None:
        """The head of the queue as it is now (in the pump's thread), while events go on coming in."""
        with self._lock:
            self._replay = []
        try:
            self._fill(self._page(self._messages, 0))
        finally:
            with self._lock:
                self._replay = None

    def _fill(self, page: Page) -> None:
        """Pages from the head until the window is full; events that came meanwhile are applied on top."""
        revision, pages, free = page.revision, [page], 0
        while True:
            with self._lock:
                claims = self._window.claims
                free += sum(1 for kv in page.kvs if not _held(claims.get(kv.key.removeprefix(self._messages))))
            if not page.more or not page.kvs or free >= READY_LIMIT:
                break
            page = self._page(page.kvs[-1].key + "\0", revision)
            pages.append(page)
        with self._lock:
            window = self._window
            if revision < window.base:
                return  # a newer listing overtook this one; the watch goes on from that
            window.begin(revision)
            for number, part in enumerate(pages, 1):
                places = [(kv.key.removeprefix(self._messages), kv.mod) for kv in part.kvs]
                window.extend(places, last=number == len(pages) and not part.more)
            for event in self._replay or ():
                self._message(event)

    def _page(self, start: str, revision: int) -> Page:
        return self._link.client.range(start, prefix_end(self._messages), limit=PAGE, revision=revision, keys_only=True)

    def _on_events(self, events: list[Event], revision: int) -> None:
        with self._lock:
            for event in events:
                if event.key.startswith(self._messages):
                    self._message(event)
                    if self._replay is not None:
                        self._replay.append(event)
                elif event.key.startswith(self._claims):
                    self._claim(event)
            ready = len(self._window) or self._window.needs_filling
        if ready:
            self._wake()

    def _message(self, event: Event) -> None:
        place = event.key.removeprefix(self._messages)
        if event.kind == "put":
            self._window.message_put(place, event.mod, event.value)
        else:
            self._window.message_gone(place, event.mod)

    def _claim(self, event: Event) -> None:
        place = event.key.removeprefix(self._claims)
        if event.kind == "put":
            known = self._window.claims.get(place)
            if known is not None and known.mod >= event.mod:
                return  # our own, known since etcd answered
            held = read_claim(_pair(event))
            if held.holder:
                self._claimants[held.holder] = time.monotonic()
            self._window.claim_put(place, held)
        else:
            self._window.claim_gone(place)


class BroadcastReader:
    """The broadcasts of one fan-out exchange, from the revision at which a queue was bound to it."""

    def __init__(
        self, link: Link, queue: str, exchange: str, since: int, deliver: Callable[[str, dict[str, Any]], None]
    ) -> None:
        """`deliver(place, message)` is called, from the watch's thread, for each broadcast in order."""
        self._link, self._queue, self._exchange, self._deliver = link, queue, exchange, deliver
        self._since = since
        self._prefix = link.keys.fan(exchange)
        self._watcher = Watcher(
            link.client,
            self._prefix,
            prefix_end(self._prefix),
            on_snapshot=self._on_snapshot,
            on_events=self._on_events,
            from_revision=since + 1,
            name=f"crony-broadcasts-{exchange}",
        )

    def start(self) -> None:
        """Begin to listen."""
        self._watcher.start()

    def stop(self) -> None:
        """Stop listening."""
        self._watcher.stop(0.05)

    def _on_snapshot(self, kvs: list[KV], revision: int) -> None:
        log.warning("broadcasts of exchange %s since revision %d are compacted", self._exchange, self._since)
        for kv in sorted(kvs, key=lambda kv: (kv.mod, kv.key)):
            if kv.mod > self._since:
                self._one(kv.key, kv.value)
        self._listened(revision)

    def _on_events(self, events: list[Event], revision: int) -> None:
        for event in events:
            if event.kind == "put":
                self._one(event.key, event.value)
        self._listened(revision)

    def _one(self, key: str, value: bytes) -> None:
        try:
            message = decode(value)
        except Undecodable as error:
            log.error("a broadcast of exchange %s was dropped: %s", self._exchange, error)
        else:
            self._deliver(key.removeprefix(self._prefix), message)

    def _listened(self, revision: int) -> None:
        self._since = revision
        self._link.queues.listened(self._queue, self._exchange, revision)


def _held(claim: Any) -> bool:
    return claim is not None and bool(claim.holder)


def _pair(event: Event) -> KV:
    return KV(event.key, event.value, event.create, event.mod, event.version, event.lease)


__all__ = ["PAGE", "BroadcastReader", "QueueReader"]
