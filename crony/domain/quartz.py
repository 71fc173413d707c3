"""Quartz text: how its fields are written in cron's own numbers. Weekdays count from 1 = Sunday.

Differences to cron: `?` stands in exactly one of the two day fields, `a/b` runs from `a` to the end of the field,
ranges may go round the end (`FRI-MON`, `22-2`), and a seventh field is the year.
"""

from __future__ import annotations

import re
from typing import NoReturn

from crony.domain.crontext import DAY_NAMES, FIELDS, Rule, value_of
from crony.domain.timetable import FIRST_YEAR, LAST_YEAR
from crony.errors import Invalid

SECOND: Rule = ("second", 0, 59, {})
YEAR: Rule = ("year", FIRST_YEAR, LAST_YEAR, {})
WEEKDAY: Rule = ("day of week", 1, 7, {name[:3].lower(): number for number, name in enumerate(DAY_NAMES, 1)})
_ITEM = re.compile(r"([0-9]{1,4}|[a-z]{3})(?:-([0-9]{1,4}|[a-z]{3}))?(?:/([0-9]{1,4}))?")


def rules(count: int) -> tuple[Rule, ...]:
    """The rules of a text of six or seven fields."""
    return (SECOND, *FIELDS[:4], WEEKDAY, YEAR)[:count]


def split(text: str, field: str) -> list[str]:
    """The six or seven fields of a text, `?` replaced by `*`. Raises `Invalid`."""
    parts = text.split()
    if text.startswith("@"):
        raise Invalid(field, "a macro such as @daily is not Quartz", hint="leave `dialect` out, or write 0 0 0 * * ?")
    if len(parts) == 5:
        raise Invalid(field, "has five fields; Quartz has six or seven", hint="leave `dialect` out, or begin with 0")
    if len(parts) not in (6, 7):
        raise Invalid(
            field, f"has {len(parts)} fields; Quartz has six or seven", hint="second minute hour day month weekday year"
        )
    for part, (name, *_) in zip(parts, rules(7), strict=False):
        if "?" in part and not name.startswith("day"):
            raise Invalid(field, f"{name}: `?` is for the two day fields", hint="write `*`")
        if "?" in part and part != "?":
            raise Invalid(field, f"{name}: `?` stands alone", hint="write `?`, or the days without it")
    if (parts[3] == "?") == (parts[5] == "?"):
        _refuse_days(parts, field)
    parts[3], parts[5] = ("*" if part == "?" else part for part in (parts[3], parts[5]))
    return parts


def _refuse_days(parts: list[str], field: str) -> NoReturn:
    fixed = parts.copy()
    if parts[3] == "?":
        fixed[3] = "*"
        raise Invalid(field, "both day fields are `?`; Quartz wants exactly one", hint="write " + _text(fixed))
    why = "neither day field is `?`; Quartz wants exactly one"
    if "*" not in (parts[3], parts[5]):
        raise Invalid(field, why, hint="make two schedules, one with each of the day fields")
    fixed[3 if parts[5] != "*" else 5] = "?"
    raise Invalid(field, why, hint="write " + _text(fixed))


def _text(parts: list[str]) -> str:
    return " ".join(parts).upper()


def unrolled(part: str, rule: Rule, field: str) -> str:
    """The field as cron would write it: `5/15` as a range, a range round the end as its values."""
    return ",".join(_unrolled(item, rule, field) for item in part.split(","))


def _unrolled(item: str, rule: Rule, field: str) -> str:
    match = _ITEM.fullmatch(item)
    if match is None:
        return item
    name, low, high, names = rule
    first = value_of(match[1], name, low, high, names, field)
    if match[2] is None:
        return f"{first}-{high}/{match[3]}" if match[3] else item
    last = value_of(match[2], name, low, high, names, field)
    step = int(match[3] or 1)
    if last >= first or name == "year" or step == 0:
        return item
    size = high - low + 1
    return ",".join(str(low + (value - low) % size) for value in range(first, last + size + 1, step))
