"""`x-max-length`: a queue keeps its newest messages; what is too much is dropped at its head, as RabbitMQ does.

Whoever publishes looks after the length. He counts, and while the queue is far from its limit he publishes a share of
what is free (an eighth) before he counts again, so a queue that is not full costs next to nothing; a full one costs
about four requests more for each publish. Messages that somebody holds do not count and are not dropped.

So the length is exact after each publish of a single publisher. Several at once may overshoot by what they publish
between two counts: each by an eighth of what was free, at a full queue by one message, until the next publish.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.txn import Txn, mod
from crony.transport_etcd.errors import Refused
from crony.transport_etcd.queue import read_claim

if TYPE_CHECKING:
    from crony.transport_etcd.queues import Queues

log = logging.getLogger("crony.transport")

LENGTH, OVERFLOW, BYTES = "x-max-length", "x-overflow", "x-max-length-bytes"
_KNOWN_FOR = 60.0
_SHARE = 8
_PAGE = 500
_PER_REQUEST = 50


def check(queue: str, arguments: Mapping[str, Any]) -> None:
    """Whether the limits asked for a queue are of a kind that is built. Raises `Refused` naming the argument."""
    if arguments.get(BYTES) is not None:
        raise Refused(f"queue {queue!r}: {BYTES} is not supported: use {LENGTH}")
    overflow = arguments.get(OVERFLOW)
    if overflow not in (None, "drop-head"):
        raise Refused(f"queue {queue!r}: {OVERFLOW} {overflow!r} is not supported: leave it out (drop-head)")


def limit_in(arguments: Mapping[str, Any]) -> int | None:
    """The most ready messages that these arguments allow; None: no limit."""
    length = arguments.get(LENGTH)
    return int(length) if isinstance(length, (int, float)) and not isinstance(length, bool) and length >= 0 else None


class Limits:
    """Keeps the queues that this process publishes to at their length. Thread-safe."""

    def __init__(self, client: Client, keys: Keys, queues: Queues) -> None:
        """Parts of the link."""
        self._client, self._keys, self._queues = client, keys, queues
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int | None, float]] = {}
        self._free: dict[str, int] = {}
        self.dropped = 0
        """Messages dropped by this process so far."""

    def grown(self, queue: str, more: int = 1) -> None:
        """So many messages came into the queue: drop what is too much. Trouble is logged: they have arrived anyway."""
        known = self._known.get(queue)
        if known is not None and known[0] is None and known[1] > time.monotonic():
            return
        try:
            limit = self._limit(queue)
            if limit is None:
                return
            with self._lock:
                free = self._free.get(queue, 0) - more
                self._free[queue] = free
            if free < 0:
                free = self._shorten(queue, limit)
                with self._lock:
                    self._free[queue] = free // _SHARE
        except CronyError as error:
            log.warning("queue %s may be longer than its limit: %s", queue, error)

    def _limit(self, queue: str) -> int | None:
        """The limit of a queue, declared here or elsewhere; looked up again after a minute."""
        declared = limit_in(self._queues.declared(queue).arguments)
        if declared is not None:
            return declared
        known = self._known.get(queue)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        limit: int | None = None
        record = self._client.get(self._keys.queue_record(queue))
        if record is not None:
            try:
                limit = limit_in(json.loads(record.value)["arguments"])
            except (ValueError, KeyError, TypeError, AttributeError):
                limit = None
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[queue] = (limit, time.monotonic() + _KNOWN_FOR)
        return limit

    def _shorten(self, queue: str, limit: int) -> int:
        """Drop the oldest ready messages above the limit; how many more there is room for.

        Everything is read at one revision: who drops what was too much then, drops nothing that another has made
        room for meanwhile.
        """
        prefix, claims_prefix = self._keys.messages(queue), self._keys.claims(queue)
        counted = self._client.range(prefix, prefix_end(prefix), count_only=True)
        total, at = counted.count, counted.revision
        if total <= limit:
            return limit - total
        held_now = self._client.list(claims_prefix, revision=at).kvs
        claims = {kv.key.removeprefix(claims_prefix): read_claim(kv) for kv in held_now}
        held = sum(1 for claim in claims.values() if claim.holder)
        ready = max(0, total - held)
        start, excess = prefix, ready - limit
        while excess > 0:
            most = min(_PAGE, excess + held)
            page = self._client.range(start, prefix_end(prefix), limit=most, revision=at, keys_only=True)
            free = []
            for kv in page.kvs:
                claim = claims.get(kv.key.removeprefix(prefix))
                if claim is None or not claim.holder:
                    free.append((kv.key.removeprefix(prefix), kv.mod, claim.mod if claim else 0))
            excess -= self._drop(queue, free[:excess])
            if not page.more or not page.kvs:
                break
            start = page.kvs[-1].key + "\0"
        return max(0, limit - ready)

    def _drop(self, queue: str, free: list[tuple[str, int, int]]) -> int:
        """Delete messages that are as they were seen; how many are gone: somebody else may be dropping too."""
        for at in range(0, len(free), _PER_REQUEST):
            txn = Txn()
            for place, seen, claim in free[at : at + _PER_REQUEST]:
                message, hold = self._keys.message(queue, place), self._keys.claim(queue, place)
                txn.nest(Txn().when(mod(message, seen), mod(hold, claim)).delete(message).delete(hold))
            self.dropped += sum(nested.succeeded for nested in self._client.txn(txn).responses)
        return len(free)


__all__ = ["BYTES", "LENGTH", "OVERFLOW", "Limits", "check", "limit_in"]
