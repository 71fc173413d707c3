"""Ending an attempt for good: the fenced end, repeated through outages for as long as the claim may be ours."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from crony.domain.outcome import Outcome
from crony.domain.run import Envelope
from crony.errors import CronyError, Halted
from crony.etcd.client import Client
from crony.etcd.errors import BadRequest
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult
from crony.lifecycle.end import PATIENCE, Ended, Stale, end
from crony.workers.attempt import Held
from crony.workers.tally import EVENTS, TALLY

log = logging.getLogger("crony.worker")

T = TypeVar("T")


class Counters:
    """What this process counted, for `inspect stats` and tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.ended = self.stale = self.given_up = 0

    def add(self, what: str) -> None:
        """One more."""
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)
        if what in EVENTS:
            TALLY.add(what)


COUNTERS = Counters()


class Ends:
    """Deliveries whose attempt this process has ended, by etcd's word, until Celery has let go of them.

    A pool of threads lives beside the transport, which then need not look what became of a claim. Of what a child of
    a pool of processes ended its parent knows nothing, and looks.
    """

    MOST = 10_000

    def __init__(self) -> None:
        self._ended: dict[tuple[str, str, str, int], None] = {}

    def add(self, held: Held) -> None:
        """Ended; remembered for the transport's question, of the last `MOST` only."""
        self._ended[held.delivery] = None
        if len(self._ended) > self.MOST:
            with contextlib.suppress(StopIteration, RuntimeError):  # another thread was faster
                self._ended.pop(next(iter(self._ended)), None)

    def asked(self, crony: dict[str, Any]) -> bool:
        """The transport's hook `ended`."""
        held = Held.read(crony)
        return held is not None and self._ended.pop(held.delivery, self) is None


ENDS = Ends()


def settle(
    client: Client,
    keys: Keys,
    sealed: str,
    place: str,
    fence: int,
    outcome: Outcome,
    *,
    told: Envelope | None = None,
    commit: Callable[[Txn], TxnResult] | None = None,
    patience: float = PATIENCE,
    gone: tuple[str, ...] = (),
) -> Ended | Stale | None:
    """End the attempt, however long etcd takes to answer; None when `patience` seconds were not enough."""
    what = f"run {outcome.run} attempt {outcome.attempt} ({outcome.kind})"
    found = persist(
        lambda: end(client, keys, sealed, place, fence, outcome, told=told, commit=commit, gone=gone),
        f"the end of {what}",
        patience,
    )
    if isinstance(found, Ended):
        COUNTERS.add("ended")
    elif isinstance(found, Stale):
        stale(found, outcome.run, outcome.attempt, outcome.kind)
    else:
        COUNTERS.add("given_up")
    return found


def stale(found: Stale, run: str, attempt: int, kind: str) -> None:
    """Somebody else has ended the attempt. For an asynchronous one that may well be its callee, who was faster."""
    if found.found is not None and found.found.report:
        log.info("run %s attempt %d (%s): its callee has ended it as %s", run, attempt, kind, found.found.kind)
        return
    COUNTERS.add("stale")
    instead = f"it stands as {found.found.kind}" if found.found else "it was taken over"
    words = "stale end of run %s attempt %d (%s): the claim is not ours any more, %s; this result is dropped"
    log.warning(words, run, attempt, kind, instead)


def persist(act: Callable[[], T], what: str, patience: float = PATIENCE) -> T | None:
    """Do `act` (harmless to repeat) until it is answered; None when it never was, or can never be.

    An etcd that went back in time answers this process never again: to wait would only keep it from being stopped.
    """
    deadline, pause, told = time.monotonic() + patience, 0.1, 0.0
    while True:
        try:
            found = act()
        except BadRequest as error:
            log.error("%s is refused by etcd: %s", what, error)
            return None
        except Halted as error:
            log.critical("%s is not written: %s", what, error)
            return None
        except CronyError as error:
            now = time.monotonic()
            if now >= deadline:
                log.error("%s could not be written within %.0f s: %s", what, patience, error)
                return None
            if now - told >= 60.0:
                log.warning("%s cannot be written yet, trying on: %s", what, error)
                told = now
            time.sleep(min(pause * random.uniform(0.7, 1.3), max(0.0, deadline - now)))
            pause = min(pause * 2, 5.0)
        else:
            if told:
                log.info("%s is written", what)
            return found
