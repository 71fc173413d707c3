"""Transaction 11, accept: the callee has the work and will end the attempt itself; the node is free.

Compared: the claim's revision (the fence), and that no cancel was ordered. Message and claim go, `run/acc/<r>` comes,
in one step: at every moment the run is in one place, and whoever ends the attempt from then on compares that record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crony.domain.outcome import Outcome
from crony.domain.run import Accepted, Envelope
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult, absent, mod
from crony.lifecycle.end import Stale
from crony.lifecycle.standing import read


@dataclass(frozen=True, slots=True)
class Waiting:
    """The run is accepted and waits for its callee: now, or since an earlier try whose answer was lost."""


@dataclass(frozen=True, slots=True)
class CancelOrdered:
    """Somebody wants the run stopped: nothing was written, the holder is to end the attempt as cancelled."""


def accept(
    client: Client,
    keys: Keys,
    told: Envelope,
    place: str,
    accepted: Accepted,
    *,
    commit: Callable[[Txn], TxnResult] | None = None,
) -> Waiting | CancelOrdered | Stale:
    """Let the run wait for its callee, if the claim's revision is `accepted.fence`.

    `Stale` names the outcome where there is one: the callee may have completed before this came, which is as good.
    Raises `EtcdUnavailable` or `EtcdUnknown`: calling again is right in both cases.
    """
    result = (commit or client.txn)(transaction(keys, told, place, accepted))
    if result.succeeded:
        return Waiting()
    waiting, claim, out = (found[0] if found else None for found in result.responses)
    there = read(Accepted, waiting)
    if there is not None and there.fence == accepted.fence:
        return Waiting()
    if claim is not None and claim.mod == accepted.fence:
        return CancelOrdered()
    return Stale(read(Outcome, out))


def transaction(keys: Keys, told: Envelope, place: str, accepted: Accepted) -> Txn:
    """The acceptance as one transaction; refused, it answers with accepted record, claim and outcome as they are."""
    message, claim = keys.message(told.queue, place), keys.claim(told.queue, place)
    txn = Txn().when(mod(claim, accepted.fence), absent(keys.cmd(accepted.node, told.run)))
    txn.delete(message).delete(claim).put(keys.run_acc(told.run), accepted.encode())
    txn.otherwise.get(keys.run_acc(told.run)).get(claim).get(keys.out(told.run, told.attempt))
    return txn
