"""What a duty is: work of the leader, either on the decision loop or in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from crony.errors import CronyError, Halted

log = logging.getLogger("crony.beat")

LONGEST_PAUSE = 30.0


class Duty(Protocol):
    """Work on the decision loop: quick, never blocking, decided from the book."""

    def work(self) -> float | None:
        """Do what can be done now; seconds until it wants to be called again, None: on news only."""


class Background:
    """A duty that waits for others (database, etcd's upkeep): own thread, own pace, never in the loop's way.

    `task` is called every `period` seconds, at once after `nudge`, and with growing pauses while it fails. A failure
    is logged when it begins and when it is over.
    """

    def __init__(self, name: str, period: float, task: Callable[[], None]) -> None:
        self.name, self.period, self._task = name, period, task
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.failure = ""
        """Why it does not work right now; empty: it does."""
        self._thread = threading.Thread(target=self._run, name=f"crony-beat-{name}", daemon=True)

    def start(self) -> Background:
        """Begin, at once."""
        self._thread.start()
        return self

    def nudge(self) -> None:
        """Do it now."""
        self._wake.set()

    def stop(self) -> None:
        """Begin nothing more; does not wait."""
        self._stopping.set()
        self._wake.set()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop: long tasks look at this between their parts."""
        return self._stopping.is_set()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                self._task()
            except Halted as error:
                log.critical("%s: %s", self.name, error)
                return
            except Exception as error:
                failures += 1
                if str(error) != self.failure and not self._stopping.is_set():
                    known = isinstance(error, CronyError)
                    log.warning("%s does not work: %s", self.name, error, exc_info=None if known else error)
                self.failure = str(error) or type(error).__name__
                self._wake.wait(min(LONGEST_PAUSE, 0.25 * 2 ** min(failures, 10)))
                continue
            if failures:
                log.warning("%s works again", self.name)
            failures, self.failure = 0, ""
            self._wake.wait(self.period)
