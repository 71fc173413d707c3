"""Judges pools from etcd's own history: at every revision the limit holds, and who runs holds its slots."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from crony.domain.pool import Pool
from crony.domain.run import Envelope
from crony.domain.signing import peek
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, decode
from crony.etcd.watch import Event, Watcher
from crony.lifecycle.publish_object import published
from crony.transport_etcd import message as wire
from tests.helpers.wait import until


class PoolHistory:
    """Follows pools, slots and runs from its beginning on. A context manager."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self.wrong: list[str] = []
        """What was wrong at some revision."""
        self.most: Counter[str] = Counter()
        """Most slots of each pool that were held at a time."""
        self._limits: dict[str, int] = {}
        self._allowed: dict[str, int] = {}
        self._held: dict[str, str] = {}
        self._needed: dict[str, tuple[str, ...]] = {}
        self._revision = 0
        self._watch = Watcher(
            client, f"{keys.root}obj/", f"{keys.root}run0", on_snapshot=self._begin, on_events=self._events
        )

    def __enter__(self) -> PoolHistory:
        """Begins; what there is now counts."""
        self._watch.start()
        assert self._watch.synced(10)
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends."""
        self._watch.stop()

    def caught_up(self) -> PoolHistory:
        """Once everything written so far was judged."""
        now = self._client.put(f"{self._keys.root}obj/tests/mark", b"")
        until(lambda: self._revision >= now, 10, "the history to be judged")
        return self

    @property
    def held(self) -> set[str]:
        """Keys of the slots held at the end."""
        return set(self._held)

    @property
    def needed(self) -> set[str]:
        """Keys of the slots that live messages and accepted runs name at the end."""
        return {slot for slots in self._needed.values() for slot in slots}

    def _begin(self, pairs: list[KV], revision: int) -> None:
        for kv in pairs:
            self._put(kv.key, kv.value)
        self._judge(revision)

    def _events(self, events: list[Event], revision: int) -> None:
        at = events[0].mod
        for event in events:
            if event.mod != at:
                self._judge(at)
                at = event.mod
            if event.kind == "put":
                self._put(event.key, event.value)
            else:
                self._held.pop(event.key, None)
                self._needed.pop(event.key, None)
        self._judge(revision)

    def _put(self, key: str, value: bytes) -> None:
        match key.removeprefix(self._keys.root).split("/"):
            case ["obj", "pool", name]:
                pool = published(KV(key, value, 1, 1, 1, 0), Pool)
                assert pool is not None
                self._limits[decode(name)] = 10**9 if pool.deleted else pool.limit
                self._allowed.pop(decode(name), None)
            case ["pool", _, _]:
                run = str(json.loads(value)["run"])
                if key in self._held:
                    self.wrong.append(f"{key} was taken by {run} while {self._held[key]} had it")
                self._held[key] = run
            case ["run", "q", _, "m", _]:
                self._needed[key] = self._slots(str(json.loads(wire.decode(value)["body"])[0][0]))
            case ["run", "acc", _]:
                self._needed[key] = self._slots(str(json.loads(value)["envelope"]))

    def _slots(self, sealed: str) -> tuple[str, ...]:
        told = Envelope.read(peek(sealed))
        return tuple(f"{self._keys.pools}{slot}" for slot in told.slots)

    def _judge(self, revision: int) -> None:
        held = Counter(key.removeprefix(self._keys.pools).split("/")[0] for key in self._held)
        for name in {*held, *self._limits}:
            count, limit = held[name], self._limits.get(name, 0)
            self.most[name] = max(self.most[name], count)
            # A limit that was lowered stops nothing: what is held beyond it only must not grow.
            allowed = self._allowed.pop(name, None)
            if allowed is not None and count > allowed:
                self.wrong.append(f"revision {revision}: {count} slots of {name} are held, limit {limit}")
            self._allowed[name] = max(limit, count)
        for key, slots in self._needed.items():
            missing = [slot for slot in slots if slot not in self._held]
            if missing:
                self.wrong.append(f"revision {revision}: {key} runs without {missing}")
        self._revision = max(self._revision, revision)
