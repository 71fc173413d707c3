"""Calendars: named sets of time that schedules keep to or keep out of.

A calendar is a set of whole days (a weekly pattern, with days taken in and days taken out) and of periods between two
instants. Days are those of the schedule's zone. A schedule with `calendars` is due where its text says so, in at
least one of the calendars it includes (when it includes any), and in none that it excludes. What a closed day becomes
(`closed`) is told by `moving`.

A job names calendars; its published document has their contents in the place of the names (`Calendars.filled`), so
that a leader needs nothing else, and an edited calendar is an edited schedule like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from crony.domain.check import choice, fields, integer, listing, plain, texts
from crony.domain.instants import parse_instant
from crony.domain.zones import Zone
from crony.errors import Invalid

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOSED = ("skip", "next", "previous")
MOST_RANGES, MOST_PERIODS, MOST_NAMED = 400, 100, 10
_DAY = 86400
_EPOCH = date(1970, 1, 1).toordinal()
_CONTENTS = ("name", "revision", "weekdays", "include", "exclude", "periods")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_RANGE = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.\.(\d{4}-\d\d-\d\d))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Calendar:
    """A checked calendar. Days count from 1970-01-01, which is 0; ranges of them include both ends."""

    name: str
    weekdays: int
    """Bit 0 is Monday."""
    include: tuple[tuple[int, int], ...] = ()
    exclude: tuple[tuple[int, int], ...] = ()
    periods: tuple[tuple[int, int, str, str], ...] = ()
    """(first second, first second after it, and both as text)."""
    description: str = ""
    revision: int = 0
    """Rises with each save; 0: not saved."""

    def document(self) -> dict[str, Any]:
        """The calendar in normal form."""
        return {
            "name": self.name,
            "description": self.description,
            "weekdays": [day for bit, day in enumerate(DAYS) if self.weekdays >> bit & 1],
            "include": [_range_text(item) for item in self.include],
            "exclude": [_range_text(item) for item in self.exclude],
            "periods": [{"start": start, "end": end} for _, _, start, end in self.periods],
        }

    def contents(self) -> dict[str, Any]:
        """What a published job needs of it."""
        document = self.document()
        del document["description"]
        return {**document, "revision": self.revision}

    def has_day(self, day: int) -> bool:
        """Whether a day as a whole is in the calendar."""
        if any(first <= day <= last for first, last in self.include):
            return True
        pattern = self.weekdays >> (day + 3) % 7 & 1  # 1970-01-01 was a Thursday
        return bool(pattern) and not any(first <= day <= last for first, last in self.exclude)

    def has(self, instant: int, day: int) -> bool:
        """Whether an instant, on this day where the schedule lives, is in the calendar."""
        return self.has_day(day) or any(first <= instant < end for first, end, _, _ in self.periods)


def parse_calendar(document: Any, field: str = "") -> Calendar:
    """The calendar behind a document (or its published contents). Raises `Invalid` with the field's path."""
    given = fields(plain(document, field), field, (*_CONTENTS, "description"))
    at = f"{field}." if field else ""
    name = calendar_name(given.get("name"), f"{at}name")
    weekdays = 0
    for index, item in enumerate(listing(given.get("weekdays") or [], f"{at}weekdays", 7)):
        if item not in DAYS:
            raise Invalid(f"{at}weekdays[{index}]", "is not a day of the week", hint=f"use {', '.join(DAYS)}")
        weekdays |= 1 << DAYS.index(item)
    include, exclude = (_ranges(given.get(part), f"{at}{part}") for part in ("include", "exclude"))
    for first, last in include:
        for begin, end in exclude:
            if first <= end and begin <= last:
                both = _range_text((max(first, begin), max(first, begin)))
                raise Invalid(f"{at}exclude", f"has {both}, which `include` has too", hint="keep it in one of them")
    periods = []
    for index, item in enumerate(listing(given.get("periods") or [], f"{at}periods", MOST_PERIODS)):
        path = f"{at}periods[{index}]"
        ends = fields(item, path, ("start", "end"))
        start, start_text = parse_instant(ends.get("start"), f"{path}.start")
        end, end_text = parse_instant(ends.get("end"), f"{path}.end")
        if end <= start:
            raise Invalid(f"{path}.end", "is not later than `start`", hint="a period ends right before its `end`")
        periods.append((start, end, start_text, end_text))
    if not weekdays and not include and not periods:
        raise Invalid(field or "weekdays", "leaves the calendar empty", hint="give weekdays, include or periods")
    return Calendar(
        name,
        weekdays,
        include,
        exclude,
        tuple(sorted(periods)),
        texts(given.get("description", ""), f"{at}description", least=0, most=2000, lines=True),
        integer(given.get("revision", 0), f"{at}revision", 0, 2**53),
    )


