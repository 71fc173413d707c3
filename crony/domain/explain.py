"""What happened to a fire's local time: marks for the clock changes before it and at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from crony.domain.calendar import date_of
from crony.domain.moving import Moved
from crony.domain.schedule import Schedule
from crony.domain.zones import LAST, Zone, zone


class Mark(NamedTuple):
    """One remark on a fire: `kind` for programs, `words` for people."""

    kind: str
    """clocks (changed since the fire before) | shifted (its own time lies in a gap) | first, second (of a time that
    occurs twice) | skipped (times before it that do not exist were left out) | moved (its own day is closed)"""
    words: str


def marks(schedules: Sequence[Schedule], before: int, at: int) -> tuple[Mark, ...]:
    """The remarks on the fire `at`, which follows the one (or the instant) `before`."""
    found = list(_clocks(zone(schedules[0].timezone), before, at)) if schedules else []
    for schedule in schedules:
        if schedule.kind == "cron":
            found += [mark for mark in _skipped(schedule, before, at) if mark not in found]
            if schedule.next(at - 1) == at:
                own = at - (schedule.window.shift if schedule.window else 0)
                found += [mark for mark in (*_label(schedule, own), *_moved(schedule, own)) if mark not in found]
    return tuple(found)


def _clocks(where: Zone, before: int, at: int) -> Iterator[Mark]:
    old, new = where.piece(before).offset, where.piece(at).offset
    if old != new:
        yield Mark("clocks", f"clocks went from {_offset(old)} to {_offset(new)} since the one before")


def _label(schedule: Schedule, at: int) -> Iterator[Mark]:
    """Whether this fire's label is its own, and whether it is the only one."""
    cron, where = schedule.cron, schedule.zone
    assert cron is not None and where is not None
    start, end, offset, before = where.piece(at)
    if at == start and before < offset and schedule.dst != "elapsed":
        wanted = cron.at_or_after(at + before)
        if wanted is not None and wanted < at + offset:
            yield Mark("shifted", f"{_time(wanted)} does not exist on this day, so it fires at the end of the gap")
    if at < start + before - offset:
        yield Mark("second", f"{_time(at + offset)} occurs twice on this day: this is the second")
    if end < LAST and at >= end + where.piece(end).offset - offset:
        yield Mark("first", f"{_time(at + offset)} occurs twice on this day: this is the first")


def _moved(schedule: Schedule, at: int) -> Iterator[Mark]:
    """Whether it came from a day that its calendars close."""
    if isinstance(schedule.cron, Moved) and schedule.zone is not None:
        origin = schedule.cron.origin((at + schedule.zone.piece(at).offset) // 86400)
        if origin is not None:
            yield Mark("moved", f"moved here from {date_of(origin)}, a closed day")


def _skipped(schedule: Schedule, before: int, at: int) -> Iterator[Mark]:
    """Labels in gaps between two fires, which `elapsed` leaves out."""
    cron, where = schedule.cron, schedule.zone
    assert cron is not None and where is not None
    instant = where.piece(before).end
    while schedule.dst == "elapsed" and instant <= at and instant < LAST:
        start, end, offset, old = where.piece(instant)
        count = cron.count(start + old, start + offset)
        if count:
            first = cron.at_or_after(start + old)
            assert first is not None
            yield Mark("skipped", f"left out before it, as {_day(first)} did not exist: {count}")
        instant = end


def _offset(seconds: int) -> str:
    minutes = abs(seconds) // 60
    return f"{'-' if seconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"


def _time(label: int) -> str:
    return datetime.fromtimestamp(label, UTC).strftime("%H:%M:%S")


def _day(label: int) -> str:
    return datetime.fromtimestamp(label, UTC).strftime("%Y-%m-%d %H:%M:%S")
