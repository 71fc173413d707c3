"""Where a message lies in its queue: fixed before the first try of a publish, so that a second one finds it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crony.domain import ids
from crony.etcd.client import Client

if TYPE_CHECKING:
    from crony.transport_etcd.receipts import Receipt

STAMP = "crony_stamp"
"""Property that holds a message's stamp from before the first try until it is confirmed; never stored."""
_MAX_SKEW = 2.0


class Stamp(str):
    """`<sequence>.<id>`: what distinguishes one publish from every other. Remembers what is in doubt about it."""

    receipt: Receipt | None = None
    """The receipt that tells whether an earlier try arrived; None: nothing was tried, or it is known."""


class Stamps:
    """Stamps for new messages: in order for one process, close to etcd's clock between processes."""

    def __init__(self, client: Client) -> None:
        """`client`: knows etcd's clock."""
        self._client = client
        self._last, self._id = 0, ids.fresh("e")
        self._lock = threading.Lock()

    @property
    def offset(self) -> float:
        """Correction of our wall clock, seconds: only when it is clearly off, for etcd tells whole seconds."""
        offset = self._client.clock_offset
        return offset if abs(offset) > _MAX_SKEW else 0.0

    def now(self) -> float:
        """The time by etcd's clock, as far as it is known; epoch seconds."""
        return time.time() + self.offset

    def next(self) -> Stamp:
        """A new one: microseconds that only go up, and the id of this counter: together like no other."""
        now = int(self.now() * 1e6)
        with self._lock:
            self._last = last = max(self._last + 1, now)
        return Stamp(f"{last:016x}.{self._id}")


def place_at(priority: int, stamp: str) -> str:
    """The place of a message: higher priorities (0-9) first, then in the order of the stamps."""
    return f"{9 - priority}{stamp}"


def later_place(priority: int, instant: float, stamp: str) -> str:
    """The place of a message that comes into its queue at `instant` (epoch seconds), not when it was published."""
    sequence, _, ident = stamp.partition(".")
    return f"{9 - priority}{int(instant * 1e6):016x}.{ident}-{sequence}"


def published_at(place: str) -> float:
    """When the message at a place came into its queue, epoch seconds; 0 if the place does not tell."""
    try:
        return int(place[1:17], 16) / 1e6
    except ValueError:
        return 0.0


def priority_of(properties: Mapping[str, Any]) -> int:
    """A message's priority, 0-9; 0 if it has none that can be read."""
    try:
        return min(9, max(0, int(properties.get("priority") or 0)))
    except (TypeError, ValueError):
        return 0


__all__ = ["STAMP", "Stamp", "Stamps", "later_place", "place_at", "priority_of", "published_at"]
