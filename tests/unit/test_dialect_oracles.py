"""Random texts of all dialects against two oracles: brute force by the calendar and the clock alone, and cronsim.

Each run has a seed of its own and prints it; `CRONY_TEST_SEED=… pytest …` repeats it. `CRONY_TEST_CASES` multiplies
the cases (1: what `make test` runs).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from crony.domain.cron import Cron
from crony.domain.schedule import parse_schedule
from crony.errors import Invalid
from tests.unit.test_cron_oracles import CHANGES, HALF_HOURS

SEED = int(os.environ.get("CRONY_TEST_SEED") or random.SystemRandom().randrange(10**9))
TIMES = int(os.environ.get("CRONY_TEST_CASES") or 1)
DAY = timedelta(days=1)
EPOCH = date(1970, 1, 1)
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

    def minute(self, label: int) -> bool:
        """Whether the minute that begins at this label matches."""
        days, rest = divmod(label, 86400)
        return rest // 60 % 60 in self.minutes and rest // 3600 in self.hours and self.day(EPOCH + days * DAY)


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


def read(case: Case, **more: str) -> Cron | None:
    """What Crony makes of it; None when it says that there is no such day."""
    try:
        cron = parse_schedule({"cron": case.text, "dialect": case.dialect, **more}).cron
    except Invalid as error:
        assert "never fires" in error.problem, (SEED, case.dialect, case.text, str(error))
        return None
    assert cron is not None
    return cron


def test_labels_agree_with_the_calendar() -> None:
    """First label and count in a window of two months, of texts that matter by day, month and year."""
    print(f"seed {SEED}")
    rng, checked = random.Random(f"{SEED}labels"), 0
    for _ in range(2500 * TIMES):
        case = random_case(rng, rng.choice(("cron", "cron6", "quartz", "quartz")))
        cron = read(case)
        start = EPOCH + rng.randint(18262, 27000) * DAY
        span = [start + n * DAY for n in range(62)]
        matching = [day for day in span if case.day(day)]
        where = (SEED, case.dialect, case.text, start)
        if cron is None:
            assert not matching, where
            continue
        low = (start - EPOCH).days * 86400
        per_day = len(case.hours) * len(case.minutes) * len(case.seconds)
        assert cron.count(low, low + 62 * 86400) == len(matching) * per_day, where
        found = cron.at_or_after(low)
        if matching:
            midnight = (matching[0] - EPOCH).days * 86400
            first = midnight + min(case.hours) * 3600 + min(case.minutes) * 60 + min(case.seconds)
            assert found == first, where
            # From anywhere inside a matching day: the next second that matches, and the count up to there.
            label = midnight + rng.randint(0, 86399)
            later = cron.at_or_after(label)
            end = midnight + 86400
            labels = (
                minute + second
                for minute in range(label - label % 60, end, 60)
                if case.minute(minute)
                for second in sorted(case.seconds)
                if minute + second >= label
            )
            expected = next(labels, None)
            if expected is None:
                assert later is None or later >= end, where
                assert cron.count(label, end) == 0, where
            else:
                assert later == expected, where
                assert cron.count(label, expected + 1) == 1, where
            checked += 1
        else:
            assert found is None or found >= low + 62 * 86400, where
    assert checked > 1250 * TIMES


@cache
def minutes_around(name: str, day: str) -> tuple[datetime, list[tuple[int, int]]]:
    """(local time of the change, every minute's instant and label) from six hours before it to six after."""
    info, start = ZoneInfo(name), int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) - 86400
    offsets = [
        (instant, round(datetime.fromtimestamp(instant, info).utcoffset().total_seconds()))  # type: ignore[union-attr]
        for instant in range(start, start + 3 * 86400, 60)
    ]
    change = next((n for n in range(1, len(offsets)) if offsets[n][1] != offsets[n - 1][1]), len(offsets) // 2)
    near = datetime.fromtimestamp(offsets[change][0], info).replace(tzinfo=None)
    return near, [(instant, instant + offset) for instant, offset in offsets[change - 360 : change + 360]]


def by_the_clock(case: Case, rule: str, table: list[tuple[int, int]]) -> Iterator[int]:
    """Fires in a table of minutes, by the documented rules alone."""
    seen: set[int] = set()
    previous = table[0][1] - 60
    for instant, label in table:
        late = rule != "elapsed" and any(case.minute(lost) for lost in range(previous + 60, label, 60))
        again = label in seen and rule == "once"
        own = {instant + second for second in case.seconds} if case.minute(label) and not again else set()
        yield from sorted(own | ({instant} if late else set()))
        seen.add(label)
        previous = label


def test_seconds_and_years_keep_every_rule_when_clocks_change() -> None:
    print(f"seed {SEED}")
    rng, checked = random.Random(f"{SEED}clocks"), 0
    for _ in range(250 * TIMES):
        name, day = rng.choice(CHANGES)
        near, table = minutes_around(name, day)
        case, rule = (
            random_case(rng, rng.choice(("cron6", "quartz")), near=near),
            rng.choice(("once", "elapsed", "both")),
        )
        if read(case) is None:
            continue
        schedule = parse_schedule({"cron": case.text, "dialect": case.dialect, "timezone": name, "dst": rule})
        expected = list(by_the_clock(case, rule, table))
        where = (SEED, case.dialect, case.text, rule, name, day)
        after, until = table[0][0] - 1, table[-1][0] + 59
        assert schedule.count(after, until) == len(expected), where
        if len(expected) <= 200:
            assert list(schedule.walk(after, until)) == expected, where
        for _ in range(4):
            probe = rng.randint(after, until)
            later = next((fire for fire in expected if fire > probe), None)
            found = schedule.next(probe)
            assert found == later or (later is None and (found is None or found > until)), (*where, probe)
            cut = rng.randint(after, until)
            assert schedule.count(after, cut) == sum(fire <= cut for fire in expected), (*where, cut)
        checked += len(expected)
    assert checked > 4_000 * TIMES


@pytest.mark.parametrize("dialect", ["cron", "cron6"])
def test_days_and_seconds_agree_with_cronsim(dialect: str) -> None:
    """Six fields of cronsim follow elapsed time, five those of our default; L, LW, 5L and 5#2 mean the same."""
    print(f"seed {SEED}")
    rng, checked = random.Random(f"{SEED}{dialect}"), 0
    zones = ["UTC", *sorted({name for name, _ in CHANGES} - HALF_HOURS - {"UTC"})]
    for _ in range(250 * TIMES):
        case = random_case(rng, dialect, sim=True)
        name = rng.choice(zones)
        after = rng.randint(1_500_000_000, 1_900_000_000)
        more = {"dst": "elapsed"} if dialect == "cron6" else {}
        if read(case) is None or any("*" in part and not part.startswith("*") for part in case.text.split()):
            continue  # cronsim looks for a star at the beginning of a field only
        schedule = parse_schedule({"cron": case.text, "dialect": dialect, "timezone": name, **more})
        where = (SEED, case.text, name, after)
        instant = after
        simulated = iter(CronSim(case.text, datetime.fromtimestamp(after, ZoneInfo(name))))
        for _ in range(3):
            expected = next((int(fire.timestamp()) for fire in simulated if fire.timestamp() > instant), None)
            found = schedule.next(instant)
            if expected is None:
                assert found is None or found > after + 50 * 365 * 86400, where
                break
            assert found == expected, where
            instant, checked = expected, checked + 1
    assert checked > 100 * TIMES
