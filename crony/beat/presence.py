"""A centre's presence: a leased key by which the other centres, and people, know that it runs and may lead."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from crony import __version__
from crony.clock import Clock
from crony.domain import ids, tzdata, zones
from crony.domain.shards import CentreFacts
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.settings import Settings

EVERY = 5.0
"""Seconds between two times it says how its clock stands."""


class Presence:
    """One process start. Belongs to the centre's own thread."""

    def __init__(self, client: Client, keys: Keys, settings: Settings, clock: Clock) -> None:
        self.centre = ids.incarnation()
        """Which process start it is."""
        self._client, self._keys, self._settings, self._clock = client, keys, settings, clock
        self._since = client.now()
        self._session: Session | None = None
        self._next = 0.0
        self._said: tuple[bool, str] | None = None

    def tell(
        self,
        *,
        able: bool,
        why: str,
        skew: float,
        untrusted: Callable[[], dict[str, str]],
        figures: Callable[[], dict[str, Any]],
    ) -> None:
        """Say, now and then and at once when `able` changes, how it is. Raises as the client: say it again then."""
        now = self._clock.monotonic()
        if self._session is None:
            session = Session(self._client, self._keys, ttl=self._settings.leader_ttl, incarnation=self.centre)
            session.start(0.5)
            self._session = session
        key = self._keys.centre(self.centre)
        if self._session.holds(key) and now < self._next and self._said == (able, why):
            return
        zones.refresh()
        facts = CentreFacts(
            name=self._settings.centre_name,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            since_at=self._since,
            at=self._clock.wall(),
            skew=round(skew, 2),
            shards=self._settings.shards,
            tzdata=tzdata.version(),
            able=able,
            why=why,
            untrusted=untrusted(),
            figures=figures(),
        )
        if self._session.holds(key):
            self._session.update(key, facts.encode())
        elif not self._session.attach(key, facts.encode()):
            return
        self._next, self._said = now + EVERY, (able, why)

    def withdraw(self) -> None:
        """It runs no more."""
        if self._session is not None:
            self._session.close()
            self._session = None
