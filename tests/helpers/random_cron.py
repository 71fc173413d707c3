"""Random cron texts of every dialect, each with what it means as plain sets and rules, worked out apart from Crony.

Each run has a seed of its own and prints it; `CRONY_TEST_SEED=… pytest …` repeats it. `CRONY_TEST_CASES` multiplies
the cases (1: what `make test` runs).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cache
from itertools import product

SEED = int(os.environ.get("CRONY_TEST_SEED") or random.SystemRandom().randrange(10**9))
TIMES = int(os.environ.get("CRONY_TEST_CASES") or 1)
DAY = timedelta(days=1)
EPOCH = date(1970, 1, 1)
DIALECTS = ("cron", "cron6", "quartz")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass
class Case:
    """A random text, and what it means as plain sets and rules."""

    text: str
    dialect: str
    seconds: set[int]
    minutes: set[int]
    hours: set[int]
    days: set[int]
    months: set[int]
    weekdays: set[int]
    years: set[int] | None
    either: bool
    rules: list[tuple[str, int, int]] = field(default_factory=list)
    known: dict[date, bool] = field(default_factory=dict)

    def day(self, day: date) -> bool:
        """Whether the day matches, by looking at the calendar around it."""
        if day not in self.known:
            self.known[day] = self._day(day)
        return self.known[day]

    def _day(self, day: date) -> bool:
        if day.month not in self.months or (self.years is not None and day.year not in self.years):
            return False
        by_day = day.day in self.days or any(_by_day(rule, day) for rule in self.rules)
        by_weekday = day.isoweekday() % 7 in self.weekdays or any(_by_weekday(rule, day) for rule in self.rules)
        return (by_day or by_weekday) if self.either else (by_day and by_weekday)

    def minutes_in(self, low: int, high: int) -> set[int]:
        """The labels `low` <= label <= `high` of the minutes that match."""
        found: set[int] = set()
        for number in range(low // 86400, high // 86400 + 1):
            if self.day(EPOCH + number * DAY):
                times = (hour * 3600 + minute * 60 for hour, minute in product(self.hours, self.minutes))
                found.update(label for time in times if low <= (label := number * 86400 + time) <= high)
        return found


@cache
def _month(first: date) -> list[date]:
    days = [first + n * DAY for n in range(31)]
    return [each for each in days if each.month == first.month]


def _by_day(rule: tuple[str, int, int], day: date) -> bool:
    kind, number, _ = rule
    month = _month(day.replace(day=1))
    if kind == "L":
        return month[-1] - number * DAY == day
    if kind == "LW":
        return day == [each for each in month if each.weekday() < 5][-1]
    if kind in ("W", "L-W"):
        wanted = day.replace(day=1) + (number - 1) * DAY if kind == "W" else month[-1] - number * DAY
        workdays = [each for each in month if each.weekday() < 5]
        return wanted.month == day.month and day == min(workdays, key=lambda each: abs(each - wanted))
    return False


def _by_weekday(rule: tuple[str, int, int], day: date) -> bool:
    kind, number, nth = rule
    if kind == "last":
        return day.isoweekday() % 7 == number and (day + 7 * DAY).month != day.month
    return kind == "#" and day.isoweekday() % 7 == number and (day.day + 6) // 7 == nth


def _field(
    rng: random.Random, low: int, high: int, dialect: str, stars: float, names: tuple[str, ...] = ()
) -> tuple[str, set[int]]:
    """Text of a field without rules, in the dialect's numbers, and its values in cron's."""
    if rng.random() < stars:
        return "*", set(range(low, high + 1))
    shift = 1 if dialect == "quartz" and names is DAYS else 0

    def said(value: int) -> str:
        return names[value] if names and rng.random() < 0.3 else str(value + shift)

    texts, values = [], set()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        first, last, kind = rng.randint(low, high), rng.randint(low, high), rng.random()
        step = rng.randint(1, max(1, (high - low) // 2))
        if kind < 0.2:
            texts.append(f"*/{step}")
            values |= set(range(low, high + 1, step))
        elif kind < 0.4 and dialect == "quartz":
            texts.append(f"{said(first)}/{step}")
            values |= set(range(first, high + 1, step))
        elif kind < 0.6 and (first < last or (first > last and dialect == "quartz")):
            texts.append(f"{said(first)}-{said(last)}" + (f"/{step}" if step > 1 else ""))
            size = high - low + 1
            values |= {low + (n - low) % size for n in range(first, (last if first < last else last + size) + 1, step)}
        else:
            texts.append(said(first))
            values.add(first)
    return ",".join(texts), values


def _day_field(rng: random.Random, dialect: str, rules: list[tuple[str, int, int]], sim: bool) -> tuple[str, set[int]]:
    text, values = _field(rng, 1, 31, dialect, 0.4)
    if rng.random() < 0.5:
        kind, number = rng.choice(("L", "LW") if sim else ("L", "LW", "W", "L-W")), rng.randint(1, 31)
        if kind == "L" or kind == "L-W":
            number = 0 if sim else rng.randint(kind == "L-W", 12)
        rules.append((kind, number, 0))
        written = {"L": f"L-{number}" if number else "L", "LW": "LW", "W": f"{number}W", "L-W": f"L-{number}W"}[kind]
        keep = text != "*" and rng.random() < 0.4
        return (f"{text},{written}", values) if keep else (written, set())
    return text, values


def _weekday_field(rng: random.Random, dialect: str, rules: list[tuple[str, int, int]]) -> tuple[str, set[int]]:
    text, values = _field(rng, 0, 6, dialect, 0.4, DAYS)
    if rng.random() < 0.4:
        weekday, nth = rng.randint(0, 6), rng.randint(1, 5)
        number = weekday + (dialect == "quartz")
        last = rng.random() < 0.4
        rules.append(("last" if last else "#", weekday, nth))
        written = f"{number}L" if last else f"{number}#{nth}"
        keep = text != "*" and rng.random() < 0.4
        return (f"{text},{written}", values) if keep else (written, set())
    return text, values


def random_case(rng: random.Random, dialect: str, sim: bool = False, near: datetime | None = None) -> Case:
    """One text; `near` makes its hours and minutes likely to matter then, `sim` keeps to what cronsim reads."""
    second, seconds = ("0", {0}) if dialect == "cron" else _field(rng, 0, 59, dialect, 0.2)
    minute, minutes = _field(rng, 0, 59, dialect, 0.2)
    hour, hours = _field(rng, 0, 23, dialect, 0.3)
    if near is not None and rng.random() < 0.8:
        hours = {(near.hour + rng.randint(-2, 1)) % 24, (near.hour + rng.randint(-2, 1)) % 24}
        hour = ",".join(map(str, sorted(hours)))
    rules: list[tuple[str, int, int]] = []
    day, days, weekday, weekdays = "*", set(range(1, 32)), "*", set(range(7))
    which = rng.random() if near is None or rng.random() < 0.3 else 1.0
    if which < 0.75:
        day, days = _day_field(rng, dialect, rules, sim)
    if (which < 0.25 and dialect != "quartz") or 0.75 <= which < 1:
        weekday, weekdays = _weekday_field(rng, dialect, rules)
    month, months = _field(rng, 1, 12, dialect, 0.85 if near else 0.5, MONTHS)
    either = dialect != "quartz" and "*" not in day and "*" not in weekday
    if dialect != "quartz":
        parts = [second, minute, hour, day, month, weekday][dialect == "cron" :]
        return Case(" ".join(parts), dialect, seconds, minutes, hours, days, months, weekdays, None, either, rules)
    day, weekday = ("?", weekday) if weekday != "*" else (day, "?")
    parts, years = [second, minute, hour, day, month, weekday], None
    if rng.random() < 0.3:
        year = near.year if near else rng.randint(2020, 2040)
        parts.append(f"{year}-{year + 3}/3")
        years = {year, year + 3}
    text = " ".join(parts)
    text = text.lower() if rng.random() < 0.3 else text
    return Case(text, dialect, seconds, minutes, hours, days, months, weekdays, years, either, rules)
