"""A `Cron` with more than five fields can say: seconds, years, and days that only the month can tell.

| rule | the day it means |
|---|---|
| `L`, `L-3` | the last day of the month, three days before it |
| `LW`, `L-3W` | the last day that is Monday to Friday; the workday nearest to three days before the last |
| `15W` | the workday nearest to the 15th, within the month: of a Saturday the Friday, of a Sunday the Monday |
| `5L` | the last Friday (here and below: weekdays as their dialect numbers them) |
| `5#2` | the second Friday |

A month without such a day (`31W` in April, `5#5` in most) has none, as a month without a 31st has none in cron.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from crony.domain.cron import ALL_DAYS, EPOCH_ORDINAL, SPREAD, Cron, DayRule, month_length

FIRST_YEAR, LAST_YEAR = 1970, 2199
_DAY = 86400


class Timetable(Cron):
    """One checked text of any dialect, as masks and rules. Immutable and shared, as `Cron` is."""

    __slots__ = ("day_rules", "fields", "seconds", "weekday_rules", "years")

    def __init__(
        self,
        text: str,
        fields: Sequence[str],
        seconds: int,
        masks: Sequence[int],
        years: int,
        rules: tuple[tuple[DayRule, ...], tuple[DayRule, ...]],
        *,
        either: bool,
        wild: bool,
    ) -> None:
        """`fields` are the texts of minute to weekday, `masks` their plain values, `rules` of day and weekday."""
        self.fields, self.seconds, self.years = tuple(fields), seconds, years
        self.day_rules, self.weekday_rules = rules
        self.either, self.wild = either, wild
        self._fill(text, masks)
        self.every_day = self.every_day and not years

    def five(self) -> Sequence[str]:
        """The texts of minute, hour, day of month, month and day of week."""
        return self.fields

    def at_or_after(self, label: int) -> int | None:
        """The first matching label >= `label`, or None when there is none within 400 years."""
        minute, second = label - label % 60, label % 60
        found = super().at_or_after(minute)
        if found == minute:
            rest = self.seconds >> second
            if rest:
                return label + (rest & -rest).bit_length() - 1
            found = super().at_or_after(minute + 60)
        return None if found is None else found + (self.seconds & -self.seconds).bit_length() - 1

    def possible(self) -> bool:
        """Whether it ever fires, in the past or the future."""
        return self._day(0) is not None

    def count(self, low: int, high: int) -> int:
        """How many labels match in `low` <= label < `high`, without visiting them one by one."""
        if high <= low:
            return 0
        first, last = low - low % 60, high - high % 60
        if first == last:
            return self._in_minute(first, low - first, high - first)
        whole = super().count(first + 60, last) * self.seconds.bit_count()
        return self._in_minute(first, low - first, 60) + whole + self._in_minute(last, 0, high - last)

    def _in_minute(self, minute: int, low: int, high: int) -> int:
        window = (1 << high) - (1 << low)
        if not self.seconds & window or super().at_or_after(minute) != minute:
            return 0
        return (self.seconds & window).bit_count()

    def _day(self, day: int) -> int | None:
        """The first matching day >= `day` (days since 1970): straight to the next year that matches at all."""
        while True:
            found = super()._day(day)
            if found is None or not self.years:
                return found
            year = date.fromordinal(found + EPOCH_ORDINAL).year
            rest = self.years >> max(0, year - FIRST_YEAR)
            if rest & 1 and year >= FIRST_YEAR:
                return found
            if not rest:
                return None
            year = max(year, FIRST_YEAR) + (rest & -rest).bit_length() - 1
            day = date(year, 1, 1).toordinal() - EPOCH_ORDINAL

    def _days(self, low: int, high: int) -> int:
        """Matching days in `low` <= day < `high` (days since 1970), year by year where years are given."""
        if not self.years or high <= low:
            return super()._days(low, high)
        total, year, last = 0, *(date.fromordinal(day + EPOCH_ORDINAL).year for day in (low, high - 1))
        for each in range(max(year, FIRST_YEAR), min(last, LAST_YEAR) + 1):
            if self.years >> each - FIRST_YEAR & 1:
                begin, end = (date(n, 1, 1).toordinal() - EPOCH_ORDINAL for n in (each, each + 1))
                total += super()._days(max(low, begin), min(high, end))
        return total

    def _month(self, first: int) -> int:
        """Mask of matching days (bits 1-31) in the month whose 1st is day `first` since 1970."""
        moment = date.fromordinal(first + EPOCH_ORDINAL)
        row, weekdays = SPREAD[(first + 4) % 7], 0
        for weekday in range(7):
            if self.weekdays >> weekday & 1:
                weekdays |= row[weekday]
        length, days = month_length(moment.year, moment.month), self.days
        for rule in self.day_rules:
            days |= _day_of(rule, row, length)
        for rule in self.weekday_rules:
            weekdays |= _weekday_of(rule, row, length)
        return days | weekdays if self.either else days & weekdays


def restricted(cron: Cron) -> tuple[bool, bool]:
    """Whether day of month, and day of week, leave out any day."""
    return cron.days != ALL_DAYS, cron.weekdays != 0x7F


def _day_of(rule: DayRule, row: Sequence[int], length: int) -> int:
    """Bit of the day a rule of the day-of-month field means; 0: this month has none."""
    day = rule.day if rule.kind == "nearest" else length - rule.nth
    if not 1 <= day <= length:
        return 0
    if rule.kind == "last":
        return 1 << day
    sunday, saturday = row[0] >> day & 1, row[6] >> day & 1
    if rule.kind == "workday" and not rule.nth:
        return 1 << day - saturday - 2 * sunday
    if saturday:
        day += -1 if day > 1 else 2
    elif sunday:
        day += 1 if day < length else -2
    return 1 << day


def _weekday_of(rule: DayRule, row: Sequence[int], length: int) -> int:
    """Bit of the day a rule of the day-of-week field means; 0: this month has none."""
    inside = row[rule.day] & (1 << length + 1) - 1
    if rule.kind == "last_weekday":
        return 1 << inside.bit_length() - 1
    for _ in range(rule.nth - 1):
        inside &= inside - 1
    return inside & -inside
