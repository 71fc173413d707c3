"""Cron text of five fields, checked strictly: what people write, in lower case and in numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
