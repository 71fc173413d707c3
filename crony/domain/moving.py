"""Fires that a closed day does not swallow: each moves, at the same local time, to the next or the previous open day.

A day is open when an included calendar has it as a whole (or none is included) and no excluded one has. Moving changes
the days of a cron text and nothing else: a time of day, what clock changes do to it, seconds and counts are worked out
for the day it ends up on as for any other day. So the fires stay a plain set of seconds that follows from document and
id, in order; two fires that move to the same second are one, because a set has each second once.

A fire moves `FARTHEST` days at most; with no open day within them it is left out, as it would be without moving.
"""

from __future__ import annotations

from functools import lru_cache

from crony.domain.calendar import Calendar, Calendars
from crony.domain.cron import EPOCH_ORDINAL, Cron
from crony.domain.timetable import Timetable

FARTHEST = 31
_FIRST = 1 - EPOCH_ORDINAL
_HORIZON = 20 * 366
"""Days without an open day that a fire falls on or moves to, after which there is none."""
_BITS = 512


class OpenDays:
    """The days that calendars leave open as a whole, as days since 1970. Shared between equal calendars."""

    def __init__(self, calendars: Calendars) -> None:
        self._include = [item for item in calendars.include if isinstance(item, Calendar)]
        self._exclude = [item for item in calendars.exclude if isinstance(item, Calendar)]
        self._masks: dict[int, int] = {}

    def next(self, day: int) -> int | None:
        """The first open day from `day` on, or None within `FARTHEST` days."""
        bits = self._window(day)
        return day + (bits & -bits).bit_length() - 1 if bits else None

    def previous(self, day: int) -> int | None:
        """The last open day up to `day`, or None within `FARTHEST` days."""
        first = day - FARTHEST
        bits = self._window(first)
        return first + bits.bit_length() - 1 if bits else None

    def _window(self, first: int) -> int:
        """A bit for each of the days `first` to `first + FARTHEST`."""
        number, place = divmod(first, _BITS)
        return (self._mask(number) | self._mask(number + 1) << _BITS) >> place & (2 << FARTHEST) - 1

    def _mask(self, number: int) -> int:
        if number not in self._masks:
            days = range(number * _BITS, (number + 1) * _BITS)
            self._masks[number] = sum(1 << place for place, day in enumerate(days) if self._open(day))
        return self._masks[number]

    def _open(self, day: int) -> bool:
        included = not self._include or any(calendar.has_day(day) for calendar in self._include)
        return included and not any(calendar.has_day(day) for calendar in self._exclude)


class Moved(Timetable):
    """A cron text of which every day that is closed stands for an open one."""

    __slots__ = ("_back", "_days_open", "_plain")

    def __init__(self, cron: Cron, calendars: Calendars) -> None:
        masks = cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays
        rules = cron.day_rules, cron.weekday_rules
        super().__init__(
            cron.text, cron.five(), cron.seconds, masks, cron.years, rules, either=cron.either, wild=cron.wild
        )
        self.every_day = False
        self._plain, self._days_open, self._back = cron, _open_days(calendars), calendars.closed == "previous"

    def lands(self, day: int) -> int | None:
        """The day on which a fire of `day` takes place: itself when it is open; None: nowhere."""
        return self._days_open.previous(day) if self._back else self._days_open.next(day)

    def origin(self, day: int) -> int | None:
        """The closed day nearest to `day` whose fires moved there; None when `day` has fires of its own, or none."""
        if self._plain._day(day) == day:
            return None
        step = 1 if self._back else -1
        near = range(day + step, day + (FARTHEST + 1) * step, step)
        return next((other for other in near if self._plain._day(other) == other and self.lands(other) == day), None)

    def _day(self, day: int) -> int | None:
        """The first day >= `day` on which a fire takes place. Where fires land rises with where they come from."""
        found = self._plain._day(day if self._back else max(_FIRST, day - FARTHEST))
        while found is not None and found <= day + _HORIZON:
            landed = self.lands(found)
            if landed is not None and landed >= day:
                return landed
            found = self._plain._day(found + 1)
        return None

    def _days(self, low: int, high: int) -> int:
        """Days in `low` <= day < `high` on which a fire takes place."""
        total, day = 0, self._day(low) if low < high else None
        while day is not None and day < high:
            total, day = total + 1, self._day(day + 1)
        return total


@lru_cache(maxsize=1024)
def _open_days(calendars: Calendars) -> OpenDays:
    return OpenDays(calendars)


def moved(cron: Cron, calendars: Calendars) -> Cron:
    """`cron` as the calendars have it: moved when they say so and their days are known. Shared, as `Cron` is."""
    return _moved(plain(cron), calendars) if calendars.closed != "skip" and calendars.is_filled else plain(cron)


def plain(cron: Cron) -> Cron:
    """`cron` as it is written."""
    return cron._plain if isinstance(cron, Moved) else cron


@lru_cache(maxsize=65536)
def _moved(cron: Cron, calendars: Calendars) -> Cron:
    return Moved(cron, calendars)
