"""Time zone data: new ones on this machine are taken in, and what is due when is worked out anew.

Centres that decide by different releases would fire a job at different times, depending on who leads: that is told.
"""

from __future__ import annotations

import logging

from crony.beat.duties.alerts import Undelivered
from crony.beat.duty import Background
from crony.beat.office import Office
from crony.clock import Clock
from crony.domain import tzdata, zones
from crony.domain.alert import tzdata_differs
from crony.etcd.client import Client
from crony.lifecycle import centres
from crony.lifecycle.alert import tell
from crony.lifecycle.move import Lead, transaction

log = logging.getLogger("crony.beat")

EVERY = 5.0
COMPARE_EVERY = 15.0
PATIENCE = 600.0
"""Seconds for which releases may differ before an alert tells of it: machines are upgraded one after the other."""


class ZoneWatch:
    """The duty that looks."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._taken_in, self._version = zones.refresh(), tzdata.version()
        self._next = 0.0

    def work(self) -> float | None:
        """Look now and then; each job that goes by a zone is planned anew after a change."""
        mono = self._office.mono()
        if mono < self._next:
            return self._next - mono
        self._next = mono + EVERY
        taken_in = zones.refresh()
        if taken_in != self._taken_in:
            before, self._taken_in, self._version = self._version, taken_in, tzdata.version()
            log.warning("other time zone data were installed (%s, before: %s): what is due when is worked out anew",
                        self._version, before)  # fmt: skip
            self._office.counts["zones_changed"] += 1
            self._office.agenda.plan_anew()
        return EVERY


class ZoneVersions:
    """Compares the releases that the centres name; leader of shard 0."""

    def __init__(self, client: Client, lead: Lead, clock: Clock, undelivered: Undelivered) -> None:
        self._client, self._lead, self._clock, self._undelivered = client, lead, clock, undelivered
        self._since: tuple[frozenset[str], float] = frozenset(), 0.0
        """The releases seen last, and since when (monotonic)."""
        self._told: set[frozenset[str]] = set()
        self.background = Background("time-zone-data", COMPARE_EVERY, self._work)

    def _work(self) -> None:
        found = centres.look(self._client, self._lead.keys).tzdata
        releases, now = frozenset(found.values()), self._clock.monotonic()
        if releases != self._since[0]:
            self._since = releases, now
            if len(releases) > 1:
                log.warning("the centres use different time zone data: %s", found)
        if len(releases) < 2 or now - self._since[1] < PATIENCE or releases in self._told or not self._undelivered.room:
            return
        alert = tzdata_differs(found, self._client.now())
        if self._client.txn(transaction(self._lead, [tell(self._lead.keys, alert)])).succeeded:
            self._undelivered.more(1)
        self._told.add(releases)  # refused: it lies there already, or another centre leads
