"""Messages that may be lost (events, replies of remote control) leave an event loop's thread this way."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger("crony.transport")

OUTBOX_LIMIT = 10_000
"""Most messages that wait; when etcd is slower than that the oldest are dropped and counted."""


class Outbox:
    """Sends by a thread of its own. Thread-safe."""

    def __init__(self, publish: Callable[[Mapping[str, Any], str, str], None]) -> None:
        """`publish(message, exchange, routing_key)` does the work."""
        self._publish = publish
        self._waiting: deque[tuple[Mapping[str, Any], str, str]] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._closed = False
        self.dropped = 0
        """Messages given up so far."""

    def post(self, message: Mapping[str, Any], exchange: str, routing_key: str) -> None:
        """Send soon."""
        with self._change:
            if len(self._waiting) >= OUTBOX_LIMIT:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((message, exchange, routing_key))
            self._closed = False
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="crony-outbox", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything posted has been sent or given up, `timeout` seconds at most; whether it has."""
        deadline = time.monotonic() + timeout
        with self._change:
            while self._waiting or self._busy:
                if not self._change.wait(deadline - time.monotonic()):
                    return False
            return True

    def close(self) -> None:
        """Stop the thread once it is idle. A later post starts it again."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _run(self) -> None:
        failing = False
        while True:
            with self._change:
                self._busy = False
                self._change.notify_all()
                while not self._waiting:
                    if self._closed:
                        self._thread = None
                        return
                    self._change.wait()
                message, exchange, routing_key = self._waiting.popleft()
                self._busy = True
            try:
                self._publish(message, exchange, routing_key)
                failing = False
            except Exception as error:
                self.dropped += 1
                level = logging.DEBUG if failing else logging.WARNING
                log.log(level, "a transient message to exchange %s was dropped: %s", exchange, error)
                failing = True


__all__ = ["OUTBOX_LIMIT", "Outbox"]
