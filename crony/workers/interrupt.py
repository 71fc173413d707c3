"""Stopping a Python function in the main thread of a process, and only while the function runs.

A signal handler raises `Stop` inside the function. Outside of it (while an attempt is being ended, say) the signal
does nothing: an end must not be torn. Functions in other threads cannot be stopped.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from billiard.process import current_process

_SIGNAL = signal.SIGVTALRM
_CELERYS = signal.SIGUSR1
"""Celery's soft time limit in pool processes."""


def in_pool_process() -> bool:
    """Whether this is a child of a Celery pool of processes: it may be killed, Celery makes another."""
    return bool(current_process()._name != "MainProcess")


class Stop(BaseException):
    """Raised inside a function that is being stopped. Not an `Exception`, so that `except Exception` lets it pass."""


class Interrupter:
    """The one of a process. A stop is meant for one call only: a late signal never hits the next function."""

    def __init__(self) -> None:
        self._installed = False
        self._inside: object | None = None
        self._wanted: object | None = None
        self._before: Any = None
        self._busy = False

    @property
    def can_stop(self) -> bool:
        """Whether this is the main thread; functions in others cannot be stopped."""
        return threading.current_thread() is threading.main_thread()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """While an attempt is executed and ended, Celery's soft limit raises nothing outside of its function."""
        if not self.can_stop:
            yield
            return
        if not self._installed:
            signal.signal(_SIGNAL, self._on_signal)
            if in_pool_process():
                self._before = signal.signal(_CELERYS, self._on_celerys)
            self._installed = True
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def call(self, function: Callable[[], Any], token: object) -> Any:
        """The function's result; raises `Stop` when `stop(token)` came first."""
        try:
            self._inside = token
            return function()
        finally:
            self._inside = None

    def stop(self, token: object) -> None:
        """Raise `Stop` in the function called with `token`, from another thread; nothing if it has returned."""
        ident = threading.main_thread().ident
        if ident is not None:
            self._wanted = token
            signal.pthread_kill(ident, _SIGNAL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._inside is not None and self._inside is self._wanted:
            self._inside = self._wanted = None
            raise Stop

    def _on_celerys(self, number: int, frame: FrameType | None) -> None:
        if not self._busy:
            if callable(self._before):
                self._before(number, frame)
        elif self._inside is not None:
            self._inside = None
            raise Stop


INTERRUPTER = Interrupter()
