"""Credit and what is outstanding on a channel: how many messages it may hold unacknowledged, and which it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from crony.transport_etcd.claims import Delivery

BUFFER = 200
"""Most messages claimed ahead of delivery when the prefetch count is unlimited."""


class QoS:
    """Thread-safe: the session thread adds, the consuming thread delivers, any thread settles."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called when credit returns."""
        self._wake = wake
        self._lock = threading.Lock()
        self._outstanding: dict[str, Delivery] = {}
        self._waiting = 0
        self._returning = 0
        self._prefetch = 0

    @property
    def prefetch_count(self) -> int:
        """Most unacknowledged messages; 0: no limit."""
        return self._prefetch

    @prefetch_count.setter
    def prefetch_count(self, count: int) -> None:
        self._prefetch = max(0, int(count or 0))
        self._wake()

    def credit(self) -> int:
        """How many more messages may be claimed now."""
        if self._prefetch:
            return max(0, self._prefetch - len(self._outstanding) - self._returning)
        return max(0, BUFFER - self._waiting)

    def can_consume(self) -> bool:
        """Whether there is any credit. May be replaced by a node that knows better when to stop."""
        return self.credit() > 0

    def can_consume_max_estimate(self) -> int:
        """How many messages may still be claimed."""
        return self.credit() if self.can_consume() else 0

    def claimed(self, deliveries: Sequence[Delivery]) -> None:
        """Claimed, not delivered yet."""
        with self._lock:
            for delivery in deliveries:
                self._outstanding[delivery.tag] = delivery
            self._waiting += len(deliveries)

    def delivered(self) -> None:
        """One claimed message was handed to its consumer."""
        with self._lock:
            self._waiting -= 1

    def withdraw(self, deliveries: Iterable[Delivery]) -> None:
        """Claimed but never delivered: not outstanding any more."""
        with self._lock:
            for delivery in deliveries:
                if self._outstanding.pop(delivery.tag, None) is not None:
                    self._waiting -= 1
        self._wake()

    def settle(self, tag: str, multiple: bool = False) -> list[Delivery]:
        """Take the delivery with this tag off the list (`multiple`: and all before it); empty if it is unknown."""
        with self._lock:
            if not multiple:
                found = self._outstanding.pop(tag, None)
                settled = [found] if found is not None else []
            else:
                settled = []
                if tag in self._outstanding:
                    for each in list(self._outstanding):
                        settled.append(self._outstanding.pop(each))
                        if each == tag:
                            break
        if settled:
            self._wake()
        return settled

    def giving_back(self, tag: str) -> Delivery | None:
        """Take the delivery with this tag off the list; its credit returns with `given_back`."""
        with self._lock:
            delivery = self._outstanding.pop(tag, None)
            self._returning += delivery is not None
            return delivery

    def given_back(self) -> None:
        """A message given back is in its queue again."""
        with self._lock:
            self._returning -= 1
        self._wake()

    def outstanding(self) -> list[Delivery]:
        """What is claimed and not settled, oldest first."""
        with self._lock:
            return list(self._outstanding.values())

    def __len__(self) -> int:
        return len(self._outstanding)
