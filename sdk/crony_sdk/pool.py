"""A bounded pool for handlers that work in the background: it refuses rather than piles up."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from crony_sdk import forks
from crony_sdk.errors import Invalid

log = logging.getLogger("crony_sdk")
Task = Callable[[], None]


class Pool:
    """At most `threads` tasks at a time, at most `queue` more waiting. Threads start with the work, and end with it."""

    def __init__(self, threads: int, queue: int) -> None:
        if threads < 1 or queue < 0:
            raise Invalid("threads", "must be 1 or more, and the queue 0 or more")
        self._most, self._queue = threads, queue
        self.after_fork()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """A child has none of its parent's work."""
        self._change = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._threads = self._idle = 0
        self._closed = False

    def submit(self, task: Task) -> bool:
        """Run it soon; false when there is no room, or the pool is closed."""
        with self._change:
            free = self._most - self._threads + self._idle
            if self._closed or len(self._waiting) >= free + self._queue:
                return False
            self._waiting.append(task)
            if self._idle < len(self._waiting) and self._threads < self._most:
                self._threads += 1
                self._idle += 1  # it will be, before it takes the first task
                threading.Thread(target=self._run, name="crony-work", daemon=True).start()
            self._change.notify()
            return True

    def close(self, grace: float) -> None:
        """Take nothing more, drop what has not begun, and wait up to `grace` seconds for what runs."""
        until = time.monotonic() + grace
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()
            while self._threads and (left := until - time.monotonic()) > 0:
                self._change.wait(left)

    def _run(self) -> None:
        while True:
            with self._change:
                patient = True
                while not self._waiting and not self._closed and patient:
                    patient = self._change.wait(30.0)
                self._idle -= 1
                if not self._waiting:
                    self._threads -= 1
                    self._change.notify_all()
                    return
                task = self._waiting.popleft()
            try:
                task()
            except Exception:
                log.exception("work in the background failed in a way that should not be")
            del task
            with self._change:
                self._idle += 1
