"""Time zones as pieces of constant offset, for exact arithmetic across every kind of clock change.

A *label* is local time written as seconds since 1970-01-01T00:00 as if it were UTC, so within a
piece `label = instant + offset`. Everything is found through `zoneinfo`; nothing is assumed about
rules (Lord Howe moves 30 minutes, Samoa left out a day, Morocco changes around Ramadan).
"""

from __future__ import annotations

import difflib
import re
import threading
import zoneinfo
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from crony.domain import tzdata
from crony.errors import Invalid

_SHAPE = re.compile(r"[A-Za-z0-9_+\-]{1,40}(?:/[A-Za-z0-9_+\-]{1,40}){0,3}")
_AMBIGUOUS = {
    "EST": "America/New_York", "EST5EDT": "America/New_York", "CST6CDT": "America/Chicago",
    "MST": "America/Denver", "MST7MDT": "America/Denver", "PST8PDT": "America/Los_Angeles", "HST": "Pacific/Honolulu",
    "WET": "Europe/Lisbon", "CET": "Europe/Berlin", "MET": "Europe/Berlin", "EET": "Europe/Athens",
    "CST": "Asia/Shanghai or America/Chicago", "PST": "America/Los_Angeles", "IST": "Asia/Kolkata",
    "BST": "Europe/London", "JST": "Asia/Tokyo", "CEST": "Europe/Berlin", "EDT": "America/New_York",
}  # fmt: skip
_ELSEWHERE = {
    "beijing": "Asia/Shanghai", "guangzhou": "Asia/Shanghai", "shenzhen": "Asia/Shanghai", "osaka": "Asia/Tokyo",
    "delhi": "Asia/Kolkata", "mumbai": "Asia/Kolkata", "bangalore": "Asia/Kolkata", "munich": "Europe/Berlin",
    "frankfurt": "Europe/Berlin", "hamburg": "Europe/Berlin", "geneva": "Europe/Zurich", "milan": "Europe/Rome",
    "barcelona": "Europe/Madrid", "boston": "America/New_York", "washington": "America/New_York",
    "san_francisco": "America/Los_Angeles", "seattle": "America/Los_Angeles", "houston": "America/Chicago",
}  # fmt: skip
"""Cities that people look for and that have no zone of their own."""
_LOCAL = frozenset({"localtime", "Factory", "posixrules"})
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d\d))?", re.IGNORECASE)
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


class NoZone(Invalid):
    """The time zone data of this process has no zone of that name."""

    @property
    def what_to_do(self) -> str:
        """For somebody whose job had that zone before: why it has none now, and what to try."""
        near = f"; {self.hint}" if self.hint.startswith("did you mean") else ""
        return (
            f"{self.problem} in the time zone data of the centre ({tzdata.version()}): install other data there, "
            f"or save the job with another zone{near}"
        )


class Zone:
    """One time zone. Shared: `zone(name)` returns the same object for the same name; it follows new time zone data."""

    __slots__ = ("_chunks", "_info", "name")

    def __init__(self, name: str, info: zoneinfo.ZoneInfo) -> None:
        self.name = name
        self._info: zoneinfo.ZoneInfo | None = info
        self._chunks: dict[int, tuple[tuple[int, ...], tuple[Piece, ...]]] = {}

    @property
    def info(self) -> zoneinfo.ZoneInfo:
        """The zone as the standard library has it. Raises `NoZone` when new data have it no more."""
        if self._info is None:
            raise _none_of(self.name, "schedule.timezone")
        return self._info

    @property
    def is_there(self) -> bool:
        """Whether the data have it."""
        return self._info is not None

    def reload(self) -> None:
        """Read it again; everything that holds it sees the new rules at once."""
        self._info = _read(self.name)
        self._chunks = {}

    def piece(self, instant: int) -> Piece:
        """The piece that holds `instant`."""
        number, chunks = instant // _CHUNK, self._chunks
        chunk = chunks.get(number)
        if chunk is None:
            chunk = chunks[number] = self._build(number * _CHUNK)
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


_known: dict[str, Zone] = {}
_lock = threading.Lock()
_taken_in: tuple[tuple[object, ...], int] = tzdata.signature(), 0
"""The time zone data that were read last, and how many times others were."""


def refresh() -> int:
    """Take in time zone data that were installed since this process read its own; how many times there were any.

    Cheap: a few files are looked at. Zones follow in place, so that a schedule that is parsed already goes by the new
    rules; one whose zone is gone raises `NoZone` when it is asked.
    """
    global _taken_in
    with _lock:
        found = tzdata.signature()
        if found != _taken_in[0]:
            tzdata.version.cache_clear()
            zoneinfo.ZoneInfo.clear_cache()
            for cached in (_names, _folded):
                cached.cache_clear()
            for each in list(_known.values()):
                each.reload()
            _taken_in = found, _taken_in[1] + 1
        return _taken_in[1]


def _read(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
        return None


def _zone(name: str) -> Zone | None:
    known = _known.get(name)
    if known is None:
        info = _read(name)
        if info is None:
            return None
        known = _known.setdefault(name, Zone(name, info))
    return known if known.is_there else None


def zone(name: Any, field: str = "schedule.timezone") -> Zone:
    """The zone of that IANA name. Raises `Invalid` naming `field`; never falls back to UTC."""
    if not isinstance(name, str):
        raise Invalid(field, "must be a zone name in text", hint="leave it out for UTC, or write Europe/Berlin")
    if not name:
        raise Invalid(field, "is empty", hint="leave it out for UTC, or write a name such as Asia/Shanghai")
    if name in _AMBIGUOUS:
        raise Invalid(field, f"{name} is an abbreviation, not a place", hint=f"write {_AMBIGUOUS[name]}")
    offset = _OFFSET.fullmatch(name)
    if offset and name not in _names():
        problem = f"{name} is an offset from UTC, which follows no clock changes"
        exact = _without_changes(offset)
        if exact:
            raise Invalid(field, problem, hint=f"write a place, such as Asia/Shanghai, or {exact} if that is meant")
        raise Invalid(field, problem, hint="write a place, such as Asia/Kolkata")
    if not _SHAPE.fullmatch(name) or name in _LOCAL or name.startswith(("posix/", "right/")):
        raise Invalid(field, "is not the name of a time zone", hint=_suggest(name[:60].strip().replace(" ", "_")))
    found = _zone(name)
    if found is None or name not in _names():
        raise _none_of(name, field)
    return found


def _none_of(name: str, field: str) -> NoZone:
    return NoZone(field, f"no time zone is called {name}", hint=_suggest(name))


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
    city = name.rsplit("/", 1)[-1].lower()
    cities = dict(_ELSEWHERE)
    for key, value in sorted(folded.items()):
        cities.setdefault(key.rsplit("/", 1)[-1], value)
    near = [cities[city]] if city in cities else []
    if not near and (close := difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.9)):
        return f"did you mean {folded[close[0]]}?"
    near += [folded[key] for key in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.8)]
    near += [cities[key] for key in difflib.get_close_matches(city, cities, n=3, cutoff=0.75)]
    shown = list(dict.fromkeys(near))[:3]
    return f"did you mean {', '.join(shown)}?" if shown else "write an IANA name such as Asia/Shanghai, or UTC"


def _without_changes(offset: re.Match[str]) -> str:
    """The zone with just that offset, whose sign is the other way round; empty: there is none (half hours, say)."""
    hours = int(offset[2])
    found = f"Etc/GMT{'-' if offset[1] == '+' else '+'}{hours}"
    return found if not int(offset[3] or 0) and found in _names() else ""
