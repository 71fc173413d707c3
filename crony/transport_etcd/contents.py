"""What lies in a queue: counted, emptied, relieved of what has expired. Bodies are not read where keys will do."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from crony.etcd.client import KV, Client
from crony.etcd.errors import Compacted
from crony.etcd.keys import Keys, is_run_queue, prefix_end
from crony.etcd.keys import decode as decode_segment
from crony.etcd.txn import Compare, Txn, mod, vacant, version
from crony.transport_etcd.burial import EXPIRED, Burial
from crony.transport_etcd.claims import Delivery
from crony.transport_etcd.message import Undecodable, decode
from crony.transport_etcd.publish import Publisher
from crony.transport_etcd.queue import Held, read_claim
from crony.transport_etcd.queues import Queues

log = logging.getLogger("crony.transport")

_PAGE = 500
_PER_REQUEST = 40
_HEAD = 20


class Counts(NamedTuple):
    """Messages of a queue at one revision."""

    ready: int
    """Nobody alive holds them."""
    held: int
    """Claimed by a live process, not settled."""


class Free(NamedTuple):
    """A message that nobody alive holds: its place and revision, its claim's (0: none), a dead holder if it has one."""

    place: str
    mod: int
    claim: Held | None

    def conditions(self, keys: Keys, queue: str) -> list[Compare]:
        """What must hold for it to be still so."""
        claim = self.claim
        held = [mod(keys.claim(queue, self.place), claim.mod if claim else 0)]
        if claim is not None and claim.holder:
            held.append(version(keys.session(claim.holder), 0))
        return held


