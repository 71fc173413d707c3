"""What this process knows of the queues of a namespace: what it declared, bound, read and deleted lately. No I/O."""

from __future__ import annotations

import threading
import time

from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.transport_etcd.declared import Declared

_RENEWED = 5.0
_GHOSTS = 200
_STRIPES = 64


class Remembered:
    """A process's memory of queues. Thread-safe."""

    def __init__(self, keys: Keys) -> None:
        """`keys`: of the namespace."""
        self._keys = keys
        self._lock = threading.Lock()
        self._turns = [threading.RLock() for _ in range(_STRIPES)]
        """Held over what changes a queue in etcd and here: else one thread could delete it, another make it again, and
        the first then forget what the second knows."""
        self._known: set[str] = set()
        self._declared: dict[str, Declared] = {}
        self._learned: dict[str, tuple[Declared, float]] = {}
        self._renewed: dict[str, float] = {}
        self._ghosts: dict[str, tuple[Declared, set[tuple[str, str]]]] = {}
        """What was known of queues deleted lately: another thread may be about to consume one."""
        self._bound: dict[str, set[tuple[str, str]]] = {}
        self._since: dict[tuple[str, str], int] = {}

    def _turn(self, queue: str) -> threading.RLock:
        return self._turns[hash(queue) % _STRIPES]

    def _lately(self, queue: str, declared: Declared, session: Session | None) -> bool:
        """Whether it was declared so recently that it is certainly still there."""
        if declared.leased:
            return session is not None and session.holds(self._keys.queue_record(queue))
        window = min(_RENEWED, declared.expires / 4) if declared.expires is not None else _RENEWED
        return declared.volatile and time.monotonic() - self._renewed.get(queue, 0.0) < window

    def declared(self, queue: str) -> Declared:
        """What this process knows of the queue's declaration, without asking; a plain one if nothing."""
        ours = self._declared.get(queue)
        if ours is not None:
            return ours
        learned = self._learned.get(queue)
        return learned[0] if learned is not None else Declared()

    def known(self, queue: str) -> bool:
        """Whether the queue's record was seen to be there."""
        return queue in self._known

    def remember(self, queue: str) -> None:
        """The queue's record is there."""
        with self._lock:
            self._known.add(queue)

    def idle(self, in_use: set[str]) -> list[str]:
        """Exclusive queues of ours that have been unused for as long as they may be; those `in_use` are not."""
        now = time.monotonic()
        with self._lock:
            mine = [(name, each.expires) for name, each in self._declared.items() if each.leased]
            for name in in_use:
                self._renewed[name] = now
            return [name for name, life in mine if life is not None and now - self._renewed.get(name, now) > life]

    def listened(self, queue: str, exchange: str, revision: int) -> None:
        """Broadcasts up to `revision` have been delivered."""
        self._since[(queue, exchange)] = revision

    def _forget(self, queue: str) -> None:
        with self._lock:
            declared, bound = self._declared.pop(queue, None), self._bound.pop(queue, set())
            if declared is not None and declared.volatile:
                self._ghosts.pop(queue, None)
                self._ghosts[queue] = declared, bound
                if len(self._ghosts) > _GHOSTS:
                    del self._ghosts[next(iter(self._ghosts))]
            self._learned.pop(queue, None)
            self._renewed.pop(queue, None)
            self._known.discard(queue)
            for pair in [pair for pair in self._since if pair[0] == queue]:
                del self._since[pair]

    def all_gone(self) -> None:
        """The session was lost: exclusive queues have to be declared again."""
        with self._lock:
            for queue in [name for name, declared in self._declared.items() if declared.leased]:
                self._declared.pop(queue)
                self._bound.pop(queue, None)


__all__ = ["Remembered"]
