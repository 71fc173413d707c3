"""One listing and one set of watches for all leaders of this process, shared out by shard.

A centre that leads four shards would otherwise read and decode everything four times. The leaders of one feed have
the same number of shards. What a leader gets is whole: first everything at some revision or a later one, then all that
followed that revision. It is of one piece once the streams have told of what was written after the listing.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from crony.beat.sorting import ALL, Sorter
from crony.domain.shards import Part
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.watch import Event, Watcher

GATHER = 0.05
"""Seconds that a listing waits for others who are elected in the same moment."""
PAGE = 4000
"""Pairs of one page of a listing."""
PATIENCE = 30.0
"""Seconds for one page: nothing waits for a listing, and the first page of a million keys may take etcd some."""
PROGRESS = 1.0
"""Seconds after which a leader hears how far a stream is, though nothing in it concerned it."""


_P = TypeVar("_P")


def ahead(items: Iterator[_P]) -> Iterator[_P]:
    """The same items, each fetched by a thread of its own while the one before it is worked on."""
    fetched: queue.Queue[tuple[bool, Any]] = queue.Queue(1)
    over = threading.Event()

    def fetch() -> None:
        last: tuple[bool, Any] = (False, None)
        try:
            for item in items:
                fetched.put((True, item))
                if over.is_set():
                    return
        except BaseException as error:
            last = (False, error)
        fetched.put(last)

    threading.Thread(target=fetch, name="crony-beat-list", daemon=True).start()
    try:
        while True:
            more, item = fetched.get()
            if more:
                yield item
            elif item is not None:
                raise item
            else:
                return
    finally:
        over.set()
        with contextlib.suppress(queue.Empty):
            fetched.get_nowait()


@contextlib.contextmanager
def _no_collecting() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def streams(keys: Keys) -> list[tuple[str, str]]:
    """Three ranges. All of `run/` and the sessions in one, so that each transaction on runs is seen whole (E5)."""
    root = keys.root
    return [
        (f"{root}cmd/", f"{root}done0"),
        (f"{root}job/", f"{root}pool0"),
        (f"{root}run/", f"{root}settled\0"),
    ]


def listed(keys: Keys) -> list[tuple[str, str]]:
    """The same without the names of jobs, which no leader asks for, and which are as many as the jobs."""
    root, (one, (start, end), three) = keys.root, streams(keys)
    return [one, (start, f"{root}name/"), (f"{root}name0", end), three]


class Listener(Protocol):
    """A leader, as its feed sees it."""

    part: Part

    def begin(self, pairs: list[KV]) -> None:
        """Some of what there is; while it joins, from another thread, never two at a time."""

    def hear(self, what: str, stream: int, items: list[Any], revision: int) -> None:
        """What follows, from the threads of the watches: `events`, or a whole range listed anew (`snapshot`)."""


@dataclass(eq=False, slots=True)
class _Joining:
    listener: Listener
    done: threading.Event = field(default_factory=threading.Event)
    revision: int = 0
    error: BaseException | None = None


class Feed:
    """Lists and watches while somebody listens."""

    def __init__(self, client: Client, keys: Keys, shards: int) -> None:
        self._client, self._keys = client, keys
        self.sorter = Sorter(keys, shards)
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._joining: list[_Joining] = []
        self._listeners: tuple[Listener, ...] = ()
        self._watchers: list[Watcher] = []
        self._told: dict[tuple[int, int], float] = {}

    def join(self, listener: Listener) -> int:
        """Give `listener` all there is at a revision, or later, then all that follows that revision; which one it is.

        Those who join while a listing is under way share the next one. Raises as the client; it has not joined then.
        """
        mine = _Joining(listener)
        with self._lock:
            self._joining.append(mine)
        with self._listing:
            if not mine.done.is_set():
                if self.sorter.count > 1:
                    threading.Event().wait(GATHER)
                with self._lock:
                    together, self._joining = self._joining, []
                self._list_for(together)
        if mine.error is not None:
            raise mine.error.with_traceback(None)
        return mine.revision

    def leave(self, listener: Listener) -> None:
        """Tell it nothing more; the last one that leaves ends the watches."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each is not listener)
            watchers = [] if self._listeners else self._watchers
            if watchers:
                self._watchers = []
        for watcher in watchers:
            watcher.stop(0.2)

    def reopen(self) -> None:
        """Have every watch open its stream anew, at another member if there is one: one may be silent."""
        for watcher in self._watchers:
            watcher.reopen()

    def runs_of(self, part: Part) -> tuple[list[KV], int]:
        """The runs of a shard as they are now, and the revision. Raises as the client."""
        page = self._client.list_range(*streams(self._keys)[-1])
        return [kv for kv in page.kvs if self._concerns(part, kv.key, kv.value)], page.revision

    # -- listing -------------------------------------------------------------------------------

    def _list_for(self, together: list[_Joining]) -> None:
        listeners = [each.listener for each in together]
        try:
            # They listen before the listing is read: whatever is newer than this reaches them. So each page may be as
            # new as it is, and a listing that takes longer than etcd keeps old revisions comes to its end.
            self._follow(listeners)
            revision = self._client.range(self._keys.control).revision
            with _no_collecting():  # a million new objects, none of which is garbage
                for start, end in listed(self._keys):
                    for page in ahead(self._client.pages(start, end, limit=PAGE, pinned=False, timeout=PATIENCE)):
                        for listener, pairs in self._shared(listeners, page.kvs):
                            listener.begin(pairs)
            for each in together:
                each.revision = revision
        except BaseException as error:
            for each in together:
                each.error = error
                self.leave(each.listener)
        finally:
            for each in together:
                each.done.set()

    def _follow(self, listeners: Iterable[Listener]) -> None:
        with self._lock:
            self._listeners = (*self._listeners, *listeners)
            if self._watchers:
                return
        revision = self._client.range(self._keys.control).revision
        watchers = [
            Watcher(
                self._client,
                start,
                end,
                on_snapshot=self._snapshot(stream),
                on_events=self._events(stream),
                from_revision=revision + 1,
                name=f"crony-beat-watch-{stream}",
            ).start()
            for stream, (start, end) in enumerate(streams(self._keys))
        ]
        with self._lock:
            self._watchers = watchers

    def _shared(self, listeners: Iterable[Listener], pairs: list[KV]) -> Iterable[tuple[Listener, list[KV]]]:
        if self.sorter.count == 1:
            return [(listener, pairs) for listener in listeners]
        found: list[tuple[Listener, list[KV]]] = [(listener, []) for listener in listeners]
        for kv in pairs:
            owner, first = self._whose(kv.key, kv.value)
            for listener, mine in found:
                if owner in (ALL, listener.part.number) or (first and listener.part.first):
                    mine.append(kv)
        return found

    # -- the watches ---------------------------------------------------------------------------

    def _snapshot(self, stream: int) -> Callable[[list[KV], int], None]:
        def take(pairs: list[KV], revision: int) -> None:
            for listener, mine in self._shared(self._listeners, pairs):
                listener.hear("snapshot", stream, mine, revision)

        return take

    def _events(self, stream: int) -> Callable[[list[Event], int], None]:
        def take(events: list[Event], revision: int) -> None:
            listeners = self._listeners
            if self.sorter.count == 1:
                for listener in listeners:
                    listener.hear("events", stream, events, revision)
                return
            shares: list[list[Event]] = [[] for _ in listeners]
            for event in events:
                self._share(event, listeners, shares)
            now = time.monotonic()
            for listener, mine in zip(listeners, shares, strict=True):
                place = listener.part.number, stream
                if mine or now >= self._told.get(place, 0.0) + PROGRESS:
                    self._told[place] = now
                    listener.hear("events", stream, mine, revision)

        return take

    def _share(self, event: Event, listeners: tuple[Listener, ...], shares: list[list[Event]]) -> None:
        owner, first = self._whose(event.key, event.value if event.kind == "put" else None)
        is_request = event.kind == "put" and event.key.startswith((self._keys.run_in(""), self._keys.backfill("")))
        for listener, mine in zip(listeners, shares, strict=True):
            if owner in (ALL, listener.part.number) or (first and listener.part.first):
                mine.append(event)
            elif is_request:  # it may have been another shard's before: whoever may write there chooses its job
                mine.append(event._replace(kind="delete", value=b""))

    def _concerns(self, part: Part, key: str, value: bytes) -> bool:
        owner, first = self._whose(key, value)
        return owner in (ALL, part.number) or (first and part.first)

    def _whose(self, key: str, value: bytes | None) -> tuple[int, bool]:
        """The shard concerned, and whether shard 0 is too: its leader settles all outcomes."""
        return self.sorter.owner(key, value), key.startswith(self._keys.outs)
