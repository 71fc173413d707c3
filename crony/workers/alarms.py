"""One thread per process that calls functions at a time: deadlines of attempts, mostly."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("crony.worker")


LONGEST_WAIT = 60.0
_MANY = 1024
"""So many alarms are looked through for cancelled ones: most are cancelled long before their time."""


class Alarm:
    """One call to come."""

    __slots__ = ("call", "cancelled")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.cancelled = call, False

    def cancel(self) -> None:
        """Do not call any more. A call that has begun goes on."""
        self.cancelled = True


class Alarms:
    """Calls functions when their time has come, one after the other; they must be quick."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._tidy_at = _MANY
        self._looks_at = 0.0
        """When the thread looks next by itself; alarms later than that need not wake it."""

    def after(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """Call `call` in `seconds` (monotonic)."""
        alarm, at = Alarm(call), time.monotonic() + seconds
        with self._changed:
            heapq.heappush(self._heap, (at, next(self._order), alarm))
            if len(self._heap) >= self._tidy_at:
                self._heap = [each for each in self._heap if not each[2].cancelled]
                heapq.heapify(self._heap)
                self._tidy_at = max(_MANY, 2 * len(self._heap))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="crony-alarms", daemon=True)
                self._thread.start()
            elif at < self._looks_at:
                self._looks_at = at
                self._changed.notify()
        return alarm

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._heap and self._heap[0][2].cancelled:
                    heapq.heappop(self._heap)
                now = time.monotonic()
                left = min(self._heap[0][0] - now, LONGEST_WAIT) if self._heap else LONGEST_WAIT
                if left > 0:
                    self._looks_at = now + left
                    self._changed.wait(left)
                    continue
                alarm = heapq.heappop(self._heap)[2]
            if alarm.cancelled:
                continue
            try:
                alarm.call()
            except Exception:
                log.exception("an alarm failed")
