"""Cron text of five fields: checked strictly by us, expanded by croniter, matched with bit masks.

A `Cron` knows nothing of zones: it answers which *labels* match, a label being local time as if it
were UTC, in seconds since 1970-01-01T00:00. Day-of-month and day-of-week follow cron(8): when
neither contains a `*`, a day matches either of them, otherwise it must match both. Seconds, years
and days such as "the last Friday" are in `timetable`, how they are written in `dialects`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from croniter import croniter

from crony.domain.crontext import (
    FIELDS,
    _plain,
    check,
)
from crony.errors import Invalid

_DAY = 86400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
"""Days since 1970 plus this are days as `date.fromordinal` counts them."""
_LAST_ORDINAL = date(9998, 12, 31).toordinal()
_CYCLE = 146_097
"""Days after which the Gregorian calendar repeats, weekdays included."""

ALL_DAYS, ALL_MONTHS, ALL_WEEKDAYS = 0xFFFFFFFE, 0x1FFE, 0x7F


def _spread(weekday: int, first: int) -> int:
    """Bits 1-31 of the days that are `weekday`, in a month whose 1st is the weekday `first` (0 = Sunday)."""
    return sum(1 << day for day in range(1, 32) if (first + day - 1) % 7 == weekday)


SPREAD = tuple(tuple(_spread(weekday, first) for weekday in range(7)) for first in range(7))
"""[weekday of the 1st][weekday] -> bits 1-31 of its days."""


class DayRule(NamedTuple):
    """Days that only the month can tell: see `timetable`."""

    kind: str
    """last (day of the month, less `back`) | workday (the last one, less `back`) | nearest (workday to `day`) |
    last_weekday | nth (the `nth` of that weekday; `day` is the weekday, 0 = Sunday)"""
    day: int = 0
    nth: int = 0
    """Which one (nth), or how many days before the last (last, workday)."""


class Cron:
    """One checked cron text. Immutable and shared: `parse_cron` returns the same object for the same text."""

    __slots__ = ("days", "either", "every_day", "hours", "minutes", "months", "per_day", "text", "weekdays", "wild")

    text: str
    """Canonical text: five fields, one blank between them, macros written out."""
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    """Bit masks of what matches (weekday 0 is Sunday)."""
    either: bool
    """A day matches day of month *or* day of week."""
    every_day: bool
    wild: bool
    """Minute or hour has a `*`: the job follows real time by default when clocks change."""
    per_day: int
    """Minutes that match in one matching day."""
    seconds: int = 1
    """Bit mask of the seconds; five fields mean second 0."""
    years: int = 0
    """Bit mask of the years, bit 0 being 1970; 0: every year."""
    day_rules: tuple[DayRule, ...] = ()
    weekday_rules: tuple[DayRule, ...] = ()

    def __init__(self, text: str) -> None:
        fields = text.split(" ")
        expanded = croniter.expand(_plain(text))[0]
        masks = [_mask(values, low, high) for values, (_, low, high, _) in zip(expanded, FIELDS, strict=True)]
        self.either = "*" not in fields[2] and "*" not in fields[4]
        self.wild = "*" in fields[0] or "*" in fields[1]
        self._fill(text, masks)

    def _fill(self, text: str, masks: Sequence[int]) -> None:
        """Take the masks of minute, hour, day, month and weekday (Sunday as 0 or 7); `either` is known already."""
        self.text = text
        self.minutes, self.hours, self.days, self.months, weekdays = masks
        self.weekdays = (weekdays | weekdays >> 7) & ALL_WEEKDAYS
        free_days, free_weekdays = self.days == ALL_DAYS, self.weekdays == ALL_WEEKDAYS
        all_days = (free_days or free_weekdays) if self.either else (free_days and free_weekdays)
        self.every_day = all_days and self.months == ALL_MONTHS
        self.per_day = self.minutes.bit_count() * self.hours.bit_count()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    def five(self) -> Sequence[str]:
        """The texts of minute, hour, day of month, month and day of week."""
        return self.text.split(" ")

    def at_or_after(self, label: int) -> int | None:
        """The first matching label >= `label`, or None when there is none within 400 years."""
        minute = -(-label // 60)
        day, minute = divmod(minute, 1440)
        found = self._day(day)
        if found is None:
            return None
        if found == day:
            hour, minute = divmod(minute, 60)
            if self.hours >> hour & 1:
                rest = self.minutes >> minute
                if rest:
                    return day * _DAY + hour * 3600 + (minute + (rest & -rest).bit_length() - 1) * 60
            rest = self.hours >> hour + 1
            if rest:
                hour += (rest & -rest).bit_length()
                return day * _DAY + hour * 3600 + self._first_minute() * 60
            found = self._day(day + 1)
            if found is None:
                return None
        return found * _DAY + ((self.hours & -self.hours).bit_length() - 1) * 3600 + self._first_minute() * 60

    def possible(self) -> bool:
        """Whether it ever fires. A date that exists falls on every weekday within 400 years, 29 February included."""
        longest = [
            29 if month == 2 else month_length(2000, month) for month in range(1, 13) if self.months >> month & 1
        ]
        return self.either or self.days & (2 << max(longest)) - 2 != 0

    def count(self, low: int, high: int) -> int:
        """How many labels match in `low` <= label < `high`, without visiting them one by one."""
        if high <= low:
            return 0
        first, last = low // _DAY, (high - 1) // _DAY
        if first == last:
            return self._in_day(first, low - first * _DAY, high - first * _DAY)
        total = self._in_day(first, low - first * _DAY, _DAY) + self._in_day(last, 0, high - last * _DAY)
        return total + self._days(first + 1, last) * self.per_day

    def _first_minute(self) -> int:
        return (self.minutes & -self.minutes).bit_length() - 1

    def _in_day(self, day: int, low: int, high: int) -> int:
        if self._day(day) != day:
            return 0
        low, high = -(-low // 60), -(-high // 60)
        total = 0
        for hour in range(low // 60, min(24, -(-high // 60))):
            if self.hours >> hour & 1:
                window = (1 << max(0, min(60, high - hour * 60))) - (1 << max(0, low - hour * 60))
                total += (self.minutes & window).bit_count()
        return total

    def _days(self, low: int, high: int) -> int:
        """Matching days in `low` <= day < `high` (days since 1970)."""
        if self.every_day:
            return max(0, high - low)
        total = 0
        while low < high:
            moment = date.fromordinal(low + EPOCH_ORDINAL)
            length = month_length(moment.year, moment.month)
            end = min(length, moment.day + high - low - 1)
            if self.months >> moment.month & 1:
                window = (1 << end + 1) - (1 << moment.day)
                total += (self._month(low - moment.day + 1) & window).bit_count()
            low += length - moment.day + 1
        return total

    def _month(self, first: int) -> int:
        """Mask of matching days (bits 1-31) in the month whose 1st is day `first` since 1970."""
        row, days = SPREAD[(first + 4) % 7], 0
        for weekday in range(7):
            if self.weekdays >> weekday & 1:
                days |= row[weekday]
        return days | self.days if self.either else days & self.days

    def _day(self, day: int) -> int | None:
        """The first matching day >= `day` (days since 1970), or None within one whole cycle of the calendar."""
        if self.every_day:
            return day if day + EPOCH_ORDINAL <= _LAST_ORDINAL else None
        limit = min(day + _CYCLE + 31, _LAST_ORDINAL - EPOCH_ORDINAL)
        while day <= limit:
            moment = date.fromordinal(day + EPOCH_ORDINAL)
            year, month, dom = moment.year, moment.month, moment.day
            length = month_length(year, month)
            if self.months >> month & 1:
                rest = self._month(day - dom + 1) >> dom
                if rest:
                    offset = (rest & -rest).bit_length() - 1
                    if dom + offset <= length:
                        return day + offset
            # Straight to the 1st of the next month that matches at all.
            ahead = self.months >> month + 1
            if ahead:
                month += (ahead & -ahead).bit_length()
            else:
                year, month = year + 1, (self.months & -self.months).bit_length() - 1
            if year > 9998:
                return None
            day = date(year, month, 1).toordinal() - EPOCH_ORDINAL
        return None


def month_length(year: int, month: int) -> int:
    """Days of that month."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@lru_cache(maxsize=65536)
def parse_cron(text: str, field: str = "schedule.cron") -> Cron:
    """The `Cron` behind `text` (five fields or a macro). Raises `Invalid`, also when it can never fire."""
    cron = _shared(check(text, field))
    if not cron.possible():
        raise Invalid(field, "never fires: no such day exists", hint="check day of month against month")
    return cron


@lru_cache(maxsize=65536)
def _shared(text: str) -> Cron:
    return Cron(text)


def _mask(values: Sequence[int | str], low: int, high: int) -> int:
    if "*" in values:
        return (1 << high + 1) - (1 << low)
    return sum(1 << int(value) for value in set(values))
