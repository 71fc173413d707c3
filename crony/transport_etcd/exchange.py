"""Exchanges and bindings in etcd: who is bound to what, and where a message goes.

An exchange's record is put again whenever one of its bindings is made or removed, so its revision stands for the
whole table: a publish compares it and is refused when the table it was routed by is old. Bindings of exclusive
queues are leased; when they run out the record stays, but then the queue's own record is gone, and that is compared.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kombu.transport.virtual.exchange import TopicExchange

from crony.errors import CronyError
from crony.etcd.client import KV, Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys, decode, prefix_end
from crony.etcd.txn import Txn, absent, mod, vacant
from crony.etcd.watch import Event, Watcher
from crony.transport_etcd.errors import Refused, not_equivalent

TYPES = frozenset({"direct", "topic", "fanout"})
_pattern: Callable[[str], str] = TopicExchange(None).key_to_pattern  # type: ignore[no-untyped-call]
_TRIES = 20
_DOUBTS = 3
"""Answers of one change that may be lost."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue bound to an exchange."""

    queue: str
    routing_key: str
    exclusive: bool = False
    """The queue lives and dies with its owner: it is leased, and reads broadcasts from the exchange itself."""
    ttl: float | None = None
    """The queue's message TTL, seconds."""
    lease: int = 0
    """The owner's lease."""

    def encode(self) -> bytes:
        """Stored form; the lease is that of the key."""
        record = {"queue": self.queue, "routing_key": self.routing_key, "exclusive": self.exclusive, "ttl": self.ttl}
        return json.dumps({"v": 1, **record}, separators=(",", ":")).encode()

    @classmethod
    def read(cls, kv: KV) -> Binding | None:
        """The binding behind a pair; None when it is not one."""
        try:
            raw = json.loads(kv.value)
            return cls(raw["queue"], raw["routing_key"], bool(raw.get("exclusive")), raw.get("ttl"), kv.lease)
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was declared of an exchange."""

    type: str = "direct"
    durable: bool = False
    auto_delete: bool = False
    arguments: str = "{}"
    """Canonical JSON."""

    def encode(self) -> bytes:
        """Stored form."""
        return json.dumps(
            {
                "v": 1,
                "type": self.type,
                "durable": self.durable,
                "auto_delete": self.auto_delete,
                "arguments": json.loads(self.arguments),
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def read(cls, value: bytes) -> Exchange:
        """What is stored; an unreadable record counts as a direct exchange."""
        try:
            raw = json.loads(value)
            return cls(raw["type"], raw["durable"], raw["auto_delete"], canonical(raw["arguments"]))
        except (ValueError, KeyError, TypeError):
            return cls()


def canonical(arguments: Any) -> str:
    """Declared arguments in a form that compares."""
    return json.dumps(arguments or {}, sort_keys=True, separators=(",", ":"), default=str)


@dataclass(frozen=True)
class Table:
    """An exchange as last read: revision of its record (0: never declared), type, bindings."""

    revision: int
    type: str
    bindings: tuple[Binding, ...]

    def matching(self, routing_key: str) -> list[Binding]:
        """Bindings that a message with this routing key goes to, one for each queue. Costs no more with more of them,
        but for those of a topic exchange with a wildcard."""
        if self.type == "fanout":
            chosen: Iterable[Binding] = self.bindings
        elif self.type != "topic":
            chosen = self._by_key.get(routing_key, ())
        else:
            patterns = (each for each in self._patterns if _compile(each.routing_key).match(routing_key))
            chosen = (*self._by_key.get(routing_key, ()), *patterns)
        found: dict[str, Binding] = {}
        for binding in chosen:
            found.setdefault(binding.queue, binding)
        return list(found.values())

    @cached_property
    def _by_key(self) -> dict[str, list[Binding]]:
        found: dict[str, list[Binding]] = {}
        for binding in self.bindings:
            found.setdefault(binding.routing_key, []).append(binding)
        return found

    @cached_property
    def _patterns(self) -> list[Binding]:
        return [each for each in self.bindings if "*" in each.routing_key or "#" in each.routing_key]


_compiled: dict[str, re.Pattern[str]] = {}


def _compile(bound: str) -> re.Pattern[str]:
    pattern = _compiled.get(bound)
    if pattern is None:
        if len(_compiled) > 10_000:
            _compiled.clear()
        pattern = _compiled[bound] = re.compile(_pattern(bound))
    return pattern


class Tables:
    """The exchanges of a namespace: declared, bound, unbound, read. Thread-safe."""

    def __init__(self, client: Client, keys: Keys) -> None:
        """`client`, `keys`: of the link."""
        self._client, self._keys = client, keys
        self._lock = threading.Lock()
        self._seen: dict[str, Table] = {}
        self._declared: dict[str, Exchange] = {}
        """What this process declared: an auto-delete exchange may go before it is bound."""
        self._watched: dict[str, _Watched] = {}

    # -- declaring -----------------------------------------------------------------------------------

    def declare(self, name: str, exchange: Exchange) -> None:
        """Create the exchange unless it is there. Raises `NotEquivalent`, `Refused`."""
        if exchange.type not in TYPES:
            raise Refused(f"exchange type {exchange.type!r} is not supported: use direct, topic or fanout")
        key = self._keys.exchange(name)
        self._declared[name] = exchange
        result = self._client.txn(_create(key, exchange.encode()))
        if result.succeeded:
            return
        stored = Exchange.read(result.responses[0][0].value)
        if (stored.type, stored.arguments) != (exchange.type, exchange.arguments):
            raise not_equivalent(f"exchange {name!r} exists with type {stored.type!r} or other arguments", "exchange")

    def exists(self, name: str) -> bool:
        """Whether the exchange was declared."""
        return self._client.get(self._keys.exchange(name)) is not None

    def bind(self, name: str, binding: Binding, lease: int = 0) -> int:
        """Bind a queue; the exchange is made (direct) if nobody has. Returns the revision from which it holds."""
        key = self._keys.binding(name, binding.queue, binding.routing_key)
        stored = self._client.get(key)
        if stored is not None and stored.value == binding.encode() and stored.lease == lease:
            return stored.mod
        return self._change(name, lambda txn: txn.put(key, binding.encode(), lease=lease))

    def unbind(self, name: str, queue: str, routing_key: str, *, unless: str = "") -> None:
        """Remove a binding. An auto-delete exchange goes with its last one; one that is not there stays away.

        `unless`: key of a record; if that is there, the binding stays.
        """
        key = self._keys.binding(name, queue, routing_key)
        record = self._client.get(self._keys.exchange(name))
        if record is None:
            self._client.delete(key)
            return
        self._change(name, lambda txn: txn.delete(key), unless=unless)
        if Exchange.read(record.value).auto_delete:
            self.delete(name, if_unused=True)

    def touch(self, name: str) -> None:
        """A leased binding was made: put the exchange's record again, so that older tables are refused."""
        self._change(name, lambda txn: txn)

    def delete(self, name: str, *, if_unused: bool = False) -> bool:
        """Remove the exchange and its bindings; the queues stay. False: it has bindings and stays (`if_unused`)."""
        bound, everything = self._keys.bound(name), self._keys.bind(name)
        txn = Txn()
        if if_unused:
            txn.when(vacant(bound, prefix_end(bound)))
        if not self._client.txn(txn.clear(everything, prefix_end(everything))).succeeded:
            return False
        with self._lock:
            self._seen.pop(name, None)
        return True

    def _change(self, name: str, what: Callable[[Txn], Txn], *, unless: str = "") -> int:
        """Change a binding and put the exchange's record again, in one transaction; 0: `unless` is there."""
        key = self._keys.exchange(name)
        doubts = 0
        for _ in range(_TRIES):
            stored = self._client.get(key)
            txn = Txn().when(mod(key, stored.mod if stored else 0))
            if unless:
                txn.when(absent(unless))
            txn.put(key, stored.value if stored else self._declared.get(name, Exchange()).encode())
            try:
                result = self._client.txn(what(txn))
            except EtcdUnknown:
                doubts += 1
                if doubts == _DOUBTS:
                    raise
                continue  # done twice it is the same binding, at a later revision
            if result.succeeded:
                return result.revision
            if unless and self._client.get(unless) is not None:
                return 0
        raise CronyError(f"the bindings of exchange {name!r} change too fast", hint="try again")

    # -- reading -------------------------------------------------------------------------------------

    def read(self, name: str) -> Table:
        """The table as it is now."""
        record = self._client.get(self._keys.exchange(name))
        prefix = self._keys.bound(name)
        table = _table(record, self._client.list(prefix).kvs if record else ())
        with self._lock:
            self._seen[name] = table
        return table

    def seen(self, name: str) -> Table:
        """The table as last read: may be old, so compare its revision."""
        return self._seen.get(name) or self.read(name)

    def watched(self, name: str) -> Table:
        """The table, kept current by a watch from now on: for messages that may be lost, like events."""
        with self._lock:
            watched = self._watched.get(name)
            if watched is None:
                watched = self._watched[name] = _Watched(self._client, self._keys, name)
        return watched.table(self)

    def everything(self) -> Iterable[tuple[str, str, str]]:
        """(queue, exchange, routing key) of every binding."""
        prefix = self._keys.bindings
        for kv in self._client.list(prefix).kvs:
            exchange, _, rest = kv.key.removeprefix(prefix).partition("/")
            binding = Binding.read(kv) if rest.startswith("q/") else None
            if binding is not None:
                yield binding.queue, decode(exchange), binding.routing_key

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            watched, self._watched = list(self._watched.values()), {}
        for each in watched:
            each.stop()


