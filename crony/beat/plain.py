"""Plain entries of a Celery app's `beat_schedule`: each due one becomes one message, together with its cursor.

The message and the cursor are put in one transaction under the leader's term, so an instant that was decided is in
its queues exactly once, whoever leads next. When an entry is due, and that only the latest of missed instants is made
up for, is Celery's own rule.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crony.beat.leader import Leader
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.errors import LeaseGone
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod

log = logging.getLogger("crony.beat")


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an entry is: its last instant, how often it was sent, and the revision of this record (0: none)."""

    last: datetime
    count: int
    revision: int = 0

    def encode(self) -> bytes:
        """Stored form."""
        return json.dumps({"v": 1, "last": self.last.isoformat(), "count": self.count}).encode()


class Cursors:
    """The cursors of one app's entries in etcd."""

    def __init__(self, client: Client, keys: Keys, app: str) -> None:
        """`app`: name of the Celery app; entries of several apps do not meet."""
        self._client, self._keys, self._app = client, keys, app

    def key(self, entry: str) -> str:
        """Where an entry's cursor lies."""
        return self._keys.plain(self._app, entry)

    def load(self, names: set[str]) -> dict[str, Cursor]:
        """Cursors by entry; those of entries that are in the schedule no more are deleted. Raises as the client."""
        found = {}
        prefix = self.key("")
        wanted = {self.key(name): name for name in names}
        for kv in self._client.list(prefix).kvs:
            name = wanted.get(kv.key)
            if name is None:
                self._client.txn(Txn().when(mod(kv.key, kv.mod)).delete(kv.key))
                continue
            try:
                raw = json.loads(kv.value)
                found[name] = Cursor(datetime.fromisoformat(raw["last"]), int(raw["count"]), kv.mod)
            except (ValueError, KeyError, TypeError) as error:
                log.error("the cursor of entry %s cannot be read and starts anew: %s", name, error)
        return found


@dataclass(slots=True)
class Captured:
    """What Celery would have published: the messages in order, the task's first."""

    messages: list[tuple[dict[str, Any], str, str]] = field(default_factory=list)

    def basic_publish(self, message: dict[str, Any], exchange: str = "", routing_key: str = "", **kwargs: Any) -> None:
        """In place of the channel's."""
        self.messages.append((message, exchange or "", routing_key or ""))


class Moved(CronyError):
    """The term, the entry's cursor or its routing is not as it was seen: look again."""


def commit(leader: Leader, key: str, seen: int, cursor: Cursor, captured: Captured, channel: Any) -> int:
    """Put an entry's message and its cursor, both or neither; the cursor's new revision.

    `channel`: an `etcd3` channel of the app's broker. Raises `Moved`, and what the client raises.
    """
    publisher = channel.link.publisher
    (message, exchange, routing_key), *later = captured.messages
    properties = message["properties"]
    properties["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
    parcel = publisher.address(publisher.letter(message, exchange, routing_key), fresh=True)
    txn = publisher.pack([parcel]).when(*leader.compares(), mod(key, seen)).put(key, cursor.encode())
    try:
        result = leader.client.txn(txn)
    except LeaseGone:
        publisher.forget_leases()
        raise Moved("the lease of a queue's owner ended meanwhile") from None
    if not result.succeeded:
        raise Moved("the term, the entry or its routing changed meanwhile")
    publisher.sent([parcel])
    for event in later:
        channel.basic_publish(*event)
    return result.revision


def task_id(namespace: str, app: str, entry: str, instant: datetime) -> str:
    """The id of the task that an entry's instant becomes; the same whoever makes it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"crony:{namespace}/{app}/{entry}/{instant.isoformat()}"))
