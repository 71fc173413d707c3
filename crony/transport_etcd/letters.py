"""Dead letters of plain queues: messages set aside with their history, for a person (or a program) to look at.

They lie under `queue.dead/<queue>/`, apart from those of runs, which the leader judges by itself. The value is one line
of JSON about the letter, a newline, and the message exactly as it was stored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from crony.errors import NotFound
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, decode, is_run_queue, prefix_end
from crony.etcd.txn import PUBLISH_BYTES, Txn, absent, mod
from crony.transport_etcd.declared import Declared
from crony.transport_etcd.message import Undecodable, encode
from crony.transport_etcd.message import decode as decode_message

HISTORY = "x-death"
"""Header of a message that was a dead letter before: what happened to it, oldest first."""
_PAGE = 50
_MOST_HISTORY = 20


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter."""

    queue: str
    place: str
    reason: str
    count: int
    """Deliveries before it was set aside."""
    at: float
    """When, epoch seconds."""
    value: bytes
    """The message as it was stored."""
    revision: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """Each time that it became a dead letter, oldest first, this one included: queue, reason, count, time."""

    @property
    def message(self) -> dict[str, Any] | None:
        """The Kombu message; None if it cannot be read."""
        try:
            return decode_message(self.value)
        except Undecodable:
            return None


def seal(queue: str, value: bytes, reason: str, count: int, at: float) -> bytes:
    """The stored letter of a message."""
    try:
        before = list(decode_message(value)["headers"].get(HISTORY) or [])
    except (Undecodable, TypeError):
        before = []
    latest = {"queue": queue, "reason": reason, "count": count, "time": round(at, 3)}
    head = {
        "v": 1,
        "queue": queue,
        "reason": reason,
        "count": count,
        "at": round(at, 3),
        "history": [*before, latest][-_MOST_HISTORY:],
    }
    return json.dumps(head, ensure_ascii=False, separators=(",", ":"), default=str).encode() + b"\n" + value


def unreadable(keys: Keys, queue: str, place: str, value: bytes, count: int, why: str) -> tuple[str, bytes]:
    """Key and value under which a message that cannot be read is set aside; for a run queue as the leader wants it."""
    if is_run_queue(queue):
        return keys.dead(queue, place), value
    return keys.letter(queue, place), seal(queue, value, f"unreadable: {why}", count, time.time())


def read(kv: KV, queue: str, place: str) -> Letter:
    """The letter behind a pair; one that cannot be read says so in its reason and counts as a message as it is."""
    head, _, value = kv.value.partition(b"\n")
    try:
        raw = json.loads(head)
        return Letter(
            queue,
            place,
            str(raw["reason"]),
            int(raw["count"]),
            float(raw["at"]),
            value,
            kv.mod,
            list(raw["history"]),
        )
    except (ValueError, KeyError, TypeError):
        return Letter(queue, place, "the letter cannot be read", 0, 0.0, kv.value, kv.mod)


class Letters:
    """The dead letters of a namespace: listed, given back to their queues, dropped."""

    def __init__(self, client: Client, keys: Keys) -> None:
        """`client`, `keys`: of the namespace."""
        self._client, self._keys = client, keys

    def counts(self) -> dict[str, int]:
        """How many letters each queue has; queues without any are left out. One request for each queue."""
        found: dict[str, int] = {}
        start, end = self._keys.letters, prefix_end(self._keys.letters)
        while True:
            page = self._client.range(start, end, limit=1, keys_only=True)
            if not page.kvs:
                return found
            queue = decode(page.kvs[0].key.removeprefix(self._keys.letters).partition("/")[0])
            prefix = self._keys.letter(queue)
            found[queue] = self._client.count(prefix)
            start = prefix_end(prefix)

    def of(self, queue: str) -> Iterator[Letter]:
        """The letters that a queue has now, in the order their messages had; read in pages, one by one."""
        prefix = start = self._keys.letter(queue)
        upto = 0
        while True:
            page = self._client.range(start, prefix_end(prefix), limit=_PAGE, keys_only=True)
            upto = upto or page.revision
            for kv in page.kvs:
                found = self._client.get(kv.key) if kv.mod <= upto else None
                if found is not None:
                    yield read(found, queue, kv.key.removeprefix(prefix))
            if not page.more or not page.kvs:
                return
            start = page.kvs[-1].key + "\0"

    def get(self, queue: str, place: str) -> Letter:
        """One letter. Raises `NotFound`."""
        found = self._client.get(self._keys.letter(queue, place))
        if found is None:
            raise NotFound(
                f"queue {queue!r} has no dead letter {place!r}", hint=f"`crony queue dead {queue}` lists them"
            )
        return read(found, queue, place)

    def requeue(self, letter: Letter, stamp: str) -> bool:
        """Give the message back to its queue, behind those with its priority, with its history in a header.

        It counts as new: deliveries and time to live start again. `stamp`: its new place, from `Stamps`. False:
        somebody else has dealt with the letter. A queue that is gone is made again, as by a publish.
        """
        place, value = f"{letter.place[:1]}{stamp}", letter.value
        message = letter.message
        if message is not None:
            value = encode({**message, "headers": {**message["headers"], HISTORY: letter.history}})
        key, record = self._keys.letter(letter.queue, letter.place), self._keys.queue_record(letter.queue)
        while True:
            stored = self._client.get(record)
            txn = Txn(max_bytes=PUBLISH_BYTES)
            txn.when(mod(key, letter.revision), mod(record, stored.mod if stored else 0))
            txn.when(absent(self._keys.message(letter.queue, place)))
            if stored is None:
                txn.put(record, Declared(implicit=True).encode())
            lease = stored.lease if stored else 0
            txn.put(self._keys.message(letter.queue, place), value, lease=lease).delete(key)
            if self._client.txn(txn).succeeded:
                return True
            now = self._client.get(key)
            if now is None or now.mod != letter.revision:
                return False

    def drop(self, letter: Letter) -> bool:
        """Delete the letter for good. False: somebody else has dealt with it."""
        key = self._keys.letter(letter.queue, letter.place)
        return self._client.txn(Txn().when(mod(key, letter.revision)).delete(key)).succeeded


__all__ = ["HISTORY", "Letter", "Letters", "read", "seal", "unreadable"]
