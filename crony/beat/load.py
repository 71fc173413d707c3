"""How many runs each queue has: those that lie in it (claimed or not), and those just promised to it.

A decision takes a moment to reach etcd and more are made meanwhile; without promises a crowd of fires would all go to
the node that was the least busy one before them.
"""

from __future__ import annotations

from collections import Counter, deque

PROMISE = 2.0
"""Seconds after which a promise counts no more: its decision was refused, or made otherwise."""


class Load:
    """Counts of one leader. Not thread-safe: it belongs to the decision loop."""

    def __init__(self) -> None:
        self._lying: Counter[str] = Counter()
        self._promised: Counter[str] = Counter()
        self._promises: dict[str, tuple[str, float]] = {}
        self._order: deque[tuple[float, str]] = deque()

    def of(self, queue: str) -> int:
        """Runs of a queue, as of the last `expire` or `promise`."""
        return self._lying[queue] + self._promised[queue]

    def promise(self, run: str, queue: str, now: float) -> None:
        """A decision that gives this run to the queue is on its way; the last such decision about a run counts."""
        self.expire(now)
        self._forget(run)
        until = now + PROMISE
        self._promises[run] = queue, until
        self._promised[queue] += 1
        self._order.append((until, run))

    def came(self, run: str, queue: str) -> None:
        """A message of this run lies in the queue."""
        self._forget(run)
        self._lying[queue] += 1

    def left(self, queue: str) -> None:
        """A message left the queue."""
        self._lying[queue] -= 1
        if self._lying[queue] <= 0:
            del self._lying[queue]

    def expire(self, now: float) -> None:
        """Forget promises that are too old. `now`: monotonic."""
        while self._order and self._order[0][0] <= now:
            until, run = self._order.popleft()
            if self._promises.get(run, ("", 0.0))[1] == until:
                self._forget(run)

    def _forget(self, run: str) -> None:
        queue, _ = self._promises.pop(run, ("", 0.0))
        if queue:
            self._promised[queue] -= 1
            if self._promised[queue] <= 0:
                del self._promised[queue]
