"""The end of a run's output, for the alert about it: as far as it comes into the database within a moment.

An alert does not wait for a database that is away: it goes without.
"""

from __future__ import annotations

import threading

from crony.clock import SYSTEM
from crony.domain.alert import Alert
from crony.errors import CronyError
from crony.store import output
from crony.store.db import Database

PATIENCE = 3.0
"""Seconds that output may take from a node to the database before the alert goes without it."""
LOOK = 0.25
REST = 30.0
"""Seconds after a failure in which the database is not asked again."""
BYTES = 6000


class Tails:
    """Reads them; from any thread."""

    def __init__(self, database: Database | None) -> None:
        """`database`: None: there is none."""
        self._database = database
        self._rest_until = 0.0

    def __call__(self, alert: Alert) -> str:
        """The last lines of the run that an alert is about; empty when they cannot be had. Waits a moment for them."""
        began = now = SYSTEM.monotonic()
        text = ""
        while self._database is not None and alert.run and alert.attempt and now >= self._rest_until:
            try:
                text, whole = output.tail(self._database, alert.run, alert.attempt, BYTES)
            except CronyError:
                self._rest_until = now + REST
                break
            now = SYSTEM.monotonic()
            if whole or now - began >= PATIENCE:
                break
            threading.Event().wait(LOOK)
        return text
