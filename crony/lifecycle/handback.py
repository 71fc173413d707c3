"""Hand back: the holder of a claim returns an attempt that it has not started, for the leader to place anew.

As re-route (14), made by the holder under its fence instead of by the leader after the holder's loss: message and
claim go, the sealed envelope waits. The attempt was not used up.
"""

from __future__ import annotations

from crony.domain.run import Envelope, Wait, WaitReason
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.slots import slots_of


def hand_back(
    client: Client,
    keys: Keys,
    told: Envelope,
    sealed: str,
    place: str,
    fence: int,
    *,
    at: float,
    detail: str,
    node: str,
) -> bool:
    """Put the run back to `wait`, if the claim's revision is `fence`. False: the claim is not ours any more.

    `told` is the verified content of `sealed`, with the deliveries that count by now; `node` hands it back.
    Raises `EtcdUnavailable` or `EtcdUnknown`; repeating is harmless.
    """
    wait = Wait(
        run=told.run,
        envelope=sealed,
        finished=told.attempt - 1,
        reason=WaitReason.REROUTE.value,
        since_at=at,
        deliveries=told.deliveries,
        losses=told.losses,
        detail=detail,
        avoid=list(told.avoid),
        node=node,
    )
    claim = keys.claim(told.queue, place)
    txn = Txn().when(mod(claim, fence)).delete(keys.message(told.queue, place)).delete(claim)
    for slot in slots_of(keys, told):
        txn.delete(slot)
    return client.txn(txn.put(keys.run_wait(told.run), wait.encode())).succeeded
