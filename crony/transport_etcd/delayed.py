"""Tasks with an ETA or countdown far ahead wait in etcd, not in a worker's memory.

A publish that is due later than the threshold puts `queue.delayed/<instant>.<place>/<queue>` instead of the message.
One of the processes that consume plain queues holds the leased key `queue.delayed-owner` and, before a message is due,
moves it into its queue: one transaction deletes the one key and puts the other, so it is never lost and never doubled,
whoever else thinks that he is the owner. The worker that gets it waits for the exact moment with its own timer.

What waits does not belong to the queue yet: `purge` leaves it, as it leaves what other workers hold. A message whose
queue is not there any more when its time comes is dropped. A revoked task is discarded by the worker that gets it, as
long as the worker remembers (Celery: three hours, or for ever with `--statedb`); `drop` removes it at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from crony.errors import CronyError
from crony.etcd.client import KV, Client, Page
from crony.etcd.errors import BadRequest
from crony.etcd.keys import Keys, decode, prefix_end
from crony.etcd.txn import MAX_BYTES, PUBLISH_BYTES, Txn, absent, exists, mod
from crony.transport_etcd.message import Undecodable
from crony.transport_etcd.message import decode as read

if TYPE_CHECKING:
    from crony.etcd.session import Session
    from crony.transport_etcd.max_length import Limits
    from crony.transport_etcd.places import Stamps

log = logging.getLogger("crony.transport")

LEAD = 30.0
"""Seconds before its time at which a message comes into its queue, at most; half of a smaller threshold."""
LOOK_EVERY = 5.0
"""Seconds between two looks, at most; a twelfth of a smaller threshold."""
_PER_REQUEST = 30
_PAGE = 60


def due_in(eta: Any, now: float, threshold: float) -> float:
    """When a task with that ETA (ISO 8601; without offset: UTC) leaves for its queue, epoch seconds; 0: at once."""
    try:
        moment = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
        instant = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, AttributeError, TypeError, OverflowError):
        return 0.0  # the worker will say what it thinks of it
    return instant - min(LEAD, threshold / 2) if instant - now > threshold else 0.0


def shortened(expiration: Any, seconds: float) -> Any:
    """A message's `expiration` (milliseconds as text), counted from when it enters its queue so much later."""
    try:
        return str(max(1, int(float(expiration) - seconds * 1000)))
    except (TypeError, ValueError, OverflowError):
        return expiration


class Waiting(NamedTuple):
    """A message that waits for its time."""

    queue: str
    enters_at: float
    """When it comes into its queue, epoch seconds; its task is due up to half a minute later."""
    task: str
    """Name of its task; empty if it is none."""
    id: str
    """Id of its task."""
    eta: str
    key: str
    mod: int


def waiting(client: Client, keys: Keys, queue: str | None = None) -> Iterator[Waiting]:
    """The messages that wait, soonest first, of one queue or of all. Reads page by page."""
    for kv in _pages(client, keys):
        where = _queue_of(kv)
        if where is None or queue not in (None, where):
            continue
        headers: dict[str, Any] = {}
        with contextlib.suppress(Undecodable):
            headers = read(kv.value)["headers"]
        task, ident, eta = (str(headers.get(name) or "") for name in ("task", "id", "eta"))
        yield Waiting(where, _instant(kv, keys), task, ident, eta, kv.key, kv.mod)


def count(client: Client, keys: Keys) -> dict[str, int]:
    """How many messages wait, by queue; queues for which none does are missing."""
    found: dict[str, int] = {}
    for kv in client.list(keys.delayed, keys_only=True).kvs:
        queue = _queue_of(kv)
        if queue is not None:
            found[queue] = found.get(queue, 0) + 1
    return found


def drop(client: Client, keys: Keys, queue: str | None = None, ids: Iterable[str] | None = None) -> int:
    """Remove messages that wait: of one queue, of these task ids, or both; how many were there to be removed."""
    wanted = None if ids is None else set(ids)
    dropped = 0
    for each in list(waiting(client, keys, queue)):
        if wanted is None or each.id in wanted:
            dropped += client.txn(Txn().when(mod(each.key, each.mod)).delete(each.key)).succeeded
    return dropped


