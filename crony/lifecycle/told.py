"""Told (23): the first thing a new leader writes, one key in the range of each watch that it goes by.

What a watch tells of it comes after everything that was written before it, so the leader then knows all of that.
"""

from __future__ import annotations

from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def told(keys: Keys, shard: int, term: int) -> Move:
    """Put the keys. The leader's own compare is all that it needs: they are nobody else's."""
    return Move({}, puts={key: str(term).encode() for key in keys.told(shard)})
