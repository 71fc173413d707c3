"""Likely mistakes in schedules that are valid: what they do, and what was probably meant. Advice, never a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from crony.domain.calendar import Calendar, date_of
from crony.domain.cron import ALL_DAYS, Cron
from crony.domain.crontext import DAY_NAMES
from crony.domain.dialects import named
from crony.domain.moving import FARTHEST
from crony.domain.schedule import Schedule

_STEP = re.compile(r"(?:\*|0|h)/(\d+)")
_NUMBER = re.compile(r"(?<![#/\d])([1-7])(?![\d])")
_RULED = re.compile(r"([0-7])(?=#|l)")
_SIZES = {"second": 60, "minute": 60, "hour": 24}
_UNITS = {"second": "s", "minute": "m", "hour": "h"}


class Advice(NamedTuple):
    """One likely mistake. `code` is for programs and stays the same."""

    code: str
    field: str
    problem: str
    hint: str


def advise(schedules: Sequence[Schedule], now: float, field: str = "schedule") -> list[Advice]:
    """What a careful colleague would ask about the schedules of one job; `now` tells what is over."""
    many = len(schedules) > 1
    return [
        advice
        for index, schedule in enumerate(schedules)
        if schedule.cron is not None
        for advice in _cron(schedule, schedule.cron, now, f"{field}[{index}].cron" if many else f"{field}.cron")
    ]


def advise_calendar(before: Calendar, after: Calendar, now: float) -> list[Advice]:
    """What to ask about an edit of a calendar whose closed days move fires to others."""
    today = int(now) // 86400
    changed = [day for day in range(today - FARTHEST, today + 1) if before.has_day(day) != after.has_day(day)]
    if not changed:
        return []
    return [
        Advice(
            "past_days",
            "",
            f"changes days that have passed ({date_of(changed[-1])}): fires that moved across them stay as they were",
            hint="what is to run once more is run by hand",
        )
    ]


def _cron(schedule: Schedule, cron: Cron, now: float, field: str) -> Iterator[Advice]:
    parts = named(schedule.text, schedule.dialect)
    yield from _stars(parts, cron, field)
    yield from _steps(parts, field)
    yield from _days(parts, cron, schedule.dialect, field)
    if schedule.next(int(now)) is None:
        yield Advice("over", field, "will not fire any more: its years are over", hint="write later years, or none")


def _stars(parts: dict[str, str], cron: Cron, field: str) -> Iterator[Advice]:
    """A `*` left standing before a field that was set."""
    if parts.get("second") == "*" and cron.minutes.bit_count() < 60:
        yield Advice("every_second", field, "fires 60 times in each of its minutes", hint="write 0 as the second")
    if parts["minute"] == "*" and parts["hour"].replace(",", "").isdigit():
        yield Advice("every_minute", field, "fires in all 60 minutes of its hours", hint="write 0 as the minute")


def _steps(parts: dict[str, str], field: str) -> Iterator[Advice]:
    """Steps that do not come out even where their field begins anew."""
    for name, size in _SIZES.items():
        found = _STEP.fullmatch(parts.get(name, ""))
        step = int(found[1]) if found else 1
        if size % step:
            rest = (size - 1) % step + 1
            yield Advice(
                "uneven_step",
                field,
                f"{name}: a step of {step} does not divide {size}; the last interval is {rest}, not {step}",
                hint=f"use `every: {step}{_UNITS[name]}`, or a step that divides {size}",
            )
    found = _STEP.fullmatch(parts["day of month"])
    if found and int(found[1]) > 1:
        yield Advice(
            "uneven_step",
            field,
            f"day of month: a step of {found[1]} begins anew on every 1st, whatever day was last",
            hint=f"use `every: {found[1]}d` for an even interval",
        )


def _days(parts: dict[str, str], cron: Cron, dialect: str, field: str) -> Iterator[Advice]:
    if cron.either:
        yield Advice(
            "either_day",
            field,
            "both day fields are set: a day that matches either of them will do",
            hint="make one of them `*`, unless either is what you mean",
        )
    weekday = parts["day of week"]
    if dialect == "quartz" and _NUMBER.search(weekday):
        named_days = _NUMBER.sub(lambda match: DAY_NAMES[int(match[1]) - 1][:3].upper(), weekday.upper())
        yield Advice("numeric_weekday", field, "Quartz counts weekdays from 1 = Sunday", hint=f"write {named_days}")
    if dialect != "quartz" and (ruled := _RULED.search(weekday)) is not None:
        here, quartz = DAY_NAMES[int(ruled[1]) % 7], DAY_NAMES[(int(ruled[1]) - 1) % 7]
        named_days = _RULED.sub(lambda match: DAY_NAMES[int(match[1]) % 7][:3], weekday).upper()
        problem = f"{ruled[1]} is {here} here, counted from 0 = Sunday; in Quartz it would be {quartz}"
        yield Advice("numeric_weekday", field, problem, hint=f"write {named_days}")
    low = cron.days & -cron.days
    if cron.days != ALL_DAYS and low > 1 << 28 and not cron.day_rules and not cron.either:
        day = low.bit_length() - 1
        if any(cron.months >> month & 1 for month in ((2, 4, 6, 9, 11) if day == 31 else (2,))):
            yield Advice("short_months", field, f"months without a day {day} are skipped", hint="L is the last day")
