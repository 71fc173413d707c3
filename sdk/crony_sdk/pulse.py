"""The heartbeats of all attempts of this process: a few threads, however many attempts there are."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from crony_sdk import forks

log = logging.getLogger("crony_sdk")

THREADS = 4


class Pulse:
    """Calls methods later, and again after as many seconds as they answer, until they answer None.

    A method of an object that nobody else holds any more is forgotten.
    """

    def __init__(self) -> None:
        self.after_fork()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """The parent goes on beating for what it took; the child begins with nothing."""
        self._change = threading.Condition()
        self._due: list[tuple[float, int, weakref.WeakMethod[Any]]] = []
        self._order = itertools.count()
        self._threads = 0

    def add(self, method: Callable[[], float | None], delay: float) -> None:
        """Call a bound method after `delay` seconds."""
        with self._change:
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), weakref.WeakMethod(method)))
            if self._threads < min(THREADS, len(self._due)):
                self._threads += 1
                threading.Thread(target=self._run, name="crony-pulse", daemon=True).start()
            self._change.notify()

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._change.wait(self._due[0][0] - time.monotonic() if self._due else None)
                method = heapq.heappop(self._due)[2]()
            if method is not None:
                try:
                    delay: float | None = method()
                except Exception:
                    log.exception("a heartbeat failed in a way that should not be; it goes on")
                    delay = 5.0
                if delay is not None:
                    self.add(method, delay)
            del method


PULSE = Pulse()
"""The one of this process."""
