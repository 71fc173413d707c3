"""Celery's request of a run: known from delivery to the end, with a note of why Celery lets go of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from crony.domain.outcome import Kind
from crony.workers import letting_go
from crony.workers.attempt import Held
from crony.workers.executor import STARTS

OPEN: dict[int, RunRequest] = {}
"""Requests from their delivery until Celery lets go of them. Celery's own list forgets on a lost connection, and when
the worker stops, what the pool has not begun with yet but may still begin with."""


class RunRequest(Request):  # type: ignore[misc]
    """A request for `crony.run`."""

    def __init__(self, message: Any, **kwargs: Any) -> None:
        """As of Celery."""
        super().__init__(message, **kwargs)
        # It is read by now: the pool need not do it again, nor be sent the same twice.
        self._body, self._content_type, self._content_encoding = self._payload, None, None
        OPEN[id(self)] = self

    def acknowledge(self) -> None:
        """Celery lets go of it."""
        OPEN.pop(id(self), None)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:
        """Celery lets go of it."""
        OPEN.pop(id(self), None)
        super().reject(requeue=requeue)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The pool says that the task did not come back."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, TimeLimitExceeded):
            self._note(Kind.TIMED_OUT, "over Celery's hard time limit; its process was killed")
        elif isinstance(error, WorkerLostError) and self._overdue():
            self._note(Kind.TIMED_OUT, "the function did not stop, so its process was ended")
        elif isinstance(error, WorkerLostError):
            self._note(Kind.LOST, f"the process that ran it died: {error}")
        else:
            self._note(Kind.LOST, f"its process was ended: {type(error).__name__}: {error}"[:300])
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """A time limit of Celery's passed."""
        if not soft:
            self._note(Kind.TIMED_OUT, f"over Celery's hard time limit of {timeout:g} s; its process was killed")
        return super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> Any:
        self._note(Kind.CANCELLED, f"{reason} by a Celery control command")
        return super()._announce_revoked(reason, terminated, signum, expired)

    @property
    def held(self) -> Held | None:
        """The claim behind it."""
        return Held.read((self.message.properties or {}).get("crony"))

    @property
    def sealed(self) -> str:
        """Its sealed envelope, not verified."""
        return str(self.args[0]) if self.args else ""

    def in_pool(self, *, in_process: bool) -> bool:
        """Whether the pool has it, so that it may start at any moment. `in_process`: the pool's threads are ours.

        A pool of processes forgets on a lost connection what it has not written to a child: that never starts.
        """
        if in_process:
            return True
        job = self._pooled
        return job is not None and (job._accepted or job._job in job._cache)

    @property
    def _pooled(self) -> Any:
        """What a pool of processes keeps of it; None when it never had it, or forgot it."""
        return self._apply_result() if self._apply_result is not None else None  # a weak reference

    def withdraw(self, *, in_process: bool) -> bool:
        """Keep it from starting; False when it has started or may have.

        In a pool of processes only what was never given to it is certain, and the caller must see that it stays so.
        """
        held = self.held
        if held is None or self.acknowledged or self.time_start is not None:
            return False
        if in_process and not STARTS.withdraw(held):
            return False
        if not in_process and self._apply_result is not None:
            return False
        OPEN.pop(id(self), None)
        return True

    def _overdue(self) -> bool:
        """Whether its process ended itself after the timeout (see the Python runner's last resort)."""
        job, soft = self._pooled, self.time_limits[1]
        if job is None or job._write_to is None or not job._time_accepted or not soft:
            return False
        return bool(job._write_to.exitcode == 1 and time.monotonic() - job._time_accepted > soft)

    def _note(self, kind: Kind, reason: str) -> None:
        letting_go.note(self.held, letting_go.Note(kind, reason, self.time_start))


def flushing(flush: Callable[[], None]) -> Callable[[], None]:
    """Wraps a process pool's `flush` (called on a lost connection): it keeps the runs that a child was given.

    The pool discards all that no child has accepted yet; of a run on its way to a child, or waiting in the child's
    pipe, nobody would hear again. To the pool it is as good as accepted.
    """

    def kept() -> None:
        jobs = [job for request in list(OPEN.values()) if (job := request._pooled) is not None]
        given = [job for job in jobs if job._write_to is not None and not job._accepted]
        for job in given:
            job._accepted = True
        try:
            flush()
        finally:
            for job in given:
                job._accepted = job._time_accepted is not None

    return kept
