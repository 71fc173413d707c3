"""Leases for what has a short life: granted when needed, never renewed (E7)."""

from __future__ import annotations

import threading
import time

from crony.etcd.client import Client


class ShortLease:
    """The lease of what has a short life: a new one every half life, or when it holds many keys."""

    def __init__(self, client: Client, ttl: float, *, most: int) -> None:
        """`ttl`: longest life of a key, seconds; at least half of it is certain. `most`: keys for one lease."""
        self._client, self._ttl, self._most = client, ttl, most
        self._lock = threading.Lock()
        self._lease = 0
        self._until = 0.0
        self._keys = 0

    def id(self, keys: int = 1) -> int:
        """A lease with at least half its life left, for so many more keys. Raises what the client raises."""
        with self._lock:
            if not self._lease or time.monotonic() > self._until or self._keys >= self._most:
                self._until = time.monotonic() + self._ttl / 2
                self._lease, self._keys = self._client.grant(self._ttl), 0
            self._keys += keys
            return self._lease

    def forget(self) -> None:
        """The lease turned out to be gone."""
        with self._lock:
            self._lease = 0


__all__ = ["ShortLease"]
