"""When Celery lets go of a run whose attempt nobody ended (N4): the node's parent process ends it, same fence.

A pool process that died, a hard time limit, a revoke, a message that could not be decoded: Celery acknowledges or
rejects, the transport deletes nothing and tells us. What the attempt did is unknown, that it is over is certain.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from crony.domain.outcome import Kind
from crony.errors import CronyError
from crony.lifecycle.end import PATIENCE, Stale, outcome_of
from crony.lifecycle.permit import Standing, standing
from crony.tasks.run import NAME
from crony.transport_etcd import message
from crony.workers import ending, executor
from crony.workers.attempt import Held
from crony.workers.process import Process, current

log = logging.getLogger("crony.worker")

_KEPT = PATIENCE
"""How long a note is kept, seconds. Those whose attempt had been ended already are asked for by nobody."""


class Note(NamedTuple):
    """What Celery's side knows of an attempt it lets go of."""

    kind: Kind
    reason: str
    started_at: float | None = None


_UNKNOWN = Note(Kind.LOST, "Celery let go of it without an outcome")
_Delivery = tuple[str, str, str, int]
_notes: dict[_Delivery, tuple[float, Note]] = {}
_lock = threading.Lock()


def note(held: Held | None, why: Note) -> None:
    """Celery is about to let go of this message; the first note stands."""
    if held is None:
        return
    now = time.monotonic()
    with _lock:
        _notes.setdefault(held.delivery, (now, why))
        while _notes and _notes[oldest := next(iter(_notes))][0] < now - _KEPT:
            del _notes[oldest]


def _noted(held: Held) -> Note:
    with _lock:
        return _notes.pop(held.delivery, (0.0, _UNKNOWN))[1]


class LettingGo:
    """Ends or hands back, one after the other in a thread of its own, the attempts that were let go."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="crony-letting-go", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End what has come so far, within `timeout` seconds."""
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def let_go(self, properties: dict[str, Any], value: bytes) -> None:
        """The transport's hook: Celery acknowledged or rejected, the claim is still there."""
        self._work.put(lambda: end_for(properties, value))

    def requeued(self, properties: dict[str, Any], value: bytes) -> bool:
        """The transport's hook: Celery wants a delivered run back in its queue. It began, so it is ended instead."""
        self._work.put(lambda: end_for(properties, value))
        return True

    def hand_back(self, held: Held, sealed: str) -> None:
        """A run that was claimed and will not start here: the leader shall place it anew."""
        self._work.put(lambda: hand_back(held, sealed))

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            try:
                item()
            except Exception:
                log.exception("a run that Celery let go of could not be ended")


def end_for(properties: dict[str, Any], value: bytes) -> None:
    """End the attempt of a message that was let go; quarantine it when it is not a genuine run message."""
    process, held = current(), Held.read(properties)
    if held is None:
        return
    kind, reason, started_at = _noted(held)
    try:
        sealed = sealed_of(value)
        envelope = executor.opened(process, sealed)
    except (executor.Bad, message.Undecodable) as bad:
        executor.set_aside(process, held, str(bad))
        return
    log.warning("run %s attempt %d: %s", envelope.run, envelope.attempt, reason)
    process.spool.finish(
        envelope.run, envelope.attempt, held.incarnation, note=f"\n[crony: {reason}]\n".encode(errors="replace")
    )
    for _ in range(2):  # a permit that was under way when its process died changes the fence, once
        claim = _standing(process, held)
        if claim is not None:
            held = replace(held, fence=claim.fence)
            if envelope.needs_permit and not claim.started and kind in (Kind.LOST, Kind.TIMED_OUT):
                # Without its permit it did not start, and once this is written it never will: nothing is used up.
                if executor.give_back(process, held, sealed, f"it did not start: {reason}", delivered=True):
                    return
                continue
        outcome = outcome_of(
            envelope,
            kind,
            ended_at=process.now(),
            fence=held.fence,
            reason=reason,
            started_at=started_at,
            node=process.settings.node_name,
            incarnation=held.incarnation,
            secret=claim.claim.secret if claim else "",
        )
        found = ending.settle(process.client, process.keys, sealed, held.place, held.fence, outcome)
        if claim is None or not isinstance(found, Stale):
            return


def _standing(process: Process, held: Held) -> Standing | None:
    """The claim as it is now: the process that died may have changed its fence by a permit."""
    client = process.client
    return ending.persist(
        lambda: standing(client, process.keys, held.queue, held.place, held.incarnation, held.count),
        f"looking at the claim on {held.place}",
    )


def hand_back(held: Held, sealed: str) -> None:
    """Return a run that the pool never started to the leader; quarantine it when it is not genuine."""
    process = current()
    try:
        executor.give_back(process, held, sealed, "its node was stopped before it started")
    except executor.Bad as bad:
        executor.set_aside(process, held, str(bad))


def sealed_of(value: bytes) -> str:
    """The sealed envelope in a stored run message. Raises `Undecodable` when it is not one."""
    stored = message.decode(value)
    try:
        args = json.loads(stored["body"])[0]
        if stored["headers"]["task"] != NAME or not isinstance(args[0], str):
            raise message.Undecodable("not a run message")
        return str(args[0])
    except CronyError:
        raise
    except (ValueError, KeyError, LookupError, TypeError, RecursionError) as error:
        raise message.Undecodable("not a run message", why=type(error).__name__) from None
