"""The dialects of cron text: `cron` (five fields), `cron6` (seconds first), `quartz` (six or seven fields).

Each is read strictly and becomes a `Cron`: plain five fields by `cron` itself, everything else a `Timetable`. The text
that is kept has its `H`; the `Cron` has the values that follow from the job's id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from crony.domain import quartz
from crony.domain.cron import Cron, DayRule, parse_cron
from crony.domain.crontext import FIELDS, Rule, five_fields, one_line, plain_field, value_of
from crony.domain.hashed import EXAMPLE, is_hashed, resolve
from crony.domain.timetable import FIRST_YEAR, Timetable
from crony.errors import Invalid

DIALECTS = ("cron", "cron6", "quartz")
_DAY = re.compile(r"l(?:-([0-9]{1,2}))?(w)?|([0-9]{1,2})w")
_WEEKDAY = re.compile(r"([0-9]|[a-z]{3})(?:(l)|#([0-9]{1,2}))")
_NAME = re.compile(r"[a-z]{3}")


@lru_cache(maxsize=65536)
def read(text: str, dialect: str = "cron", field: str = "schedule.cron") -> tuple[str, bool]:
    """(canonical text, whether it has an `H`). Raises `Invalid` for what is wrong, also when it can never fire."""
    parts = _split(text, dialect, field)
    cron = cron_of(text, dialect, field)
    if not any(is_hashed(part) for part in parts):
        return cron.text, False
    return " ".join(_shown(part, dialect) for part in _questioned(parts, dialect)), True


def cron_of(text: str, dialect: str = "cron", field: str = "schedule.cron", ident: str = EXAMPLE) -> Cron:
    """The `Cron` behind a text, each `H` by the job's id. Raises `Invalid`. Shared between equal resolved texts."""
    parts = _split(text, dialect, field)
    rules = _rules(dialect, len(parts))
    resolved = [resolve(part, rule, ident, field) for part, rule in zip(parts, rules, strict=True)]
    # `H/15` is an interval as `*/15` is, and so is Quartz' `0/15`: such jobs follow real time when clocks change.
    first = len(parts) - 5 if dialect != "quartz" else 1
    wild = any(_wild(part, dialect) for part in parts[first : first + 2])
    if dialect == "cron" and not any(_is_rule(item) for part in (parts[2], parts[4]) for item in part.split(",")):
        cron = parse_cron(" ".join(resolved), field)
        if cron.wild == wild:
            return cron
    return _timetable(" ".join(resolved), dialect, wild, field)


def named(text: str, dialect: str) -> dict[str, str]:
    """The fields of a checked text in lower case by their names; Quartz' `?` as `*`."""
    parts = _split(text, dialect, "")
    return {name: part for (name, *_), part in zip(_rules(dialect, len(parts)), parts, strict=True)}


def _split(text: str, dialect: str, field: str) -> list[str]:
    if dialect == "cron":
        return five_fields(text, field)
    lower = one_line(text, field)
    if dialect == "quartz":
        return quartz.split(lower, field)
    parts = lower.split()
    if lower.startswith("@"):
        raise Invalid(field, "a macro such as @daily has no seconds", hint="leave `dialect` out")
    if len(parts) == 6 and "?" not in lower:
        return parts
    if len(parts) == 7 or "?" in lower:
        raise Invalid(
            field, "has a year or a `?`, which cron6 does not have", hint="write `dialect: quartz`, or leave them out"
        )
    if len(parts) == 1:
        raise Invalid(field, "has one field instead of six", hint="second minute hour day-of-month month day-of-week")
    raise Invalid(
        field,
        f"has {len(parts)} fields instead of six",
        hint="leave `dialect` out"
        if len(parts) == 5
        else "write second minute hour day-of-month month day-of-week, or begin with 0",
    )


def _rules(dialect: str, count: int) -> tuple[Rule, ...]:
    return FIELDS if dialect == "cron" else (quartz.SECOND, *FIELDS) if dialect == "cron6" else quartz.rules(count)


def _wild(part: str, dialect: str) -> bool:
    return "*" in part or any(
        "/" in item and (item.startswith("h") or (dialect == "quartz" and "-" not in item)) for item in part.split(",")
    )


def _is_rule(item: str) -> bool:
    return bool(_DAY.fullmatch(item) or _WEEKDAY.fullmatch(item))


def _joined(items: Sequence[str]) -> str:
    """Plain items of a field; an empty one stays visible, to be refused."""
    return ",".join(items) or ("," if items else "")


