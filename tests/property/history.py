"""What happened in one run, for an offline judge: what each actor did and saw, and every change etcd made, in order.

An entry of an actor says what it is about to do before it does it, so whatever etcd shows was announced by somebody.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from crony.domain.run import Claim
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, decode, prefix_end
from crony.etcd.watch import Event, Watcher
from crony.transport_etcd import message as wire
from tests.helpers.wait import until


class Change(NamedTuple):
    """One change of a key, reduced to what the judge needs. `kind`: message, claim, session, broadcast, binding, …"""

    revision: int
    at: float
    put: bool
    kind: str
    queue: str
    """Queue or exchange; of a session: its incarnation."""
    place: str
    ident: str
    """Of a message or broadcast: the id its publisher gave it. Of a claim: the holder."""
    count: int
    life: float
    """Of a message: seconds after which it expires; 0: never. Of a claim: when its holder says it was made."""


@dataclass
class History:
    """One run, whole."""

    seed: int
    root: str
    plan: dict[str, Any] = field(default_factory=dict)
    ops: list[dict[str, Any]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Keys that were still there at the very end, without the prefix of the namespace."""
    ended: bool = False
    """Whether it ran to its end: then nothing may be missing."""

    def save(self, path: Path) -> Path:
        """Write it down as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: Path) -> History:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text())
        raw["changes"] = [Change(*change) for change in raw["changes"]]
        return cls(**raw)


class Journal:
    """Where actors of this process write. Thread-safe."""

    def __init__(self) -> None:
        self.ops: list[dict[str, Any]] = []

    def note(self, op: str, actor: str, **facts: Any) -> dict[str, Any]:
        """Write one entry."""
        entry = {"op": op, "actor": actor, "t": time.monotonic(), "at": time.time(), **facts}
        self.ops.append(entry)
        return entry


class FileJournal(Journal):
    """Where an actor of another process writes: whole lines that survive its SIGKILL."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, op: str, actor: str, **facts: Any) -> dict[str, Any]:
        """Write one entry."""
        entry = {"op": op, "actor": actor, "t": time.monotonic(), "at": time.time(), **facts}
        os.write(self._fd, (json.dumps(entry) + "\n").encode())
        return entry


def read_journals(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Entries of other processes' journals; the last line of a killed one may be torn."""
    found = []
    for path in paths:
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


class Recorder:
    """Writes down every change under a namespace, over a connection that nothing disturbs."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._lock = threading.Lock()
        self._changes: list[Change] = []
        start = client.range(keys.root, count_only=True).revision
        self._watcher = Watcher(
            client,
            keys.root,
            prefix_end(keys.root),
            on_snapshot=None,
            on_events=self._on_events,
            from_revision=start + 1,
            name="recorder",
        ).start()

    def changes(self) -> list[Change]:
        """What was seen so far."""
        with self._lock:
            return list(self._changes)

    def catch_up(self) -> None:
        """Wait until everything until now was seen."""
        marker = self._client.put(self._keys.control, b"{}")
        until(lambda: self._watcher.revision >= marker, 20, "the recorder to have seen everything")

    def finish(self) -> tuple[list[Change], list[str]]:
        """All changes, and what is left."""
        self.catch_up()
        left = self._client.list(self._keys.root, keys_only=True).kvs
        self._watcher.stop()
        return self.changes(), [kv.key.removeprefix(self._keys.root) for kv in left]

    def _on_events(self, events: list[Event], revision: int) -> None:
        at = time.time()
        changes = [change(self._keys, event, at) for event in events]
        with self._lock:
            self._changes += changes


def change(keys: Keys, event: Event, at: float) -> Change:
    """An event, reduced."""
    put = event.kind == "put"
    parts = event.key.removeprefix(keys.root).split("/")
    kind, queue, place, ident, count, life = "other", "", "", "", 0, 0.0
    if parts[0] == "q" and len(parts) == 4:
        kind, queue, place = {"m": "message", "c": "claim"}[parts[2]], decode(parts[1]), parts[3]
        if put and kind == "message":
            ident, life = _told(event.value)
        elif put:
            claim = Claim.read(event.value)
            ident, count, life = claim.incarnation, claim.count, claim.at
    elif parts[0] == "session":
        kind, queue = "session", parts[1]
    elif parts[0] == "fan":
        kind, queue, place = "broadcast", decode(parts[1]), parts[2]
        ident = _told(event.value)[0] if put else ""
    elif parts[0] == "bind" and len(parts) == 5:
        kind, queue, place = "binding", decode(parts[3]), decode(parts[1])
    else:
        place = "/".join(parts)
    return Change(event.mod, at, put, kind, queue, place, ident, count, life)


def _told(value: bytes) -> tuple[str, float]:
    message = wire.decode(value)
    return str(message["headers"].get("id")), float(message["properties"].get("expiration") or 0) / 1000


__all__ = ["KV", "Change", "FileJournal", "History", "Journal", "Recorder", "read_journals"]
