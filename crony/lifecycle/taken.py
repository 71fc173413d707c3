"""Taken in: how far the leader of a shard has heard of saved jobs, so that a save can say that a leader has it.

Nothing rests on it: what is dispatched compares the job itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from crony.clock import SYSTEM
from crony.domain.record import Record, UnknownRecord
from crony.domain.shards import shard_of
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle import shards
from crony.lifecycle.move import Move

PATIENCE = 0.3
"""Seconds that a save waits for a leader to take it in."""
_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class Taken(Record):
    """`taken/<shard>`: this leader reckons with every save of its jobs up to the etcd revision `upto`."""

    term: int
    upto: int


def tell(keys: Keys, shard: int, taken: Taken) -> Move:
    """Say how far; whoever leads says it anew."""
    return Move(puts={keys.taken(shard): taken.encode()})


def taken_in(client: Client, keys: Keys, job: str, revision: int, patience: float = PATIENCE) -> bool | None:
    """Whether the job's leader has taken in its save at this revision, within `patience` seconds. False: not yet, or
    nobody leads; None: etcd does not say. Never raises."""
    until = SYSTEM.monotonic() + patience
    try:
        shard = shard_of(job, shards.look(client, keys).count)
        while True:
            leader, told = client.txn(Txn().get(keys.leader(shard)).get(keys.taken(shard))).responses
            if not leader:
                return False
            if told:
                taken = Taken.read(told[0].value)
                if taken.term == leader[0].create and taken.upto >= revision:
                    return True
            if SYSTEM.monotonic() >= until:
                return False
            threading.Event().wait(_PAUSE)
    except (CronyError, UnknownRecord, TypeError):
        return None
