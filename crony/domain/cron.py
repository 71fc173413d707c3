"""Cron text of five fields: checked strictly by us, expanded by croniter, matched with bit masks.

A `Cron` knows nothing of zones: it answers which *labels* match, a label being local time as if it
were UTC, in seconds since 1970-01-01T00:00. Day-of-month and day-of-week follow cron(8): when
neither contains a `*`, a day matches either of them, otherwise it must match both. Seconds, years
and days such as "the last Friday" are in `timetable`, how they are written in `dialects`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from croniter import croniter

from crony.errors import Invalid

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LONGEST = 512
"""Most characters of a cron text; a full list of all minutes is 169."""

_DAY = 86400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
"""Days since 1970 plus this are days as `date.fromordinal` counts them."""
_LAST_ORDINAL = date(9998, 12, 31).toordinal()
_CYCLE = 146_097
"""Days after which the Gregorian calendar repeats, weekdays included."""
MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = {name[:3].lower(): number for number, name in enumerate(MONTH_NAMES, 1)}
_WEEKDAYS = {name[:3].lower(): number for number, name in enumerate(DAY_NAMES)}

Rule = tuple[str, int, int, dict[str, int]]
"""Name of a field, its least and greatest value, and its names."""
FIELDS: tuple[Rule, ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _WEEKDAYS),
)
_ITEM = re.compile(r"(?:(\*)|([0-9]{1,4}|[a-z]{3})(?:-([0-9]{1,4}|[a-z]{3}))?)(?:/([0-9]{1,4}))?")
_DAY_WORD = re.compile(r"(?:^|[,\-/*\d])[lwh#](?:$|[,\-/(\d])|#|^lw$")
_CRONLIKE = re.compile(r"[0-9*,/\-#?lwh()]+|(?:(?:[0-9]{1,2}|[a-z]{3})(?:[,\-/#l]+(?:[0-9]{1,2}|[a-z]{3})?)*)")
"""What may be a field, right or wrong; a user or a command is not."""
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_LONG_NAME = re.compile(r"([a-z]{3})[a-z]*(?:-([a-z]{3})[a-z]*)?")
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


def one_line(text: str, field: str) -> str:
    """`text` in lower case without blanks around it. Raises `Invalid` for what is no cron text in any dialect."""
    if len(text) > LONGEST:
        raise Invalid(field, f"is longer than {LONGEST} characters", hint="split it into several schedules")
    text = text.strip()
    if not text:
        raise Invalid(field, "is empty", hint='write five fields, such as "30 1 * * *"')
    if not text.isascii():
        named = any(char in text for char in "周星期月日")
        raise Invalid(
            field,
            "has a character outside ASCII",
            hint="write weekdays as mon to sun, months as jan to dec, all else in plain digits"
            if named
            else "type plain digits, blanks and * , - /",
        )
    if any((char < " " and char != "\t") or char == "\x7f" for char in text):
        raise Invalid(field, "has a line break or control character", hint="write one line of plain text")
    lower = text.lower()
    if lower.startswith(("tz=", "cron_tz=")):
        raise Invalid(field, "carries a time zone", hint="put the zone into `timezone`")
    return lower


def five_fields(text: str, field: str) -> list[str]:
    """The five fields of a text, a macro written out. Raises `Invalid`; what stands in the fields is not looked at."""
    lower = one_line(text, field)
    if lower.startswith("@"):
        lower = _macro(lower, field)
    parts = lower.split()
    if len(parts) > 5 and _is_crontab_line(parts):
        raise Invalid(
            field,
            f"has `{parts[5][:20]}` after its five fields, as a line of a crontab has a user or a command",
            hint=f"write {' '.join(parts[:5])}, and the command into `action`",
        )
    if len(parts) in (6, 7):
        offered = "quartz" if "?" in lower or len(parts) == 7 else "cron6"
        first = "Quartz" if offered == "quartz" else "seconds first"
        raise Invalid(
            field,
            f"has {len(parts)} fields; the cron dialect has five, without seconds and years",
            hint=f"add `dialect: {offered}` ({first}), or write minute hour day month weekday",
        )
    if len(parts) == 1 and (clock := _CLOCK.fullmatch(lower)) is not None:
        hint = f"write {int(clock[2])} {int(clock[1])} * * *"
        raise Invalid(field, "is a time of day, and no cron text", hint=hint)
    if len(parts) == 1:
        raise Invalid(field, "has one field instead of five", hint="minute hour day-of-month month day-of-week")
    if len(parts) != 5:
        hint = "minute hour day-of-month month day-of-week"
        raise Invalid(field, f"has {len(parts)} fields instead of five", hint=hint)
    return parts


def _is_crontab_line(parts: Sequence[str]) -> bool:
    """Whether five fields are followed by something that is none."""
    *fields, sixth = parts[:6]
    return all(map(_CRONLIKE.fullmatch, fields)) and not (_CRONLIKE.fullmatch(sixth) or _named(sixth, _WEEKDAYS))


def check(text: str, field: str) -> str:
    """Canonical five-field text. Raises `Invalid` saying which field is wrong and what to write."""
    text = " ".join(five_fields(text, field))
    _plain(text, field)
    return text


def _macro(text: str, field: str) -> str:
    if text in MACROS:
        return MACROS[text]
    if text.startswith("@every"):
        raise Invalid(field, "@every is not cron", hint="write `every: 5m` instead of `cron`")
    if text.startswith("@reboot"):
        raise Invalid(field, "@reboot has no meaning on a cluster", hint="start such work with the machine's own init")
    raise Invalid(field, "is not a macro Crony knows", hint="use " + ", ".join(MACROS))


def _plain(text: str, field: str = "") -> str:
    """`text` as croniter may read it: numbers only. Raises `Invalid` for what cron(8) would not accept.

    Names become numbers, so that `fri-sun` ends at 7, and `14-14` becomes `14`, because croniter
    takes a range of one value for the whole circle.
    """
    return " ".join(plain_field(part, *rule, field) for part, rule in zip(text.split(" "), FIELDS, strict=True))


_TURNED = {"wl": "LW", **{f"lw-{back}": f"L-{back}W" for back in range(1, 31)}}


def plain_field(part: str, name: str, low: int, high: int, names: dict[str, int], field: str) -> str:
    """One field in numbers: `*`, `3`, `3-5` and `3-5/2`, with commas. Raises `Invalid`."""
    items = []
    if "?" in part:
        raise Invalid(field, f"{name}: `?` belongs to Quartz", hint="write `*`")
    for item in part.split(","):
        shown = item if len(item) <= 20 else item[:20] + "…"
        if not item:
            raise Invalid(field, f"{name}: an item of the list is empty", hint="remove the extra comma")
        match = _ITEM.fullmatch(item)
        if match is None:
            if short := _named(item, names):
                raise Invalid(field, f"{name}: `{shown}` is not how a name is written", hint=f"write {short}")
            if item in _TURNED and name == "day of month":
                raise Invalid(field, f"{name}: `{shown}` is the wrong way round", hint=f"write {_TURNED[item]}")
            if _DAY_WORD.search(item):
                raise Invalid(
                    field,
                    f"{name}: `{shown}` means nothing here",
                    hint="L, LW, L-3 and 15W are days of the month, 5L and 5#2 days of the week, H(0-29) a hashed time",
                )
            raise Invalid(
                field, f"{name}: `{shown}` cannot be read", hint="write *, 5, 1-5, */10 or a list with commas"
            )
        star, start, end, step = match.groups()
        first = low if star else value_of(start, name, low, high, names, field)
        last = high if star else value_of(end, name, low, high, names, field) if end else first
        if end == "sun" and last < first:
            last = 7
        if last < first:
            raise Invalid(
                field,
                f"{name}: `{shown}` runs backwards",
                hint=_suggest(first, last, low, high),
            )
        span = "*" if star else f"{first}-{last}" if last > first else str(first)
        if step is None:
            items.append(span)
            continue
        if not star and not end:
            raise Invalid(field, f"{name}: a step needs a range", hint=f"write {first}-{high}/{int(step)}")
        if int(step) == 0:
            raise Invalid(field, f"{name}: a step must be at least 1", hint="write */1 or more")
        if int(step) > high - low + (name != "day of week"):
            raise Invalid(
                field,
                f"{name}: a step of {int(step)} is longer than the field itself",
                hint="for a longer interval use `every`, such as `every: 90m`",
            )
        items.append(span if first == last else f"{span}/{int(step)}")
    return ",".join(items)


def _named(item: str, names: dict[str, int]) -> str:
    """A name, or a range of names, as it is to be written that is written out; empty: it is none."""
    long = _LONG_NAME.fullmatch(item)
    found = [short for short in long.groups() if short] if long is not None else []
    return "-".join(found) if all(short in names for short in found) else ""


def _suggest(first: int, last: int, low: int, high: int) -> str:
    """What to write for a range that goes round the end of its field."""
    if low == 0 and high == 7 and first == 7:  # 7 is Sunday, as 0 is
        return f"write 0-{last}"
    head = f"{first}-{high}" if first < high else str(high)
    return f"write {head},{low}-{last}" if last > low else f"write {head},{low}"


def value_of(text: str, name: str, low: int, high: int, names: dict[str, int], field: str) -> int:
    """The number behind a number or a name. Raises `Invalid`."""
    if text.isdigit():
        value = int(text)
        if not low <= value <= high:
            sunday = (low, high) == (1, 7)  # Quartz' weekdays
            hint = f"use {low}-{high}, where 1 is Sunday" if sunday else f"use {low}-{high}"
            raise Invalid(field, f"{name}: {value} is not between {low} and {high}", hint=hint)
        return value
    if text in names:
        return names[text]
    hint = "use " + ", ".join(names) if names else f"use numbers {low}-{high}"
    raise Invalid(field, f"{name}: `{text}` is not a name it knows", hint=hint)


def _mask(values: Sequence[int | str], low: int, high: int) -> int:
    if "*" in values:
        return (1 << high + 1) - (1 << low)
    return sum(1 << int(value) for value in set(values))
