"""Slots of pools (Q3): taken with the transaction that puts a run's message, given back with the one that removes it.

A slot is taken by comparing that it is absent and that its pool is as it was seen. So a message, or an accepted run,
holds what its sealed envelope names, and whoever takes it away deletes that in the same transaction, without looking.
A run that waits holds none.
"""

from __future__ import annotations

from crony.domain.run import Envelope
from crony.etcd.keys import Keys


def slots_of(keys: Keys, told: Envelope) -> tuple[str, ...]:
    """Keys of the slots that an attempt holds; what cannot be one is left out."""
    found = []
    for text in told.slots:
        pool, _, index = str(text).rpartition("/")
        if pool and index.isascii() and index.isdigit():
            found.append(keys.slot(pool, int(index)))
    return tuple(dict.fromkeys(found))