class _Watched:
    """One exchange's table under a watch."""

    def __init__(self, client: Client, keys: Keys, name: str) -> None:
        self._name = name
        self._prefix, self._record = keys.bound(name), keys.exchange(name)
        self._pairs: dict[str, KV] = {}
        self._table: Table | None = None
        start = keys.bind(name)
        self._watcher = Watcher(
            client,
            start,
            prefix_end(start),
            on_snapshot=self._on_snapshot,
            on_events=self._on_events,
            name=f"bindings of {name}",
        )
        self._watcher.start()

    def _on_snapshot(self, kvs: list[KV], revision: int) -> None:
        self._pairs = {kv.key: kv for kv in kvs}
        self._build()

    def _on_events(self, events: list[Event], revision: int) -> None:
        for event in events:
            if event.kind == "put":
                self._pairs[event.key] = KV(event.key, event.value, event.create, event.mod, event.version, event.lease)
            else:
                self._pairs.pop(event.key, None)
        self._build()

    def _build(self) -> None:
        bindings = [kv for key, kv in self._pairs.items() if key.startswith(self._prefix)]
        self._table = _table(self._pairs.get(self._record), bindings)

    def table(self, tables: Tables) -> Table:
        return self._table or tables.read(self._name)

    def stop(self) -> None:
        self._watcher.stop()


def _create(key: str, value: bytes) -> Txn:
    txn = Txn(idempotent=True).when(mod(key, 0)).put(key, value)
    txn.otherwise.get(key)
    return txn


def _table(record: KV | None, kvs: Iterable[KV]) -> Table:
    bindings = tuple(binding for binding in map(Binding.read, kvs) if binding is not None)
    return Table(record.mod if record else 0, Exchange.read(record.value).type if record else "direct", bindings)


__all__ = ["TYPES", "Binding", "Exchange", "Table", "Tables", "canonical"]
