"""Publish a named object (as 3), such as a pool: what centres and nodes know of it with MySQL away, too.

A revision never goes down.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from crony.domain.record import Record, UnknownRecord
from crony.domain.signing import Sealer, peek
from crony.errors import Conflict
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod

_TRIES = 5


class Published(Protocol):
    """`obj/<kind>/<name>`, sealed by a web; `deleted` is a tombstone."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def revision(self) -> int:
        """Rises with each save."""

    def payload(self) -> dict[str, Any]:
        """What is sealed."""


R = TypeVar("R", bound=Record)


def publish_object(client: Client, keys: Keys, sealer: Sealer, kind: str, made: Published) -> int:
    """The revision that is live afterwards: the object's own, or a higher one that was there already.

    From the answer on nobody acts by the object before: each compares, or reads, the one in etcd. A deleted object
    leaves a tombstone. Raises `EtcdUnavailable`, `EtcdUnknown` (calling again is right), `Conflict`.
    """
    key = keys.obj(kind, made.name)
    for _ in range(_TRIES):
        found = client.get(key)
        there = revision_of(found)
        if there is not None and there >= made.revision:
            return there
        txn = Txn().when(mod(key, found.mod if found else 0)).put(key, sealer.seal(made.payload()))
        if client.txn(txn).succeeded:
            return made.revision
    raise Conflict(f"The {kind} {made.name} was published by others each time it was tried", hint="try again")


def revision_of(found: KV | None) -> int | None:
    """The revision that a key of etcd holds; None: there is none to be read."""
    try:
        revision = peek(found.value).get("revision") if found is not None else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return revision if isinstance(revision, int) else None


def published(found: KV | None, shape: type[R]) -> R | None:
    """The object that a key of etcd holds, for showing: its seal is not checked. None: there is none to be read."""
    try:
        return shape.read(peek(found.value)) if found is not None else None
    except (UnknownRecord, ValueError, LookupError, TypeError, RecursionError):
        return None
