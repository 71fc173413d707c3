"""How far a running attempt is, as its own node tells: a put of `run/beat/<r>` that compares the claim (the fence).

Beside the claim and not in it, whose revision is the fence. It is the newest only, and goes with the end of the
attempt; what an attempt leaves that somebody else ended names that attempt, is not shown for another, and is cleared
up.
"""

from __future__ import annotations

from crony.domain.run import Beat
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod


def transaction(keys: Keys, run: str, queue: str, place: str, fence: int, beat: Beat) -> Txn:
    """The put as a transaction; refused when the attempt is not this holder's any more."""
    return Txn().when(mod(keys.claim(queue, place), fence)).put(keys.run_beat(run), beat.encode())
