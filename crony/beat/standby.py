"""Standing by for one shard: what a centre knows of it is kept current while another one leads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from crony.beat.knowledge import Knowledge
from crony.errors import CronyError, Forbidden, Halted

log = logging.getLogger("crony.beat")

LONGEST_SLEEP, READING_SLEEP = 0.2, 0.02
"""Seconds; the second one while documents are still to be read."""


class Standby:
    """A thread that owns one shard's knowledge until it is taken over."""

    def __init__(self, shard: int, make: Callable[[], Knowledge]) -> None:
        """`make` begins anew with knowledge of nothing."""
        self._shard, self._make = shard, make
        self._knowledge: Knowledge | None = None
        self._stop = threading.Event()
        self.halted: Halted | None = None
        """Why it knows nothing until etcd is recovered."""
        self._thread = threading.Thread(target=self._run, name=f"crony-standby-{shard}", daemon=True)

    def start(self) -> Standby:
        """Begin to take in."""
        self._thread.start()
        return self

    @property
    def warm(self) -> bool:
        """Whether it knows everything of the shard up to a moment ago. Raises `Halted`."""
        if self.halted is not None:
            raise self.halted
        return self._knowledge is not None

    def take(self) -> Knowledge | None:
        """What it knows, which is the caller's from now on; None: nothing."""
        self._stop.set()
        if self._knowledge is not None:
            self._knowledge.wake()
        self._thread.join()
        found, self._knowledge = self._knowledge, None
        return found

    def end(self) -> None:
        """Let go of what it knows."""
        found = self.take()
        if found is not None:
            found.leave()

    def _run(self) -> None:
        sleep = 0.0
        while not self._stop.is_set():
            try:
                if self._knowledge is None:
                    made = self._make()
                    made.join()
                    self._knowledge = made
                    log.info("this centre stands by for shard %d with %d jobs, from revision %d",
                             self._shard, len(made.book.jobs), made.listed_at)  # fmt: skip
                sleep = READING_SLEEP if self._knowledge.stand_by(sleep) else LONGEST_SLEEP
            except Halted as error:
                self.halted = error
                return
            except CronyError as error:
                log.log(logging.ERROR if isinstance(error, Forbidden) else logging.WARNING,
                        "shard %d cannot be listed: %s", self._shard, error)  # fmt: skip
                self._stop.wait(5.0 if isinstance(error, Forbidden) else 0.5)
            except Exception:
                log.exception("what is known of shard %d is thrown away", self._shard)
                self._forget()
                self._stop.wait(1.0)

    def _forget(self) -> None:
        found, self._knowledge = self._knowledge, None
        if found is not None:
            found.leave()
