"""Instants as people write them: RFC 3339 with an offset, in whole seconds."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from crony.errors import Invalid

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)


def parse_instant(value: Any, field: str) -> tuple[int, str]:
    """(epoch second, canonical text) of an RFC 3339 time with offset, in whole seconds. Raises `Invalid`."""
    hint = "write it as 2026-12-01T09:00:00+08:00"
    if isinstance(value, datetime):
        value = value.isoformat()
    if not isinstance(value, str):
        raise Invalid(field, "must be a time in text", hint=hint)
    text = value.strip()
    match = _INSTANT.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        naive = _INSTANT.fullmatch(text + "Z") if len(text) <= 64 else None
        raise Invalid(field, "has no offset from UTC" if naive else "is not an RFC 3339 time", hint=hint)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if match[7] and match[7].strip(".0"):
        raise Invalid(field, "must be a whole second", hint=hint)
    if hour > 23 or minute > 59 or second > 59:
        raise Invalid(field, "has an hour above 23, or minutes or seconds above 59", hint=hint)
    if not 1970 <= year <= 9998:
        raise Invalid(field, "must lie between the years 1970 and 9998", hint=hint)
    east = 0
    if match[9]:
        if int(match[10]) > 23 or int(match[11]) > 59:
            raise Invalid(field, "has an impossible offset from UTC", hint=hint)
        east = (int(match[10]) * 3600 + int(match[11]) * 60) * (-1 if match[9] == "-" else 1)
    try:
        moment = datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise Invalid(field, "names a day that does not exist", hint=hint) from None
    label = (moment - datetime(1970, 1, 1)) // timedelta(seconds=1)
    if label - east < 0:
        raise Invalid(field, "must lie after 1970 began", hint=hint)
    suffix = "Z" if match[8] else f"{match[9]}{match[10]}:{match[11]}"
    return label - east, moment.isoformat() + suffix
