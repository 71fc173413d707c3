"""How far attempts are, told to etcd by one thread of their process: the newest word of each, now and then.

A function may say it a thousand times a second. Saying it costs no request and never waits, whatever etcd does.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass

from crony.domain.callback import line
from crony.domain.run import Beat
from crony.errors import CronyError
from crony.lifecycle.progress import transaction
from crony.workers.attempt import Attempt
from crony.workers.process import Process

log = logging.getLogger("crony.worker")

EVERY = 2.0
"""Seconds between two writes of one attempt, at least."""


@dataclass(eq=False)
class Progress:
    """What one attempt says of itself. Any thread may say it."""

    attempt: Attempt
    teller: Teller
    percent: float | None = None
    message: str = ""
    changed: bool = False
    told: bool = False
    """Something of it may be in etcd."""
    closed: bool = False
    next_at: float = 0.0
    """Monotonic."""

    def say(self, percent: float | None, message: str | None) -> None:
        """So far; what is None stays as it was. Raises `ValueError` for a percentage that is no number."""
        if percent is not None:
            percent = float(percent)
            if not math.isfinite(percent):
                raise ValueError(f"percent must be a number from 0 to 100, not {percent}")
            percent = min(100.0, max(0.0, percent))
        text = line(self.attempt.mask.text(message)) if message is not None else None
        self.teller.note(self, percent, text)

    def close(self) -> bool:
        """Nothing more is written. Whether something may be in etcd, to be deleted by who ends the attempt."""
        return self.teller.close(self)


class Teller:
    """Writes the progress of the attempts of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._changed = threading.Condition()
        self._due: dict[int, Progress] = {}
        """Those with something new, longest first."""
        self._thread: threading.Thread | None = None

    def note(self, progress: Progress, percent: float | None, message: str | None) -> None:
        """The newest word of an attempt."""
        with self._changed:
            if progress.closed:
                return
            progress.percent = progress.percent if percent is None else percent
            progress.message = progress.message if message is None else message
            self._due.setdefault(id(progress), progress)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="crony-progress", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, progress: Progress) -> bool:
        """See `Progress.close`."""
        with self._changed:
            progress.closed = True
            self._due.pop(id(progress), None)
            return progress.told

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                ready = next((each for each in self._due.values() if each.next_at <= now), None)
                if ready is None:
                    first = min((each.next_at for each in self._due.values()), default=now + 60.0)
                    self._changed.wait(max(0.001, first - now))
                    continue
                del self._due[id(ready)]
                ready.told, ready.next_at = True, now + EVERY
                beat = Beat(self._process.now(), ready.percent, ready.message, ready.attempt.envelope.attempt)
            self._write(ready, beat)

    def _write(self, progress: Progress, beat: Beat) -> None:
        held, process = progress.attempt.held, self._process
        try:
            process.client.txn(
                transaction(process.keys, progress.attempt.envelope.run, held.queue, held.place, held.fence, beat)
            )
        except CronyError as error:  # it is gone, and nothing waits for it: the next one says more
            log.debug("the progress of run %s is not written: %s", progress.attempt.envelope.run, error)
        except Exception:
            log.exception("the progress of run %s cannot be written", progress.attempt.envelope.run)


def progress_of(attempt: Attempt) -> Progress:
    """What this attempt says of itself: one object, made when first asked for."""
    if attempt.progress is None:
        process = attempt.process
        attempt.progress = Progress(attempt, process.own("progress", lambda: Teller(process)))
    return attempt.progress
