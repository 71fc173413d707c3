"""Time, in one place: the wall clock says whether something is due, the monotonic clock measures durations."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What Crony asks of a clock; tests hand in their own."""

    def wall(self) -> float:
        """Seconds since the Unix epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never step, for durations and deadlines."""


class SystemClock:
    """The machine's clocks. Boot time is used for durations, so that a suspended machine notices."""

    def wall(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since boot, counting suspended time (CLOCK_BOOTTIME) where the system has it."""
        return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()


_BOOT = getattr(time, "CLOCK_BOOTTIME", None)

SYSTEM = SystemClock()


def rfc3339(epoch: float | None) -> str | None:
    """Epoch seconds as RFC 3339 in UTC with an offset; milliseconds only where there are any."""
    if epoch is None:
        return None
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