def calendar_name(value: Any, field: str = "name") -> str:
    """A calendar's name. Raises `Invalid`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Invalid(field, "is not the name of a calendar", hint="use a-z, 0-9 and . _ -, at most 63 characters")
    return value


def _ranges(value: Any, field: str) -> tuple[tuple[int, int], ...]:
    found = []
    for index, item in enumerate(listing(value or [], field, MOST_RANGES)):
        match = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if match is None:
            hint = 'write "2026-10-01" or "2026-10-01..2026-10-07", in quotes'
            raise Invalid(f"{field}[{index}]", "is neither a day nor a range of days", hint=hint)
        try:
            first, last = (date.fromisoformat(text).toordinal() - _EPOCH for text in (match[1], match[2] or match[1]))
        except ValueError:
            raise Invalid(f"{field}[{index}]", "names a day that does not exist", hint="look at the month") from None
        if last < first:
            raise Invalid(f"{field}[{index}]", "ends before it begins", hint="write the earlier day first")
        found.append((first, last))
    return tuple(sorted(set(found)))


def date_of(day: int) -> str:
    """A day since 1970-01-01 as it is written: `2026-10-01`."""
    return date.fromordinal(day + _EPOCH).isoformat()


def _range_text(item: tuple[int, int]) -> str:
    first, last = (date_of(day) for day in item)
    return first if first == last else f"{first}..{last}"


@dataclass(frozen=True, slots=True)
class Calendars:
    """The calendars of one schedule: names in a job's own document, contents in a published one."""

    include: tuple[str | Calendar, ...] = ()
    exclude: tuple[str | Calendar, ...] = ()
    closed: str = "skip"
    """skip | next | previous: whether a fire on a closed day is left out, or takes place on another day"""

    def document(self) -> dict[str, Any]:
        """The `calendars` field in normal form."""
        document: dict[str, Any] = {
            part: [item.contents() if isinstance(item, Calendar) else item for item in items]
            for part, items in (("include", self.include), ("exclude", self.exclude))
            if items
        }
        return document if self.closed == "skip" else {**document, "closed": self.closed}

    def words(self) -> str:
        """What follows the schedule in a sentence: `, in cn-workdays, not in freeze, closed days move to the next`."""
        parts = ((", in ", self.include), (", not in ", self.exclude))
        said = "".join(before + " or ".join(_name(item) for item in items) for before, items in parts if items)
        return said if self.closed == "skip" else f"{said}, closed days move to the {self.closed} open one"

    @property
    def names(self) -> tuple[str, ...]:
        """Every calendar it names."""
        return tuple(_name(item) for item in (*self.include, *self.exclude))

    @property
    def is_filled(self) -> bool:
        """Whether it has contents instead of names, or some of each."""
        return any(isinstance(item, Calendar) for item in (*self.include, *self.exclude))

    def filled(self, known: Mapping[str, Calendar]) -> Calendars:
        """The same with the contents of the calendars. Raises `KeyError` for one that is not `known`."""
        include, exclude = (tuple(known[_name(item)] for item in items) for items in (self.include, self.exclude))
        return Calendars(include, exclude, self.closed)

    def stretch(self, instant: int, zone: Zone) -> tuple[bool, int]:
        """Whether the instant is let through, and the first later one where that may be different."""
        piece = zone.piece(instant)
        day = (instant + piece.offset) // _DAY
        edge = min((day + 1) * _DAY - piece.offset, piece.end)
        let = not self.include
        for items, value in ((self.include, True), (self.exclude, False)):
            for item in items:
                if not isinstance(item, Calendar):
                    raise Invalid("schedule.calendars", f"the days of {item} are not there", hint="save the job again")
                for first, end, _, _ in item.periods:
                    edge = min(edge, first if first > instant else edge, end if end > instant else edge)
                if item.has(instant, day):
                    let = value
        return let, edge

    def open_from(self, instant: int, zone: Zone, until: int) -> int | None:
        """The first second from `instant` to `until` that is let through."""
        while instant <= until:
            let, edge = self.stretch(instant, zone)
            if let:
                return instant
            instant = edge
        return None

    def stretches(self, after: int, until: int, zone: Zone) -> Iterator[tuple[int, int]]:
        """(after, until] of each stretch of seconds that are let through."""
        instant, begun = after + 1, None
        while instant <= until:
            let, edge = self.stretch(instant, zone)
            if let and begun is None:
                begun = instant
            elif not let and begun is not None:
                yield begun - 1, instant - 1
                begun = None
            instant = edge
        if begun is not None:
            yield begun - 1, until


def _name(item: str | Calendar) -> str:
    return item if isinstance(item, str) else item.name


def parse_calendars(value: Any, field: str) -> Calendars | None:
    """The `calendars` field of a schedule: `{include: [names], exclude: [names], closed: skip}`. Raises `Invalid`."""
    if value is None:
        return None
    given = fields(value, field, ("include", "exclude", "closed"))
    include, exclude = (_items(given.get(part), f"{field}.{part}") for part in ("include", "exclude"))
    closed = given.get("closed")
    found = Calendars(include, exclude, "skip" if closed is None else choice(closed, f"{field}.closed", CLOSED))
    if not found.names:
        raise Invalid(field, "names no calendar", hint="write {include: [name]} or {exclude: [name]}")
    for name in found.names:
        if found.names.count(name) > 1:
            raise Invalid(field, f"names {name} twice", hint="remove one of them")
    for item in include:
        if found.closed != "skip" and isinstance(item, Calendar) and item.periods:
            raise Invalid(
                f"{field}.closed",
                f"moves whole days, but {item.name} opens parts of days (`periods`)",
                hint="include a calendar of days only, or leave `closed` out",
            )
    return found


def _items(value: Any, field: str) -> tuple[str | Calendar, ...]:
    found: list[str | Calendar] = []
    for index, item in enumerate(listing(value or [], field, MOST_NAMED)):
        path = f"{field}[{index}]"
        found.append(_shared(parse_calendar(item, path)) if isinstance(item, Mapping) else calendar_name(item, path))
    return tuple(found)


@lru_cache(maxsize=1024)
def _shared(calendar: Calendar) -> Calendar:
    """The same object for equal calendars: thousands of jobs may keep to one."""
    return calendar
