"""Transaction 19, quarantine: a message that must not be acted on is moved to `dead/`, never executed, never lost.

The leader, which knows whether that run is real, or a person decides what becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from crony.domain.record import Record
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod


@dataclass(frozen=True, slots=True)
class Dead(Record):
    """`dead/<queue>/<place>`: the message as found, and why it was set aside."""

    queue: str
    place: str
    reason: str
    message: str
    """The stored message, undecodable bytes escaped with backslashes."""
    node: str = ""
    at: float = 0.0


def quarantine(
    client: Client, keys: Keys, queue: str, place: str, fence: int, reason: str, *, node: str = "", at: float = 0.0
) -> bool:
    """Move the message to `dead/` and drop the claim, if the claim's revision is `fence`. False: leave it, not ours.

    Raises `EtcdUnavailable` or `EtcdUnknown`; repeating is harmless.
    """
    message, claim = keys.message(queue, place), keys.claim(queue, place)
    stored = client.get(message)
    if stored is None:
        return False
    text = stored.value.decode(errors="backslashreplace")
    record = Dead(queue=queue, place=place, reason=reason, message=text, node=node, at=at)
    txn = Txn().when(mod(message, stored.mod), mod(claim, fence))
    txn.put(keys.dead(queue, place), record.encode()).delete(message).delete(claim)
    return client.txn(txn).succeeded
