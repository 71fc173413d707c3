"""Time zones as pieces of constant offset, for exact arithmetic across every kind of clock change.

A *label* is local time written as seconds since 1970-01-01T00:00 as if it were UTC, so within a
piece `label = instant + offset`. Everything is found through `zoneinfo`; nothing is assumed about
rules (Lord Howe moves 30 minutes, Samoa left out a day, Morocco changes around Ramadan).
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from crony.errors import Invalid

_SHAPE = re.compile(r"[A-Za-z0-9_+\-]{1,40}(?:/[A-Za-z0-9_+\-]{1,40}){0,3}")
_AMBIGUOUS = {
    "EST": "America/New_York", "EST5EDT": "America/New_York", "CST6CDT": "America/Chicago",
    "MST": "America/Denver", "MST7MDT": "America/Denver", "PST8PDT": "America/Los_Angeles", "HST": "Pacific/Honolulu",
    "WET": "Europe/Lisbon", "CET": "Europe/Berlin", "MET": "Europe/Berlin", "EET": "Europe/Athens",
    "CST": "Asia/Shanghai or America/Chicago", "PST": "America/Los_Angeles", "IST": "Asia/Kolkata",
    "BST": "Europe/London", "JST": "Asia/Tokyo", "CEST": "Europe/Berlin", "EDT": "America/New_York",
}  # fmt: skip
_LOCAL = frozenset({"localtime", "Factory", "posixrules"})
_CHUNK = 1 << 25
"""Seconds of one chunk of the table (388 days)."""
_STEP = 86400
FIRST, LAST = -62_135_510_400, 253_370_764_800
"""Instants between which every zone can be computed (years 1 and 9999, less a day)."""


class Piece(NamedTuple):
    """A stretch of constant offset: `start` <= instant < `end`."""

    start: int
    end: int
    offset: int
    before: int
    """Offset just before `start` (the same as `offset` where only a chunk of the table begins)."""


class Zone:
    """One time zone. Shared: `zone(name)` returns the same object for the same name."""

    __slots__ = ("_chunks", "info", "name")

    def __init__(self, name: str, info: zoneinfo.ZoneInfo) -> None:
        self.name, self.info = name, info
        self._chunks: dict[int, tuple[tuple[int, ...], tuple[Piece, ...]]] = {}

    def piece(self, instant: int) -> Piece:
        """The piece that holds `instant`."""
        number = instant // _CHUNK
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = self._build(number * _CHUNK)
        starts, pieces = chunk
        return pieces[0] if len(pieces) == 1 else pieces[bisect_right(starts, instant) - 1]

    def offset(self, instant: int) -> int:
        """Seconds east of UTC at `instant`."""
        found = datetime.fromtimestamp(instant, UTC).astimezone(self.info).utcoffset()
        return 0 if found is None else round(found.total_seconds())

    def local(self, instant: float) -> datetime:
        """`instant` as an aware local time."""
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=instant)).astimezone(self.info)

    def _build(self, start: int) -> tuple[tuple[int, ...], tuple[Piece, ...]]:
        start, end = max(start, FIRST), min(start + _CHUNK, LAST)
        pieces: list[Piece] = []
        begin, before = start, self.offset(max(start - 1, FIRST))
        current = self.offset(start)
        probe = start
        while probe < end:
            upto = min(probe + _STEP, end)
            if self.offset(upto) != current:
                low, high = probe, upto
                while high - low > 1:
                    middle = (low + high) // 2
                    if self.offset(middle) == current:
                        low = middle
                    else:
                        high = middle
                if high < end:
                    pieces.append(Piece(begin, high, current, before))
                    begin, before, current = high, current, self.offset(high)
                upto = high
            probe = upto
        pieces.append(Piece(begin, end, current, before))
        return tuple(piece.start for piece in pieces), tuple(pieces)


@lru_cache(maxsize=1024)
def _zone(name: str) -> Zone | None:
    try:
        return Zone(name, zoneinfo.ZoneInfo(name))
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
        return None


def zone(name: Any, field: str = "schedule.timezone") -> Zone:
    """The zone of that IANA name. Raises `Invalid` naming `field`; never falls back to UTC."""
    if not isinstance(name, str):
        raise Invalid(field, "must be a zone name in text", hint="leave it out for UTC, or write Europe/Berlin")
    if not name:
        raise Invalid(field, "is empty", hint="leave it out for UTC, or write a name such as Asia/Shanghai")
    if name in _AMBIGUOUS:
        raise Invalid(field, f"{name} is an abbreviation, not a place", hint=f"write {_AMBIGUOUS[name]}")
    if not _SHAPE.fullmatch(name) or name in _LOCAL or name.startswith(("posix/", "right/")):
        raise Invalid(field, "is not the name of a time zone", hint="write an IANA name such as Asia/Shanghai, or UTC")
    found = _zone(name)
    if found is None or name not in _names():
        raise Invalid(field, f"no time zone is called {name}", hint=_suggest(name))
    return found


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


@lru_cache(maxsize=1)
def _folded() -> dict[str, str]:
    return {name.lower(): name for name in _names()}


def _suggest(name: str) -> str:
    folded = _folded()
    exact = folded.get(name.lower())
    if exact:
        return f"names are written {exact}"
    cities = {key.rsplit("/", 1)[-1]: value for key, value in folded.items()}
    city = name.rsplit("/", 1)[-1].lower()
    if city in cities:
        return f"did you mean {cities[city]}?"
    near = difflib.get_close_matches(city, cities, n=1, cutoff=0.75)
    return f"did you mean {cities[near[0]]}?" if near else "write an IANA name such as Asia/Shanghai, or UTC"
