"""The board: what a centre knows of the other ones and of who leads which shard, kept by one watch of `beat/`."""

from __future__ import annotations

import threading

from crony.clock import Clock
from crony.domain.record import UnknownRecord
from crony.domain.shards import CentreFacts
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.watch import Event, Watcher
from crony.lifecycle.centres import Leading, leading, read_centre
from crony.lifecycle.shards import Sharding
from crony.lifecycle.shards import read as read_sharding


class Board:
    """What lies under `beat/`. Any thread may ask."""

    def __init__(self, client: Client, keys: Keys, clock: Clock) -> None:
        self._keys, self._clock = keys, clock
        self._lock = threading.Lock()
        self._leaders: dict[int, Leading] = {}
        self._centres: dict[str, CentreFacts] = {}
        self._vacated: dict[int, float] = {}
        """Shard -> monotonic time since when nobody leads it."""
        self._born = clock.monotonic()
        self._changed = self._born
        self._sharding: Sharding | None = None
        self._sharded_at = 0
        """Revision up to which that is known."""
        self._watch = Watcher(
            client,
            keys.beat,
            prefix_end(keys.beat),
            on_snapshot=self._listed,
            on_events=self._happened,
            name="crony-beat-board",
        )

    def start(self) -> Board:
        """Begin to watch; etcd may be away."""
        self._watch.start()
        return self

    def stop(self) -> None:
        """End the watch."""
        self._watch.stop(0.2)

    @property
    def healthy(self) -> bool:
        """Whether it is told of changes right now."""
        return self._watch.healthy

    def contradicts(self, sharding: Sharding) -> bool:
        """Whether the number of shards was changed since it was read as `sharding`."""
        with self._lock:
            known, at = self._sharding, self._sharded_at
        return at > sharding.seen and (known is None or known.seen != sharding.seen)

    def leading(self, shard: int) -> Leading | None:
        """Who leads a shard."""
        with self._lock:
            return self._leaders.get(shard)

    @property
    def leaders(self) -> dict[int, str]:
        """Shard -> incarnation of the centre that leads it."""
        with self._lock:
            return {shard: told.centre for shard, told in self._leaders.items()}

    @property
    def able(self) -> set[str]:
        """Centres that run and may lead."""
        with self._lock:
            return {centre for centre, facts in self._centres.items() if facts.able}

    def vacant_for(self, shard: int) -> float:
        """Seconds for which nobody has led the shard; 0 while somebody does."""
        with self._lock:
            if shard in self._leaders:
                return 0.0
            return self._clock.monotonic() - self._vacated.get(shard, self._born)

    @property
    def still_for(self) -> float:
        """Seconds since leaders or centres last changed."""
        return self._clock.monotonic() - self._changed

    # -- the watch -----------------------------------------------------------------------------

    def _listed(self, pairs: list[KV], revision: int) -> None:
        with self._lock:
            leaders, centres = self._leaders, self._centres
            self._leaders, self._centres = {}, {}
            self._sharding, self._sharded_at = read_sharding(None), revision
            for kv in pairs:
                self._put(kv.key, kv)
            now = self._clock.monotonic()
            for shard in leaders.keys() - self._leaders.keys():
                self._vacated[shard] = now
            if (leaders, centres.keys()) != (self._leaders, self._centres.keys()):
                self._changed = now

    def _happened(self, events: list[Event], _revision: int) -> None:
        with self._lock:
            for event in events:
                if event.kind == "put":
                    told = KV(event.key, event.value, event.create, event.mod, event.version, event.lease)
                    self._put(told.key, told)
                else:
                    self._drop(event.key, event.mod)

    def _put(self, key: str, kv: KV) -> None:
        match key.removeprefix(self._keys.beat).split("/"):
            case ["shards"]:
                self._sharded_at = max(self._sharded_at, kv.mod)
                try:
                    self._sharding = read_sharding(kv)
                except UnknownRecord:
                    self._sharding = None
            case [shard, "leader"] if shard.isdecimal():
                self._leaders[int(shard)] = leading(int(shard), kv)
                self._changed = self._clock.monotonic()
            case ["centre", incarnation]:
                facts, before = read_centre(kv.value), self._centres.get(incarnation)
                if facts is not None:
                    self._centres[incarnation] = facts
                    if before is None or before.able != facts.able:
                        self._changed = self._clock.monotonic()

    def _drop(self, key: str, revision: int) -> None:
        now = self._clock.monotonic()
        match key.removeprefix(self._keys.beat).split("/"):
            case ["shards"]:
                self._sharding, self._sharded_at = read_sharding(None), revision
            case [shard, "leader"] if shard.isdecimal():
                self._leaders.pop(int(shard), None)
                self._vacated[int(shard)] = self._changed = now
            case ["centre", incarnation]:
                self._centres.pop(incarnation, None)
                self._changed = now
