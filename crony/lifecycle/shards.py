"""How many shards there are: one key that every transaction of every leader compares.

So one put is all of resharding: whatever a leader of the old number had under way is refused, and who leads next
lists everything anew. Nothing of a job moves, for its cursor is its own (H1).
"""

from __future__ import annotations

from dataclasses import dataclass

from crony.domain.record import UnknownRecord
from crony.domain.shards import MOST, Shards
from crony.errors import Conflict, Invalid
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Sharding:
    """What the key says, and its revision (0: it is not there, which means one shard)."""

    told: Shards
    seen: int

    @property
    def count(self) -> int:
        """Number of shards."""
        return self.told.count


def read(kv: KV | None) -> Sharding:
    """What the key says. Raises `UnknownRecord` for what is not a number of shards."""
    if kv is None:
        return Sharding(Shards(), 0)
    told = Shards.read(kv.value)
    if type(told.count) is not int or not 1 <= told.count <= MOST:
        raise UnknownRecord(
            "the number of shards cannot be read", why=kv.value[:80].decode(errors="replace"), hint="`crony shards N`"
        )
    return Sharding(told, kv.mod)


def look(client: Client, keys: Keys) -> Sharding:
    """How many there are. Raises `UnknownRecord`, `Unavailable`."""
    return read(client.get(keys.shards))


def begin(client: Client, keys: Keys, wanted: int, *, by: str) -> Sharding:
    """How many there are; `wanted` (0: no wish) becomes their number if nobody has set one. Raises as the client."""
    for _ in range(_TRIES):
        found = look(client, keys)
        if found.seen or not wanted:
            return found
        _put(client, keys, found.seen, Shards(wanted, by, client.now()))
    return look(client, keys)


def reshard(client: Client, keys: Keys, count: int, *, by: str) -> Sharding:
    """Change the number. From the acknowledgement on no leader of the old number dispatches anything.

    Raises `Invalid`, `Conflict` when others keep changing it, `Unavailable` or `Unknown` when etcd is away.
    """
    if not 1 <= count <= MOST:
        raise Invalid("shards", f"must be between 1 and {MOST}")
    for _ in range(_TRIES):
        kv = client.get(keys.shards)
        if kv is not None and _same(kv, count):
            return read(kv)
        if _put(client, keys, kv.mod if kv else 0, Shards(count, by, client.now())):
            return look(client, keys)
    raise Conflict("The number of shards was changed by others each time it was tried", hint="look who did")


def _same(kv: KV, count: int) -> bool:
    try:
        return read(kv).count == count
    except UnknownRecord:
        return False


def _put(client: Client, keys: Keys, seen: int, told: Shards) -> bool:
    return client.txn(Txn().when(mod(keys.shards, seen)).put(keys.shards, told.encode())).succeeded
