"""The queues of a namespace as a person sees them: what is ready, held, dead, who consumes, what was declared."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from crony.etcd.keys import decode, is_run_queue
from crony.transport_etcd.contents import names_under
from crony.transport_etcd.declared import Declared
from crony.transport_etcd.letters import Letters
from crony.transport_etcd.link import Link


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue at one moment."""

    name: str
    ready: int
    """Messages that nobody alive holds."""
    unacked: int
    """Messages that a consumer holds. Of a run queue: that were claimed, whoever by."""
    consumers: int
    dead: int
    """Dead letters. Those of runs are judged by the leader and not counted here."""
    declared: Declared | None
    """None: nobody declared it, as with run queues."""
    bindings: list[tuple[str, str]] = field(default_factory=list)
    """(exchange, routing key); only where one queue was asked for."""
    consumed_by: list[dict[str, str]] = field(default_factory=list)
    """Node (if it is one) and incarnation of each consumer; only where one queue was asked for."""


def overview(link: Link) -> list[QueueView]:
    """Every queue that was declared, holds something, is consumed or has dead letters, by name."""
    client, keys = link.client, link.keys
    declared = {
        decode(kv.key.removeprefix(keys.queue_records)): Declared.read(kv.value)
        for kv in client.list(keys.queue_records).kvs
    }
    consumers = Counter(
        decode(kv.key.removeprefix(keys.consumers).partition("/")[0])
        for kv in client.list(keys.consumers, keys_only=True).kvs
    )
    dead = Letters(client, keys).counts()
    filled = {*names_under(client, keys.plain_queues), *names_under(client, f"{keys.run}q/")}
    found = []
    for name in sorted({*declared, *consumers, *dead, *filled}):
        counts = link.contents.counts(name)
        found.append(QueueView(name, counts.ready, counts.held, consumers[name], dead.get(name, 0), declared.get(name)))
    return found


def view(link: Link, name: str) -> QueueView | None:
    """One queue, with its bindings and consumers; None if there is nothing of it."""
    client, keys = link.client, link.keys
    record, counts = client.get(keys.queue_record(name)), link.contents.counts(name)
    prefix = keys.consumer(name)
    consumed_by = [_consumer(kv.key.removeprefix(prefix), kv.value) for kv in client.list(prefix).kvs]
    dead = 0 if is_run_queue(name) else client.count(keys.letter(name))
    if record is None and not any(counts) and not consumed_by and not dead:
        return None
    bindings = sorted((exchange, key) for queue, exchange, key in link.tables.everything() if queue == name)
    known = Declared.read(record.value) if record is not None else None
    return QueueView(name, counts.ready, counts.held, len(consumed_by), dead, known, bindings, consumed_by)


def _consumer(ident: str, value: bytes) -> dict[str, str]:
    try:
        raw: Any = json.loads(value)
        node = str(raw.get("node") or "")
    except (ValueError, AttributeError):
        node = ""
    return {"node": node, "incarnation": ident.partition(".")[0]}


__all__ = ["QueueView", "overview", "view"]
