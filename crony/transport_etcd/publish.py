"""Putting messages into queues: each publish is one transaction, however many queues it goes to, and happens once.

Broadcasts to exclusive queues are a single put however many subscribers there are. Nobody bound means no write.
Messages that may be lost (events, replies of remote control) leave the event loop's thread by the outbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown, LeaseGone
from crony.etcd.keys import Keys, is_run_queue
from crony.etcd.txn import PUBLISH_BYTES, Txn, exists, mod
from crony.transport_etcd.delayed import due_in, shortened
from crony.transport_etcd.errors import Refused
from crony.transport_etcd.exchange import Binding, Table, Tables
from crony.transport_etcd.leases import ShortLease
from crony.transport_etcd.max_length import Limits
from crony.transport_etcd.message import LIMIT, encode
from crony.transport_etcd.outbox import Outbox
from crony.transport_etcd.places import STAMP, Stamp, Stamps, later_place, place_at, priority_of, published_at
from crony.transport_etcd.receipts import Receipts

if TYPE_CHECKING:
    from crony.transport_etcd.claims import Delivery
    from crony.transport_etcd.queues import Queues

log = logging.getLogger("crony.transport")

TRANSIENT = 1
SHORT_LIFE = 30.0
"""Seconds that a broadcast stays, at most; at least half of it."""
MOST_QUEUES = 100
"""Most queues that one message goes to."""
_ROOM = PUBLISH_BYTES - 64 * 1024
_KEYS_PER_LEASE = 1000
_PER_LEVEL = 50
_TRIES = 20


@dataclass(slots=True)
class Letter:
    """A message on its way: what is stored of it, and where it shall go."""

    stamp: Stamp
    value: bytes
    priority: int
    exchange: str
    routing_key: str
    transient: bool = False
    due: float = 0.0
    """It waits in etcd until then (epoch seconds); 0: it does not wait."""

    @property
    def place(self) -> str:
        """Its place in each queue it goes to at once."""
        return place_at(self.priority, self.stamp)


class Copy(NamedTuple):
    """One key that a publish puts."""

    key: str
    queue: str = ""
    """The lasting queue whose length grows with it; empty: none."""
    lease: int = 0
    guard: str = ""
    """A key that has to be there, else this copy (and only this one) is not made."""


@dataclass(slots=True)
class Parcel:
    """A letter with its addresses: found in a table of bindings that the transaction compares."""

    letter: Letter
    copies: list[Copy] = field(default_factory=list)
    revision: int = 0
    """Of the exchange's table."""
    unknown: list[str] = field(default_factory=list)
    """Queues whose record may have to be made."""
    reached: int = 0
    """Queues and subscribers it goes to."""


