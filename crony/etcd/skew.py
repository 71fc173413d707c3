"""How far etcd's wall clock is from ours, learnt from the `Date` header that every answer carries."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


class ServerClock:
    """How far a member's wall clock is from ours, from `Date` headers (whole seconds): bounds that close in."""

    __slots__ = ("_date", "_high", "_low", "_noted", "_old", "_seconds", "_since")

    def __init__(self) -> None:
        self._date, self._seconds = "", 0.0
        self._low, self._high = float("-inf"), float("inf")
        self._old: tuple[float, float] | None = None
        self._since = time.monotonic()
        self._noted = float("-inf")

    @property
    def wanted(self) -> bool:
        """Whether a further `Date` would help: none came lately, or what is known is not sharp yet."""
        pause = 5.0 if self._high - self._low < 0.12 else 0.05
        return time.monotonic() - self._noted > pause

    def note(self, date: str, sent: float, received: float) -> None:
        """An answer stamped `date` came back; `sent` and `received` are our wall clock around it."""
        self._noted = time.monotonic()
        if date != self._date:
            try:
                self._seconds = parsedate_to_datetime(date).timestamp()
            except (TypeError, ValueError):
                return
            self._date = date
        low, high = self._seconds - received, self._seconds + 1.0 - sent
        if time.monotonic() - self._since > 30:  # clocks drift: bounds are for a minute at most
            self._old, self._since = (self._low, self._high), time.monotonic()
            self._low, self._high = low, high
            return
        self._low, self._high = max(low, self._low), min(high, self._high)
        if self._low > self._high:  # one of the clocks stepped
            self._low, self._high, self._old = low, high, None

    @property
    def offset(self) -> float | None:
        """Member's clock minus ours, seconds (within half a second, mostly far better); None: not known yet."""
        low, high = self._low, self._high
        if self._old is not None and max(low, self._old[0]) <= min(high, self._old[1]):
            low, high = max(low, self._old[0]), min(high, self._old[1])
        return None if high == float("inf") else (low + high) / 2
