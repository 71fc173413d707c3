"""Durations as people write them: `90s`, `5m`, `1h30m`, `1d`, `500ms`. A bare number is refused: of what?"""

from __future__ import annotations

import re
from typing import Any

from crony.errors import Invalid

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PART = r"(\d{1,12}(?:\.\d{1,3})?)(ms|[wdhms])"
_WHOLE = re.compile(rf"(?:{_PART})+", re.ASCII)
_PARTS = re.compile(_PART, re.ASCII)
_HINT = "write a number and a unit, such as 90s, 5m, 2h, 1d"


def parse_duration(value: Any, field: str, *, least: float = 0.0, most: float = 315_360_000.0) -> float:
    """`value` in seconds, between `least` and `most` inclusive. Raises `Invalid` naming `field`."""
    if not isinstance(value, str):
        raise Invalid(field, "must be a duration in text", hint=_HINT)
    text = value.strip()
    if len(text) > 40 or not _WHOLE.fullmatch(text):
        raise Invalid(field, "is not a duration", hint=_HINT)
    milliseconds, seen = 0.0, []
    for number, unit in _PARTS.findall(text):
        milliseconds += float(number) * _UNITS[unit]
        seen.append(_UNITS[unit])
    if seen != sorted(set(seen), reverse=True):
        raise Invalid(field, "names its units out of order", hint="write the larger unit first, each once: 1h30m")
    seconds = round(milliseconds) / 1000
    if not least <= seconds <= most:
        raise Invalid(
            field, f"must be between {format_duration(least)} and {format_duration(most)}", hint=f"it says {text}"
        )
    return seconds


def format_duration(seconds: float) -> str:
    """`seconds` (>= 0) in the shortest exact text: 5400 is `1h30m`, 0.5 is `500ms`, 0 is `0s`."""
    rest, parts = round(seconds * 1000), []
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


_WORDS = {"d": "day", "h": "hour", "m": "minute", "s": "second", "ms": "millisecond"}


def duration_words(seconds: float) -> str:
    """`seconds` for a sentence: 300 is `5 minutes`, 5400 is `1 hour 30 minutes`."""
    words = []
    for number, unit in _PARTS.findall(format_duration(seconds)):
        words.append(f"{number} {_WORDS[unit]}{'' if number == '1' else 's'}")
    return " ".join(words)
