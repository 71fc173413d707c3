"""How far etcd's wall clock is from ours, learnt from the `Date` header that every answer carries."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from crony.clock import SYSTEM


class ServerClock:
    """A member's wall clock, from `Date` headers (whole seconds): bounds on how far it is from our monotonic clock.

    Against the monotonic clock, because ours may step: what the time is must not hang on when it last answered.
    """

    __slots__ = ("_date", "_high", "_low", "_noted", "_old", "_seconds", "_since")

    def __init__(self) -> None:
        self._date, self._seconds = "", 0.0
        self._low, self._high = float("-inf"), float("inf")
        self._old: tuple[float, float] | None = None
        self._since = SYSTEM.monotonic()
        self._noted = float("-inf")

    @property
    def wanted(self) -> bool:
        """Whether a further `Date` would help: none came lately, or what is known is not sharp yet."""
        pause = 5.0 if self._high - self._low < 0.12 else 0.05
        return SYSTEM.monotonic() - self._noted > pause

    def note(self, date: str, sent: float, received: float) -> None:
        """An answer stamped `date` came back; `sent` and `received` are our monotonic clock around it."""
        self._noted = received
        if date != self._date:
            try:
                self._seconds = parsedate_to_datetime(date).timestamp()
            except (TypeError, ValueError):
                return
            self._date = date
        low, high = self._seconds - received, self._seconds + 1.0 - sent
        if received - self._since > 30:  # clocks drift: bounds are for a minute at most
            self._old, self._since = (self._low, self._high), received
            self._low, self._high = low, high
            return
        self._low, self._high = max(low, self._low), min(high, self._high)
        if self._low > self._high:  # the member's clock stepped
            self._low, self._high, self._old = low, high, None

    @property
    def offset(self) -> float | None:
        """The member's clock minus our wall clock now, seconds (within half a second, mostly better); None: unknown."""
        low, high = self._low, self._high
        if self._old is not None and max(low, self._old[0]) <= min(high, self._old[1]):
            low, high = max(low, self._old[0]), min(high, self._old[1])
        if high == float("inf"):
            return None
        return (low + high) / 2 + SYSTEM.monotonic() - SYSTEM.wall()
