"""Counts of a whole node: the processes of a pool tell their parent of each event through a pipe, one byte each.

No lock is shared and nothing waits: a child may be killed at any instruction, and a full pipe (65,536 events between
two looks) loses counts, never work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter

EVENTS = ("stale", "given_up", "quarantined", "shed")
"""What is counted, as in `domain.figures.NODE_COUNTS`."""


class Tally:
    """Made before the pool forks; `add` in any process, `counts` in the one that made it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, event: str, times: int = 1) -> None:
        """It happened so many times more."""
        with contextlib.suppress(OSError):
            os.write(self._write, bytes([EVENTS.index(event)]) * times)

    def counts(self) -> dict[str, int]:
        """How often each happened so far."""
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(self._read, 65536):
                    for code, times in Counter(data).items():
                        self._counts[EVENTS[code]] += times
            return dict(self._counts)


TALLY = Tally()
