"""Who consumes what: a leased key for each consumer. Anybody can count them, and they end with their process."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter

from crony.errors import CronyError
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.transport_etcd import hooks
from crony.transport_etcd.errors import BrokerUnavailable

_PATIENCE = 0.5
_SILENCE = 5.0


class Presence:
    """The consumers of this process. Thread-safe."""

    def __init__(self, keys: Keys) -> None:
        """`keys`: of the namespace."""
        self._keys = keys
        self._lock = threading.Lock()
        self._queues: Counter[str] = Counter()
        self._silent_until = 0.0

    @property
    def queues(self) -> set[str]:
        """What this process consumes right now."""
        with self._lock:
            return {queue for queue, count in self._queues.items() if count > 0}

    def count(self, queue: str) -> int:
        """How many consumers of this process a queue has."""
        with self._lock:
            return self._queues[queue]

    def enter(self, queue: str, ident: str, session: Session) -> str:
        """A consumer has come: one put. Its key, for `leave`. Raises `BrokerUnavailable` when the session is lost."""
        key = self._keys.consumer(queue, f"{session.incarnation}.{ident}")
        value = json.dumps({"v": 1, "node": hooks.node}, separators=(",", ":")).encode()
        if not session.attach(key, value):
            raise BrokerUnavailable(f"queue {queue!r} cannot be consumed: the session is lost")
        with self._lock:
            self._queues[queue] += 1
        return key

    def leave(self, queue: str, key: str, session: Session | None, *, wait: bool) -> bool:
        """The consumer has gone: etcd is told. Whether that was done at once; waits half a second, then lets it be.

        Without `wait`, or while etcd does not answer, it is done in the background. Never raises.
        """
        with self._lock:
            self._queues[queue] -= 1
            if self._queues[queue] <= 0:
                del self._queues[queue]
        if session is None:
            return True
        done = threading.Event()

        def detach() -> None:
            with contextlib.suppress(CronyError):
                session.detach(key)
                done.set()

        thread = threading.Thread(target=detach, name="crony-leave", daemon=True)
        thread.start()
        if wait and time.monotonic() > self._silent_until:
            thread.join(_PATIENCE)
            if thread.is_alive():  # a worker cancels many consumers at once: it shall not wait for each
                self._silent_until = time.monotonic() + _SILENCE
        return done.is_set()


__all__ = ["Presence"]