@lru_cache(maxsize=65536)
def _timetable(text: str, dialect: str, wild: bool, field: str) -> Timetable:
    """The timetable behind a text without `H`; `?` has become `*`."""
    parts = text.split(" ")
    rules = _rules(dialect, len(parts))
    start = 0 if dialect == "cron" else 1
    plain = list(parts)
    plain[start + 2], days = _days(parts[start + 2], field)
    plain[start + 4], weekdays = _weekdays(parts[start + 4], rules[start + 4], dialect, field)
    if dialect == "quartz":
        plain = [quartz.unrolled(part, rule, field) for part, rule in zip(plain, rules, strict=True)]
    masks = [
        _mask(plain_field(part, *rule, field), rule) if part else 0 for part, rule in zip(plain, rules, strict=True)
    ]
    if dialect == "quartz":
        masks[5] >>= 1  # from 1 = Sunday to 0 = Sunday
    years = masks[6] >> FIRST_YEAR if len(parts) == 7 and parts[6] != "*" else 0
    either = dialect != "quartz" and "*" not in parts[start + 2] and "*" not in parts[start + 4]
    found = Timetable(
        " ".join(_shown(part, dialect) for part in _questioned(parts, dialect)),
        [_shown(part, dialect) for part in parts[start : start + 5]],
        masks[0] if start else 1,
        masks[start : start + 5],
        years,
        (days, weekdays),
        either=either,
        wild=wild,
    )
    if not found.possible():
        raise Invalid(field, "never fires: no such day exists", hint="check day of month against month")
    return found


def _days(part: str, field: str) -> tuple[str, tuple[DayRule, ...]]:
    """The plain part of a day-of-month field, and its rules."""
    plain, rules = [], []
    for item in part.split(","):
        match = _DAY.fullmatch(item)
        if match is None:
            plain.append(item)
        elif match[3]:
            day = value_of(match[3], "day of month", 1, 31, {}, field)
            rules.append(DayRule("nearest", day))
        else:
            back = int(match[1] or 0)
            if back > 30:
                raise Invalid(field, f"day of month: no month has {back} days before its last", hint="use L-1 to L-30")
            rules.append(DayRule("workday" if match[2] else "last", 0, back))
    return _joined(plain), tuple(rules)


def _weekdays(part: str, rule: Rule, dialect: str, field: str) -> tuple[str, tuple[DayRule, ...]]:
    """The plain part of a day-of-week field, and its rules; their weekdays count from 0 = Sunday."""
    name, low, high, names = rule
    plain, rules = [], []
    for item in part.split(","):
        match = _WEEKDAY.fullmatch(item)
        if item == "l":
            if dialect != "quartz":
                raise Invalid(
                    field, "day of week: L alone is ambiguous", hint="write friL for the last Friday, 6 for Saturday"
                )
            plain.append("7")
        elif match is None:
            plain.append(item)
        else:
            weekday = (value_of(match[1], name, low, high, names, field) - low) % 7
            if match[2]:
                rules.append(DayRule("last_weekday", weekday))
                continue
            nth = int(match[3])
            if not 1 <= nth <= 5:
                raise Invalid(
                    field, f"day of week: no month has {nth} of a weekday", hint="use #1 to #5, or L for the last"
                )
            rules.append(DayRule("nth", weekday, nth))
    return _joined(plain), tuple(rules)


def _mask(text: str, rule: Rule) -> int:
    """Bits of the values in a field that `plain_field` wrote."""
    _, low, high, _ = rule
    mask = 0
    for item in text.split(","):
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        start, end = (low, high) if span == "*" else (int(first), int(last or first))
        for value in range(start, end + 1, int(step or 1)):
            mask |= 1 << value
    return mask


def _questioned(parts: Sequence[str], dialect: str) -> list[str]:
    """Quartz' `?` back in its place."""
    shown = list(parts)
    if dialect == "quartz":
        shown[5 if parts[5] == "*" else 3] = "?"
    return shown


def _shown(part: str, dialect: str) -> str:
    """As people write it: names in lower case for cron, everything in capitals for Quartz, L, W and H in capitals."""
    if dialect == "quartz":
        return part.upper()
    return ",".join(_cased(item) for item in part.split(","))


def _cased(item: str) -> str:
    if _DAY.fullmatch(item) or is_hashed(item):
        return item.upper()
    return item[:-1] + "L" if _WEEKDAY.fullmatch(item) and item.endswith("l") and not _NAME.fullmatch(item) else item
