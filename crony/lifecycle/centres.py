"""Which centres there are, and which of them leads which shard. For showing, and for sharing the shards out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from crony.domain.record import UnknownRecord
from crony.domain.shards import CentreFacts
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.lifecycle.shards import Sharding
from crony.lifecycle.shards import read as read_shards


@dataclass(frozen=True, slots=True)
class Leading:
    """Who leads one shard: name and incarnation of the centre, and its term."""

    shard: int
    name: str
    centre: str
    term: int


@dataclass(frozen=True, slots=True)
class Centres:
    """All of it, at one revision."""

    sharding: Sharding | None
    """None: the record cannot be read, and nobody leads."""
    leaders: dict[int, Leading]
    running: dict[str, CentreFacts]
    """Centres by incarnation."""

    @property
    def vacant(self) -> list[int]:
        """Shards that nobody leads: their jobs do not fire now."""
        if self.sharding is None:
            return [0]
        return [shard for shard in range(self.sharding.count) if shard not in self.leaders]

    @property
    def tzdata(self) -> dict[str, str]:
        """Centre -> release of its time zone data, of those that say so."""
        return {facts.name: facts.tzdata for facts in self.running.values() if facts.tzdata}

    def led_by(self, centre: str) -> list[int]:
        """The shards that an incarnation leads."""
        return sorted(leading.shard for leading in self.leaders.values() if leading.centre == centre)


def look(client: Client, keys: Keys) -> Centres:
    """How things stand. Raises `Unavailable`."""
    return gather(keys, client.list(keys.beat).kvs)


def gather(keys: Keys, pairs: Iterable[KV]) -> Centres:
    """What the keys under `beat/` say; records nobody can read are left out."""
    sharding: Sharding | None = read_shards(None)
    leaders: dict[int, Leading] = {}
    running: dict[str, CentreFacts] = {}
    for kv in pairs:
        match kv.key.removeprefix(keys.beat).split("/"):
            case ["shards"]:
                sharding = _sharding(kv)
            case [shard, "leader"] if shard.isdecimal():
                leaders[int(shard)] = leading(int(shard), kv)
            case ["centre", incarnation]:
                facts = read_centre(kv.value)
                if facts is not None:
                    running[incarnation] = facts
    return Centres(sharding, dict(sorted(leaders.items())), running)


def leading(shard: int, kv: KV) -> Leading:
    """What a leader's key says."""
    try:
        told = json.loads(kv.value)
        return Leading(shard, str(told["name"]), str(told.get("centre", "")), kv.create)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Leading(shard, "?", "", kv.create)


def read_centre(value: bytes) -> CentreFacts | None:
    """What a centre says of itself; None when nobody can read it."""
    try:
        facts = CentreFacts.read(value)
    except UnknownRecord:
        return None
    numbers = (facts.since_at, facts.at, facts.skew)
    texts = isinstance(facts.name, str) and isinstance(facts.tzdata, str)
    jobs = facts.untrusted
    texts = texts and isinstance(jobs, dict) and all(isinstance(why, str) for pair in jobs.items() for why in pair)
    sound = texts and all(isinstance(number, int | float) for number in numbers)
    return facts if sound and isinstance(facts.able, bool) and type(facts.shards) is int else None


def _sharding(kv: KV) -> Sharding | None:
    try:
        return read_shards(kv)
    except UnknownRecord:
        return None
