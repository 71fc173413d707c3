"""Free a slot (Q3) whose run is nowhere: the key says where its message was put, and nothing is there any more."""

from __future__ import annotations

from crony.domain.pool import Slot
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def free_slot(keys: Keys, slot_key: str, *, slot_seen: int, slot: Slot | None) -> Move:
    """Give the slot back while neither the message it was taken with nor an accepted run is there.

    `slot` is what the key says; None when nobody can read it: then no message names it either.
    """
    seen = {slot_key: slot_seen}
    if slot is not None:
        seen |= {keys.message(slot.queue, slot.place): 0, keys.run_acc(slot.run): 0}
    return Move(seen, deletes=(slot_key,))