class Contents:
    """The contents of the queues of a namespace. Thread-safe."""

    def __init__(self, client: Client, keys: Keys, queues: Queues, publisher: Publisher, burial: Burial) -> None:
        """Parts of the link."""
        self._client, self._keys, self._queues = client, keys, queues
        self._publisher, self._burial = publisher, burial

    def size(self, queue: str) -> int:
        """Ready messages, after those at the head that have expired are dropped."""
        ready = self.counts(queue).ready
        if ready and not is_run_queue(queue) and self.expire_head(queue):
            ready = self.counts(queue).ready
        return ready

    def counts(self, queue: str) -> Counts:
        """How the queue stands at one revision: two requests, a third while something is claimed."""
        messages = self._keys.messages(queue)
        while True:
            page = self._client.range(messages, prefix_end(messages), count_only=True)
            if not page.count:
                return Counts(0, 0)
            try:
                pairs = self._client.list(self._keys.claims(queue), revision=page.revision).kvs
            except Compacted:
                continue
            held = [claim for claim in map(read_claim, pairs) if claim.holder]
            live = self._live() if held else set()
            taken = sum(1 for claim in held if claim.holder in live or is_run_queue(queue))
            return Counts(max(0, page.count - taken), taken)

    def purge(self, queue: str) -> int:
        """Delete every ready message; how many. A run queue is left alone (N10)."""
        if is_run_queue(queue):
            log.warning("purge of run queue %s ignored: cancel its runs instead", queue)
            return 0
        prefix, purged, start = self._keys.messages(queue), 0, self._keys.messages(queue)
        while True:
            page = self._client.range(start, prefix_end(prefix), limit=_PAGE, keys_only=True)
            if not page.kvs:
                return purged
            first, last = page.kvs[0].key, page.kvs[-1].key + "\0"
            result = self._client.txn(Txn().when(vacant(*self._claims_of(queue, first, last))).clear(first, last))
            purged += result.responses[0] if result.succeeded else self.drop(queue, self.free(queue, page.kvs))
            if not page.more:
                return purged
            start = last

    def free(self, queue: str, messages: Iterable[KV]) -> list[Free]:
        """Those of these messages (in order) that nobody alive holds."""
        pairs = list(messages)
        if not pairs:
            return []
        prefix, claims_prefix = self._keys.messages(queue), self._keys.claims(queue)
        claims = self._client.list_range(*self._claims_of(queue, pairs[0].key, pairs[-1].key + "\0")).kvs
        held = {kv.key.removeprefix(claims_prefix): read_claim(kv) for kv in claims}
        live = self._live() if any(claim.holder for claim in held.values()) else set()
        found = []
        for kv in pairs:
            place = kv.key.removeprefix(prefix)
            claim = held.get(place)
            if claim is None or not claim.holder or claim.holder not in live:
                found.append(Free(place, kv.mod, claim))
        return found

    def drop(self, queue: str, free: list[Free]) -> int:
        """Delete free messages; how many still were."""
        dropped = 0
        for at in range(0, len(free), _PER_REQUEST):
            txn = Txn()
            for each in free[at : at + _PER_REQUEST]:
                message = self._keys.message(queue, each.place)
                part = Txn().when(mod(message, each.mod), *each.conditions(self._keys, queue))
                txn.nest(part.delete(message).delete(self._keys.claim(queue, each.place)))
            dropped += sum(nested.succeeded for nested in self._client.txn(txn).responses)
        return dropped

    # -- expiry --------------------------------------------------------------------------------------

    def expire_head(self, queue: str, most: int = 1000) -> int:
        """Deal with expired messages at the head of the queue, up to the first that is not; how many."""
        done, prefix = 0, self._keys.messages(queue)
        start = prefix
        while done < most:
            page = self._client.range(start, prefix_end(prefix), limit=_HEAD, keys_only=True)
            gone: list[Free] = []
            for each in self.free(queue, page.kvs):
                if not self._outlived(queue, each.place):
                    return done + self._expire(queue, gone)
                gone.append(each)
            done += self._expire(queue, gone)
            if not page.more or not page.kvs:
                return done
            start = page.kvs[-1].key + "\0"
        return done

    def expire_aged(self, queue: str, ttl: float) -> int:
        """Deal with every message older than the queue's TTL, wherever it lies; how many. Reads keys only."""
        prefix, done = self._keys.messages(queue), 0
        before = int((time.time() + self._publisher.stamps.offset - ttl) * 1e6)
        for priority in "0123456789":
            start, end = f"{prefix}{priority}", f"{prefix}{priority}{max(0, before):016x}"
            while True:
                page = self._client.range(start, end, limit=_PAGE, keys_only=True)
                done += self._expire(queue, self.free(queue, page.kvs))
                if not page.more or not page.kvs:
                    break
                start = page.kvs[-1].key + "\0"
        return done

    def _expire(self, queue: str, free: list[Free]) -> int:
        if not self._queues.learn(queue).keeps_dead:
            return self.drop(queue, free)
        moved = 0
        for each in free:
            count = each.claim.deliveries if each.claim else 0
            moved += self._burial.bury(queue, each.place, EXPIRED, count, *each.conditions(self._keys, queue))
        return moved

    def _outlived(self, queue: str, place: str) -> bool:
        stored = self._client.get(self._keys.message(queue, place))
        if stored is None:
            return False
        self._queues.learn(queue)
        try:
            return self._publisher.expired(Delivery(queue, place, 0, 0, "", decode(stored.value), b""))
        except Undecodable:
            return False

    # -- parts ---------------------------------------------------------------------------------------

    def _claims_of(self, queue: str, first: str, last: str) -> tuple[str, str]:
        messages, claims = self._keys.messages(queue), self._keys.claims(queue)
        return claims + first.removeprefix(messages), claims + last.removeprefix(messages)

    def _live(self) -> set[str]:
        prefix = self._keys.sessions
        return {kv.key.removeprefix(prefix) for kv in self._client.list(prefix, keys_only=True).kvs} | {"?"}


def names_under(client: Client, prefix: str) -> Iterator[str]:
    """Queues that have a key under a prefix: one small request each, however much they hold."""
    start, end = prefix, prefix_end(prefix)
    while True:
        page = client.range(start, end, limit=1, keys_only=True)
        if not page.kvs:
            return
        segment = page.kvs[0].key.removeprefix(prefix).partition("/")[0]
        yield decode_segment(segment)
        start = prefix_end(f"{prefix}{segment}/")


__all__ = ["Contents", "Counts", "Free", "names_under"]
