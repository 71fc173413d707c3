"""Transaction 9, permit: before the first instruction of work that must not run twice, the claim says that it starts.

Compared: the claim's revision (the fence), and that the node's session is there, for a node that is cut off starts
nothing. Put: the same claim in phase S with a nonce, and the hash of a secret where the callee is to have one. The new
fence is the revision of that put; whoever ends the attempt must use it. S is never taken back: it ends in an outcome.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

from crony.domain.record import UnknownRecord
from crony.domain.run import Claim
from crony.errors import Unavailable
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult, exists, mod

STARTED = "S"


class Cut(Unavailable):
    """The node's session is away: nothing is permitted until it is back, or somebody takes the claim over."""


class Standing(NamedTuple):
    """A claim as it stands now, with the fence that ends its attempt."""

    claim: Claim
    fence: int

    @property
    def started(self) -> bool:
        """Whether work that needs a permit may have begun."""
        return self.claim.phase == STARTED


def starting(incarnation: str, count: int, *, node: str, at: float, secret: str = "") -> Claim:
    """The claim that a permit puts, with a nonce of its own. `secret` is the hash, never the secret."""
    return Claim(incarnation, count, STARTED, node, at, secrets.token_hex(16), secret)


def permit(
    client: Client,
    keys: Keys,
    queue: str,
    place: str,
    fence: int,
    claim: Claim,
    *,
    commit: Callable[[Txn], TxnResult] | None = None,
) -> int | None:
    """The new fence: the work may start. None: the claim is not ours any more, it never may.

    Raises `Cut`, `EtcdUnavailable` or `EtcdUnknown`: nobody may start yet. Calling again with the same `claim` clears
    it up: of two such requests etcd carries out one, and the other finds the nonce. Two processes never share a nonce.
    """
    key = keys.claim(queue, place)
    txn = Txn().when(mod(key, fence), exists(keys.session(claim.incarnation))).put(key, claim.encode())
    txn.otherwise.get(key)
    result = (commit or client.txn)(txn)
    if result.succeeded:
        return result.revision
    found: KV | None = next(iter(result.responses[0]), None)
    if found is None:
        return None
    if found.mod == fence:
        raise Cut("this node's session is away", hint="it starts nothing until the session is back")
    there = _read(found)
    return found.mod if there is not None and there.nonce == claim.nonce else None


def standing(client: Client, keys: Keys, queue: str, place: str, incarnation: str, count: int) -> Standing | None:
    """The claim of that delivery, permitted meanwhile or not; None when it is over.

    A later delivery of the same message to the same node has a higher count. Raises `EtcdUnavailable`.
    """
    found = client.get(keys.claim(queue, place))
    claim = _read(found) if found is not None else None
    if found is None or claim is None or (claim.incarnation, claim.count) != (incarnation, count):
        return None
    return Standing(claim, found.mod)


def _read(found: KV) -> Claim | None:
    try:
        return Claim.read(found.value)
    except UnknownRecord:
        return None
