"""Publish a pool (as 3): its limit as centres know it, with MySQL away too; a revision never goes down."""

from __future__ import annotations

from crony.domain.pool import Pool
from crony.domain.run import UnknownRecord
from crony.domain.signing import Sealer, peek
from crony.errors import Conflict
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod

_TRIES = 5


def publish_pool(client: Client, keys: Keys, sealer: Sealer, pool: Pool) -> int:
    """The revision that is live afterwards: the pool's own, or a higher one that was there already.

    From the answer on no leader takes a slot by the limit before: each compares the object it decided from. A deleted
    pool leaves a tombstone. Raises `EtcdUnavailable`, `EtcdUnknown` (calling again is right), `Conflict`.
    """
    key = keys.obj("pool", pool.name)
    for _ in range(_TRIES):
        found = client.get(key)
        there = published(found)
        if there is not None and there.revision >= pool.revision:
            return there.revision
        txn = Txn().when(mod(key, found.mod if found else 0)).put(key, sealer.seal(pool.payload()))
        if client.txn(txn).succeeded:
            return pool.revision
    raise Conflict(f"The pool {pool.name} was published by others each time it was tried", hint="try again")


def published(found: KV | None) -> Pool | None:
    """The pool that a key of etcd holds, for showing: its seal is not checked. None: there is none to be read."""
    try:
        return Pool.read(peek(found.value)) if found is not None else None
    except (UnknownRecord, ValueError, LookupError, TypeError, RecursionError):
        return None
