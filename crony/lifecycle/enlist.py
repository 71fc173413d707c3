"""Transaction 22, enlist: an instance of a service lies under a lease of its own, and is there while it is heard of.

Compared: the record's revision as it was read. Saying the same again only renews the lease; a lease that has ended
takes a new one, so that whoever repeats himself in time is never forgotten, whatever was away in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from crony.domain.record import UnknownRecord
from crony.domain.service import MOST, Instance
from crony.errors import Conflict
from crony.etcd.client import KV, Client
from crony.etcd.errors import LeaseGone
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod

TRIES = 5


def enlist(client: Client, keys: Keys, wanted: Instance) -> None:
    """Put the instance, in the place of one that bore its name.

    Raises `Conflict` (too many, or somebody changed it each time), `EtcdUnavailable`.
    """
    key = keys.svc(wanted.service, wanted.instance)
    for _ in range(TRIES):
        found = client.get(key)
        if found is None and len(instances(client, keys, wanted.service)) >= MOST:
            raise Conflict(f"{wanted.service} has {MOST} instances already", hint="deregister those that are gone")
        if _put(client, key, found, wanted):
            return
    raise Conflict(f"{wanted.instance} of {wanted.service} changed each time it was tried", hint="try again")


def hear(
    client: Client, keys: Keys, service: str, instance: str, accept: Callable[[Instance], Instance | None]
) -> Instance | None:
    """It was heard of. `accept` gives the record as it is to be now, or None for somebody who may not say so.

    None also when there is no such instance (any more). Raises `Conflict`, `EtcdUnavailable`.
    """
    key = keys.svc(service, instance)
    for _ in range(TRIES):
        found = client.get(key)
        there = _read(found)
        if found is None or there is None:
            return None
        wanted = accept(there)
        if wanted is None:
            return None
        if wanted == there and found.lease and client.keep_alive(found.lease) > 0:
            return there
        if _put(client, key, found, wanted):
            return wanted
    raise Conflict(f"{instance} of {service} changed each time it was tried", hint="try again")


def delist(client: Client, keys: Keys, service: str, instance: str, accept: Callable[[Instance], bool]) -> bool:
    """Take it off, if `accept` says so. False: it was not there, or it was not accepted."""
    key = keys.svc(service, instance)
    for _ in range(TRIES):
        found = client.get(key)
        if found is None:
            return False
        there = _read(found)
        if there is not None and not accept(there):
            return False
        if client.txn(Txn().when(mod(key, found.mod)).delete(key)).succeeded:
            return True
    raise Conflict(f"{instance} of {service} changed each time it was tried", hint="try again")


def instances(client: Client, keys: Keys, service: str = "") -> list[Instance]:
    """Who is there now, of one service or of all, by name; records that cannot be read are passed over."""
    prefix = keys.svc(service) if service else keys.services
    found = (_read(kv) for kv in client.list(prefix).kvs)
    return sorted((each for each in found if each is not None), key=lambda each: (each.service, each.instance))


def _put(client: Client, key: str, found: KV | None, wanted: Instance) -> bool:
    """With the lease it has, if that lives, else with a new one; a new lease that was not used is given back."""
    if found is not None and found.lease and _same_life(found, wanted) and client.keep_alive(found.lease) > 0:
        lease, fresh = found.lease, False
    else:
        lease, fresh = client.grant(wanted.ttl), True
    txn = Txn().when(mod(key, found.mod if found else 0)).put(key, wanted.encode(), lease=lease)
    try:
        done = client.txn(txn).succeeded
    except LeaseGone:
        return False
    if fresh and not done:
        client.revoke(lease)
    return done


def _same_life(found: KV, wanted: Instance) -> bool:
    there = _read(found)
    return there is not None and there.ttl == wanted.ttl and there.secret == wanted.secret


def _read(found: KV | None) -> Instance | None:
    try:
        return Instance.read(found.value) if found is not None else None
    except UnknownRecord:
        return None


def changed(there: Instance, *, healthy: bool | None = None, weight: int | None = None) -> Instance:
    """The record with what a sign of life may change."""
    return replace(
        there,
        healthy=there.healthy if healthy is None else healthy,
        weight=there.weight if weight is None else weight,
    )
