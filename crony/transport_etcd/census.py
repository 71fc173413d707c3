"""Since when a queue rests: remembered from look to look, because etcd keeps no time of a queue's last message."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from crony.transport_etcd.link import Link


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """A queue at one moment."""

    name: str
    ready: int
    """Messages that nobody holds."""
    held: int
    """Messages that a consumer holds."""
    consumers: int
    idle_since: float | None
    """Epoch seconds since which nothing was seen to happen in it; None: it is busy. See `Census`."""


class Census:
    """Looks at queues. Thread-safe.

    `idle_since` is the first of our looks that found the queue as it is now; what comes and goes between two looks is
    not noticed.
    """

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._seen: dict[str, tuple[tuple[Any, ...], float]] = {}
        self._lock = threading.Lock()

    def look(self, link: Link, queue: str) -> QueueFacts:
        """The queue as it is now. Raises what the client raises."""
        ready, held = link.contents.counts(queue)
        consumers = link.client.count(link.keys.consumer(queue))
        since = self._since(link.keys.messages(queue), (ready, held, consumers))
        return QueueFacts(queue, ready, held, consumers, None if held else since)

    def _since(self, queue: str, seen: tuple[Any, ...]) -> float:
        with self._lock:
            known, since = self._seen.get(queue, (None, 0.0))
            if known != seen:
                since = time.time()
                self._seen[queue] = seen, since
            return since


__all__ = ["Census", "QueueFacts"]
