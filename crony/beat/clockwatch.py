"""Whether the wall clock may be trusted: against etcd's, and against our own monotonic clock (S9).

A clock ahead would fire early and move every cursor into the future; one behind is silent. So dispatch is held while
they disagree by more than `SKEW`, and leadership given up when that lasts. Between two looks the leader goes by the
monotonic clock: a step moves nothing before it is seen.
"""

from __future__ import annotations

import logging

from crony.beat.office import Office
from crony.clock import Clock
from crony.errors import CronyError
from crony.etcd.client import Client

log = logging.getLogger("crony.beat")

SKEW = 2.0
"""Seconds against the median of etcd's members; their `Date` has whole seconds, the client narrows that down."""
STEP = 1.0
"""Seconds that wall and monotonic clock may drift apart between two looks."""
EVERY = 1.0


def skew(client: Client, clock: Clock) -> float:
    """How far our wall clock is ahead of etcd's, seconds."""
    return clock.wall() - client.now()


class ClockWatch:
    """The duty that looks."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._stepped = 0.0
        """How far the wall clock was from the time we go by, at the last look."""
        self._next = 0.0
        self.bad_since: float | None = None
        """Monotonic: since when the clocks disagree; None: they agree."""

    @property
    def hopeless(self) -> bool:
        """Whether they have disagreed for so long that another centre should lead."""
        patience = max(10.0, 2 * self._office.settings.leader_ttl)
        return self.bad_since is not None and self._office.mono() - self.bad_since > patience

    def work(self) -> float | None:
        """Look at every wake-up whether the wall clock stepped, and each second how far it is off."""
        office = self._office
        wall, mono, before, self._stepped = office.clock.wall(), office.mono(), self._stepped, office.stepped
        if abs(self._stepped - before) > STEP:
            stepped = self._stepped - before
            log.warning("the wall clock of this machine stepped by %+.1f s", stepped)
            office.holds.set("clock", f"the wall clock of this machine stepped by {stepped:+.1f} s; checking")
            self._next, self.bad_since = mono + EVERY, self.bad_since or mono
            return EVERY
        if mono >= self._next:
            self._next = mono + EVERY
            self._compare(mono)
        if "clock" not in office.holds.reasons:
            office.trust(wall, mono)
            self._stepped = 0.0
        return max(0.0, self._next - mono)

    def _compare(self, mono: float) -> None:
        """How far our wall clock is off etcd's."""
        office = self._office
        if "clock" in office.holds.reasons:
            self._measure()
        off = skew(office.client, office.clock)
        if abs(off) > SKEW:
            self.bad_since = self.bad_since if self.bad_since is not None else mono
            office.holds.set(
                "clock",
                f"the wall clock of this machine is {off:+.1f} s off from etcd's. A fire at the wrong time is worse "
                "than a late one. Set it right (NTP)",
            )
        else:
            self.bad_since = None
            office.holds.clear("clock")

    def _measure(self) -> None:
        """A fresh look at etcd's clock: an idle leader would go on believing old measurements."""
        try:
            self._office.client.get(self._office.keys.control, timeout=0.5)
        except CronyError as error:
            log.debug("etcd's clock cannot be read: %s", error)