class DelayedOwner:
    """Campaigns for `delayed-owner` while this process consumes plain queues, and moves what is due when it has it."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        stamps: Stamps,
        limits: Limits,
        session: Callable[[], Session],
        threshold: float,
    ) -> None:
        """Parts of the link; `session` starts the process's session; `threshold`: of its own publishes, seconds."""
        self._client, self._keys, self._stamps, self._limits = client, keys, stamps, limits
        self._session = session
        self._every = min(LOOK_EVERY, threshold / 12) or LOOK_EVERY  # others may let theirs wait though we do not
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.moved = 0
        """Messages that this process moved into their queues."""

    def start(self) -> None:
        """Campaign, unless that is so already."""
        with self._lock:
            if self._thread is not None:
                return
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stopping,), name="crony-delayed-owner", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Let another process be the owner."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(0.5)

    def _run(self, stopping: threading.Event) -> None:
        failing = False
        try:
            while not stopping.is_set() and not self._client.closed:
                try:
                    if self._owns():
                        self.release()
                    failing = False
                except Exception as error:
                    level = logging.DEBUG if failing else logging.WARNING
                    trace = not isinstance(error, CronyError)
                    log.log(level, "tasks that wait in etcd stay there: %s", error, exc_info=trace)
                    failing = True
                stopping.wait(self._every * random.uniform(0.8, 1.2))
        finally:
            with contextlib.suppress(CronyError):
                session = self._session()
                if session.holds(self._keys.delayed_owner):
                    session.detach(self._keys.delayed_owner)

    def _owns(self) -> bool:
        """Whether we are the owner, now perhaps. Two may think so for a moment: that does no harm."""
        key, session = self._keys.delayed_owner, self._session()
        if not session.alive:
            return False
        if session.holds(key):
            return True
        if self._client.get(key) is not None:
            return False
        who = {"v": 1, "incarnation": session.incarnation, "host": socket.gethostname(), "pid": os.getpid()}
        return session.attach(key, json.dumps(who).encode(), absent(key))

    def release(self) -> int:
        """Move what is due into its queues, soonest first; how many messages."""
        moved = 0
        while True:
            end = f"{self._keys.delayed}{int(self._stamps.now() * 1e6):016x}"
            found = _page(self._client, self._keys.delayed, end).kvs
            if not found:
                return moved
            for part in _portions(found):
                now_in_queues = self._move(part)
                moved += now_in_queues
                self.moved += now_in_queues

    def _move(self, part: list[KV]) -> int:
        txn = Txn(max_bytes=PUBLISH_BYTES)
        lengths: dict[str, int] = {}
        for kv in part:
            queue = _queue_of(kv)
            each = Txn(max_bytes=PUBLISH_BYTES).when(mod(kv.key, kv.mod)).delete(kv.key)
            if queue is None:
                log.error("%s is no message that waits; it is dropped", kv.key)
            else:
                place = kv.key.removeprefix(self._keys.delayed).partition(".")[2].rpartition("/")[0]
                message = self._keys.message(queue, place)
                into = Txn(max_bytes=PUBLISH_BYTES).when(exists(self._keys.queue_record(queue)))
                each.nest(into.put(message, kv.value))
                lengths[queue] = lengths.get(queue, 0) + 1
            txn.nest(each)
        moved = 0
        for kv, nested in zip(part, self._client.txn(txn).responses, strict=True):
            if not nested.succeeded:
                continue
            if len(nested.responses) > 1 and nested.responses[1].succeeded:
                moved += 1
            else:
                log.warning("a task that waited for queue %s is dropped: the queue was deleted", _queue_of(kv))
        for queue, more in lengths.items():
            self._limits.grown(queue, more)
        return moved


def _pages(client: Client, keys: Keys) -> Iterator[KV]:
    start, end = keys.delayed, prefix_end(keys.delayed)
    while True:
        page = _page(client, start, end)
        yield from page.kvs
        if not page.more or not page.kvs:
            return
        start = page.kvs[-1].key + "\0"


def _page(client: Client, start: str, end: str) -> Page:
    """The first pairs of a range: fewer when they are large."""
    limit = _PAGE
    while True:
        try:
            return client.range(start, end, limit=limit)
        except BadRequest as error:
            if "larger than max" not in error.what or limit == 1:
                raise
            limit = max(1, limit // 8)


def _portions(found: Iterable[KV]) -> Iterator[list[KV]]:
    """Parts that fit in one transaction."""
    part: list[KV] = []
    size = 0
    for kv in found:
        cost = len(kv.value) + 1024
        if part and (size + cost > MAX_BYTES or len(part) >= _PER_REQUEST):
            yield part
            part, size = [], 0
        part.append(kv)
        size += cost
    if part:
        yield part


def _instant(kv: KV, keys: Keys) -> float:
    try:
        return int(kv.key.removeprefix(keys.delayed)[:16], 16) / 1e6
    except ValueError:
        return 0.0


def _queue_of(kv: KV) -> str | None:
    _, slash, queue = kv.key.rpartition("/")
    return decode(queue) if slash and queue else None


__all__ = ["LEAD", "LOOK_EVERY", "DelayedOwner", "Waiting", "count", "drop", "due_in", "shortened", "waiting"]
