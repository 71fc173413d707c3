"""A lease and what we may believe about it: its holder knows of the loss before etcd ends it."""

from __future__ import annotations

from crony.clock import SYSTEM
from crony.etcd.client import Client


class Lease:
    """A granted lease with a deadline of our own: the last successful renewal's send time + ttl - margin."""

    def __init__(self, client: Client, ident: int, ttl: float, sent: float) -> None:
        """Use `Lease.grant`. `sent`: boot-time clock just before the grant left."""
        self._client = client
        self.id, self.ttl = ident, ttl
        self._deadline = sent + ttl - self.margin

    @classmethod
    def grant(cls, client: Client, ttl: float, *, timeout: float | None = None) -> Lease:
        """A new lease of `ttl` seconds."""
        sent = SYSTEM.monotonic()
        return cls(client, client.grant(ttl, timeout=timeout), ttl, sent)

    @property
    def margin(self) -> float:
        """Seconds by which we stop believing before etcd may end the lease."""
        return max(0.2, self.ttl * 0.1)

    @property
    def interval(self) -> float:
        """Seconds between renewals: two of them may fail in time (interval + 2 timeouts <= ttl - margin)."""
        return self.ttl / 3

    @property
    def left(self) -> float:
        """Seconds for which the lease is certainly alive; 0: it may be gone."""
        return max(0.0, self._deadline - SYSTEM.monotonic())

    @property
    def alive(self) -> bool:
        """Whether the lease is certainly alive."""
        return SYSTEM.monotonic() < self._deadline

    def renew(self) -> bool:
        """Renews once, in a quarter of the ttl at most. False: the lease is gone. Raises when etcd did not answer."""
        left = self.left
        timeout = self.ttl / 4
        sent = SYSTEM.monotonic()
        if self._client.keep_alive(self.id, timeout=max(0.05, min(timeout, left) if left else timeout)) <= 0:
            self._deadline = 0.0
            return False
        self._deadline = sent + self.ttl - self.margin
        return True

    def forfeit(self) -> None:
        """Stops believing in the lease at once."""
        self._deadline = 0.0

    def revoke(self) -> None:
        """Ends the lease and with it its keys. Raises when etcd did not answer; it then runs out by itself."""
        self.forfeit()
        self._client.revoke(self.id, timeout=min(self._client.timeout, self.ttl))
