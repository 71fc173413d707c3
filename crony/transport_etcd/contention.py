"""Several consumers of one queue: how each finds messages that nobody else is just claiming.

Alone, a consumer claims from the head. When claims are refused it spreads: it begins at a random place among the next
messages of the same priority, the farther the more is refused. When there are too few messages to spread over, a hash
of message and process says whose turn it is; the others wait a little for each one before them.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from zlib import crc32

MOST_SPREAD = 400
TURN = 0.003
"""Seconds to leave to each process whose turn comes before ours: a claim and the news of it."""
_LEAST_SPREAD = 32
_CROWD = 64
_TOLERATED = 0.03
_CALMING = 0.985
_LAST_TURN = 12


class Contention:
    """What a consumer has learnt of the others from its refused claims. Not thread-safe."""

    def __init__(self) -> None:
        """Alone until a claim is refused."""
        self._spread = 0.0

    @property
    def spread(self) -> int:
        """Among how many ready messages to choose; 0: take the first ones."""
        return int(self._spread)

    def noted(self, tried: int, refused: int, *, alone: bool = False) -> None:
        """So many claims were asked for, so many of them refused.

        `alone`: nobody else claims from this queue. Then a refusal means that what we knew was out of date (our own
        release or takeover, not seen yet), and spreading would only give up the order.
        """
        if alone:
            self._spread = 0.0
        elif refused > tried * _TOLERATED:
            self._spread = min(MOST_SPREAD, max(_LEAST_SPREAD, self._spread * (1 + 2 * refused / tried)))
        elif self._spread:
            self._spread *= _CALMING
            if self._spread < _LEAST_SPREAD / 2:
                self._spread = 0.0

    def start(self, ready: int, most: int) -> int:
        """Where to begin among `ready` messages when `most` are wanted; the head is as likely as a whole batch."""
        room = min(ready, self.spread) - most
        return max(0, random.randint(-most, room)) if room > 0 else 0


def turn(place: str, me: str, others: Collection[str]) -> int:
    """How many of these processes come before us for the message at `place`; the same order for everybody."""
    if len(others) > _CROWD:
        return random.randrange(_LAST_TURN)
    seed = crc32(place.encode())
    mine = _mixed(me, seed)
    return min(_LAST_TURN, sum(1 for other in others if _mixed(other, seed) < mine))


def _mixed(process: str, seed: int) -> int:
    """A checksum alone is linear: some processes would come first far more often than others."""
    number = crc32(process.encode(), seed)
    number = ((number ^ number >> 16) * 0x85EBCA6B) & 0xFFFF_FFFF
    number = ((number ^ number >> 13) * 0xC2B2AE35) & 0xFFFF_FFFF
    return number ^ number >> 16


def turns(places: Sequence[str], me: str, others: Collection[str]) -> list[int]:
    """Our turn for each of these messages."""
    return [turn(place, me, others) for place in places]


__all__ = ["MOST_SPREAD", "TURN", "Contention", "turn", "turns"]