class Publisher:
    """Publishes for one link. Thread-safe. Raises `Refused` and what the client raises."""

    def __init__(
        self, client: Client, keys: Keys, tables: Tables, queues: Queues, *, eta_in_etcd: float = 60.0
    ) -> None:
        """Parts of the link. `eta_in_etcd`: tasks due later than so many seconds wait in etcd; 0: none does."""
        self._client, self._keys, self._tables, self._queues = client, keys, tables, queues
        self._eta_in_etcd = eta_in_etcd
        self.stamps = Stamps(client)
        self.receipts = Receipts(client, keys)
        self.limits = Limits(client, keys, queues)
        self._short = ShortLease(client, SHORT_LIFE, most=_KEYS_PER_LEASE)
        self.outbox = Outbox(self.publish_lossy)

    def publish(
        self, message: Mapping[str, Any], exchange: str, routing_key: str, *, timeout: float | None = None
    ) -> int:
        """Put a prepared message where it belongs; the number of queues (and subscribers) it went to.

        Repeating it with the same stamp changes nothing, whatever became of the message meanwhile.
        """
        letter = self.letter(message, exchange, routing_key)
        parcel = self.address(letter)
        for _ in range(_TRIES):
            if not parcel.copies:
                return 0
            refused = False
            try:
                refused = not self._send(parcel, timeout)
            except LeaseGone:
                self.forget_leases()
            else:
                if not refused:
                    self.sent([parcel])
                    return parcel.reached
            revision, parcel = parcel.revision, self.address(letter, fresh=True)
            if refused and revision == parcel.revision:
                return parcel.reached  # the table was right, so the message is there already
        raise CronyError(f"the bindings of exchange {exchange!r} change too fast", hint="try again")

    def publish_lossy(self, message: Mapping[str, Any], exchange: str, routing_key: str) -> None:
        """As `publish`, for a message that may be lost: an event nobody listens to costs no request at all."""
        if self._tables.seen(exchange).type == "topic" and not self._tables.watched(exchange).matching(routing_key):
            return
        self.publish(message, exchange, routing_key)

    def expired(self, delivery: Delivery) -> bool:
        """Whether a plain message has outlived its own expiration or its queue's message TTL."""
        if is_run_queue(delivery.queue):
            return False
        lives = [self._queues.declared(delivery.queue).ttl]
        expiration = delivery.message["properties"].get("expiration")
        if expiration is not None:
            try:
                lives.append(float(expiration) / 1000)
            except (TypeError, ValueError):
                log.warning("a message in queue %s has an unreadable expiration %r", delivery.queue, expiration)
        known = [life for life in lives if life is not None]
        return bool(known) and self.stamps.now() - published_at(delivery.place) > min(known)

    # -- for batches too -------------------------------------------------------------------------------

    def letter(self, message: Mapping[str, Any], exchange: str, routing_key: str) -> Letter:
        """What will be stored of a message. Raises `Refused` when it is too large."""
        properties: Mapping[str, Any] = message["properties"]
        stamp = properties.get(STAMP) or self.stamps.next()
        if not isinstance(stamp, Stamp):
            stamp = Stamp(stamp)
        transient = properties.get("delivery_mode") == TRANSIENT
        due, stored = 0.0, {key: item for key, item in properties.items() if key != STAMP}
        eta = (message.get("headers") or {}).get("eta")
        if eta and self._eta_in_etcd and not transient:
            now = self.stamps.now()
            due = due_in(eta, now, self._eta_in_etcd)
            if due and "expiration" in stored:
                stored["expiration"] = shortened(stored["expiration"], due - now)
        value = encode({**message, "properties": stored})
        if len(value) > LIMIT:
            raise Refused(
                f"the message has {len(value)} bytes, {LIMIT} are allowed: "
                "put the data elsewhere and send where it is, or use compression"
            )
        return Letter(stamp, value, priority_of(properties), exchange, routing_key, transient, due)

    def address(self, letter: Letter, *, fresh: bool = False) -> Parcel:
        """Where a letter goes; `fresh`: by the bindings as they are now. No copies: nobody wants it.

        Raises `Refused` when it would go to too many queues, or its copies are too large for one transaction.
        """
        if not letter.exchange:
            return self._to_queue(letter)
        table = self._tables.read(letter.exchange) if fresh else self._tables.seen(letter.exchange)
        targets = table.matching(letter.routing_key)
        if not targets and not fresh:
            table = self._tables.read(letter.exchange)
            targets = table.matching(letter.routing_key)
        return self._to_bindings(letter, table, targets)

    def pack(self, parcels: Iterable[Parcel]) -> Txn:
        """One transaction that puts every copy of these parcels, if their tables are as they were read."""
        txn = Txn(max_bytes=PUBLISH_BYTES)
        tables: dict[str, int] = {}
        parts: list[Callable[[Txn], Txn]] = []
        unknown: dict[str, None] = {}
        for parcel in parcels:
            letter = parcel.letter
            if letter.exchange:
                tables[letter.exchange] = parcel.revision
            if not letter.transient and parcel.copies and not parcel.copies[0].guard:
                txn.when(mod(parcel.copies[0].key, 0))
            parts += [_put(copy, letter.value) for copy in parcel.copies]
            unknown.update(dict.fromkeys(parcel.unknown))
        parts += [_nest(self._queues.creation(queue)) for queue in unknown]
        for exchange, revision in tables.items():
            txn.when(mod(self._keys.exchange(exchange), revision))
        if len(parts) < MOST_QUEUES:
            return _fill(txn, parts)
        for start in range(0, len(parts), _PER_LEVEL):
            txn.nest(_fill(Txn(), parts[start : start + _PER_LEVEL]))
        return txn

    def sent(self, parcels: Iterable[Parcel]) -> None:
        """These parcels have arrived: queues with a limit are shortened."""
        lengths: dict[str, int] = {}
        for parcel in parcels:
            for queue in parcel.unknown:
                self._queues.remember(queue)
            for copy in parcel.copies:
                if copy.queue:
                    lengths[copy.queue] = lengths.get(copy.queue, 0) + 1
        for queue, more in lengths.items():
            self.limits.grown(queue, more)

    def forget_leases(self) -> None:
        """One of our leases, or of a queue's owner, turned out to be gone."""
        self._short.forget()
        self.receipts.forget_lease()

    # -- parts -----------------------------------------------------------------------------------------

    def _send(self, parcel: Parcel, timeout: float | None) -> bool:
        """Carry it out; False: a compare does not hold (the table is old, or the message is there already)."""
        letter = parcel.letter
        if not letter.transient:
            return self.receipts.send(letter.stamp, lambda: self.pack([parcel]), timeout=timeout)
        try:
            return self._client.txn(self.pack([parcel]), timeout=timeout).succeeded
        except EtcdUnknown:
            return self._client.txn(self.pack([parcel]), timeout=timeout).succeeded

    def _to_queue(self, letter: Letter) -> Parcel:
        queue = letter.routing_key
        if is_run_queue(queue):
            raise Refused(f"{queue!r} is a run queue: only the scheduling centre puts messages there; use enqueue()")
        record = self._keys.queue_record(queue)
        if letter.transient:
            stored = self._client.get(record)
            if stored is None:
                return Parcel(letter)
            lasting = "" if stored.lease else queue
            copy = Copy(self._keys.message(queue, letter.place), lasting, stored.lease, record)
            return Parcel(letter, [copy], reached=1)
        unknown = [] if self._queues.known(queue) else [queue]
        return Parcel(letter, [self._lasting(letter, queue)], unknown=unknown, reached=1)

    def _to_bindings(self, letter: Letter, table: Table, targets: list[Binding]) -> Parcel:
        parcel = Parcel(letter, revision=table.revision, reached=len(targets))
        if table.type == "fanout":
            listening = len(targets)
            targets = [target for target in targets if not target.exclusive]
            if len(targets) < listening:
                parcel.copies.append(Copy(f"{self._keys.fan(letter.exchange)}{letter.stamp}", lease=self._short.id()))
        for target in targets:
            if letter.transient or target.lease:
                key, guard = self._keys.message(target.queue, letter.place), self._keys.queue_record(target.queue)
                lasting = "" if target.lease else target.queue
                parcel.copies.append(Copy(key, lasting, self._lease(target), guard))
            else:
                parcel.copies.insert(0, self._lasting(letter, target.queue))
        self._check_room(parcel)
        return parcel

    def _lasting(self, letter: Letter, queue: str) -> Copy:
        """The copy for a lasting queue: in it, or waiting for its time."""
        if letter.due:
            place = later_place(letter.priority, letter.due, letter.stamp)
            return Copy(self._keys.delayed_message(letter.due, place, queue))
        return Copy(self._keys.message(queue, letter.place), queue)

    @staticmethod
    def _check_room(parcel: Parcel) -> None:
        letter, count = parcel.letter, len(parcel.copies)
        if count > MOST_QUEUES:
            raise Refused(
                f"the message would go to {count} queues bound to exchange {letter.exchange!r}, {MOST_QUEUES} are "
                "allowed: bind fewer, or use a fan-out exchange with exclusive queues"
            )
        size = sum(len(copy.key) + 2 * len(copy.guard) for copy in parcel.copies) + count * len(letter.value)
        if size > _ROOM and count > 1:
            raise Refused(
                f"the message's {count} copies of {len(letter.value)} bytes do not fit in one transaction of {_ROOM} "
                "bytes: put the data elsewhere and send where it is"
            )

    def _lease(self, target: Binding) -> int:
        """Under which lease a copy lies: none for lasting queues; short where messages expire anyway; its owner's."""
        if not target.lease:
            return 0
        if target.ttl is not None and target.ttl <= SHORT_LIFE / 2:
            return self._short.id()
        return target.lease


def _put(copy: Copy, value: bytes) -> Callable[[Txn], Txn]:
    if not copy.guard:
        return lambda txn: txn.put(copy.key, value, lease=copy.lease)
    each = Txn(max_bytes=PUBLISH_BYTES).when(mod(copy.key, 0), exists(copy.guard))
    return _nest(each.put(copy.key, value, lease=copy.lease))


def _nest(inner: Txn) -> Callable[[Txn], Txn]:
    return lambda txn: txn.nest(inner)


def _fill(txn: Txn, parts: Iterable[Callable[[Txn], Txn]]) -> Txn:
    for part in parts:
        part(txn)
    return txn


__all__ = ["MOST_QUEUES", "SHORT_LIFE", "STAMP", "TRANSIENT", "Copy", "Letter", "Parcel", "Publisher", "published_at"]
