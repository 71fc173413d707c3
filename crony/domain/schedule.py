"""When a job is due: cron text, a fixed interval, or one instant. Instants are whole seconds since the Unix epoch.

What becomes of cron text when clocks change (`dst`) is in `cronwalk`, what calendars do in `calendar` and `moving`.
Several schedules of a job that are due in the same second are one fire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from crony.domain.calendar import Calendar, Calendars, parse_calendars
from crony.domain.check import choice, fields, texts
from crony.domain.cron import Cron
from crony.domain.cronwalk import count_instants, next_instant
from crony.domain.dialects import DIALECTS, cron_of, read
from crony.domain.durations import duration_words, format_duration, parse_duration
from crony.domain.hashed import EXAMPLE
from crony.domain.instants import parse_instant
from crony.domain.moving import Moved, moved, plain
from crony.domain.window import FIELDS, Window, parse_window
from crony.domain.words import describe
from crony.domain.zones import LAST, Zone, zone
from crony.errors import Invalid

MOST = 20
"""Schedules one job may have."""

_DAY = 86400
_KNOWN = ("cron", "every", "after", "at", "timezone", "dst", "anchor", "dialect", "calendars", *FIELDS)
HORIZON = 20 * 366 * _DAY
"""Seconds without a fire after which a schedule that keeps to calendars counts as over."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule. `text` is canonical: cron text, a duration, or an RFC 3339 instant."""

    kind: str
    """cron | every | at"""
    text: str
    timezone: str = "UTC"
    dst: str = ""
    """once | elapsed | both for cron; empty otherwise."""
    cron: Cron | None = None
    zone: Zone | None = None
    period: int = 0
    """Seconds between fires of `every`."""
    anchor: int = 0
    """An instant on the grid of `every` (a phase, not a start); the instant of `at`."""
    anchor_text: str = ""
    window: Window | None = None
    """The part of its instants that is due; None: all of them."""
    dialect: str = "cron"
    hashed: bool = False
    """The text has an `H`: `cron` is an example until `resolved` says what it is for a job."""
    calendars: Calendars | None = None
    after_end: bool = False
    """Of `every`: a fire comes so long after the end of the run before it. Nobody knows beforehand when that is, so
    no instant follows from the schedule alone: see `afterend`."""

    @property
    def shifted(self) -> bool:
        """Whether its instants differ from job to job."""
        return self.hashed or (self.window is not None and self.window.jitter > 0)

    def resolved(self, ident: str) -> Schedule:
        """The schedule as the job of that id has it: each `H` of its text, and its jitter, by the id."""
        cron = cron_of(self.text, self.dialect, ident=ident) if self.hashed else self.cron
        if cron is not None and self.calendars is not None:
            cron = moved(cron, self.calendars)
        window = self.window.resolved(ident) if self.window and ident != EXAMPLE else self.window
        return replace(self, cron=cron, window=window)

    def document(self) -> dict[str, Any]:
        """The schedule as plain data, defaults filled in; `parse_schedule` reads it back."""
        document = {self.kind: self.text, "timezone": self.timezone}
        if self.kind == "cron":
            document["dst"] = self.dst
            if self.dialect != "cron":
                document["dialect"] = self.dialect
        if self.anchor_text:
            document["anchor"] = self.anchor_text
        if self.after_end:
            document["after"] = "end"
        limits: dict[str, Any] = self.window.document() if self.window else {}
        if self.calendars:
            limits["calendars"] = self.calendars.document()
        return {**document, **limits}

    def filled(self, known: Mapping[str, Calendar]) -> Schedule:
        """The schedule with the contents of its calendars. Raises `KeyError` for one that is not `known`."""
        return _keeping(self, self.calendars.filled(known)) if self.calendars else self

    def kept_out(self, instant: int) -> tuple[bool, int | None]:
        """(whether its text comes at `instant` and its calendars keep it from being due then, the day since 1970 to
        which that fire moved, or None)."""
        if self.calendars is None or self.next(instant - 1) == instant:
            return False, None
        cron = None if self.cron is None else plain(self.cron)
        if replace(self, calendars=None, cron=cron).next(instant - 1) != instant:
            return False, None
        if not isinstance(self.cron, Moved) or self.zone is None:
            return True, None
        instant -= self.window.shift if self.window else 0
        day = (instant + self.zone.piece(instant).offset) // _DAY
        landed = self.cron.lands(day)
        return True, None if landed == day else landed

    def describe(self) -> str:
        """One line for people: `at 01:30 every day (Asia/Shanghai), until 2026-12-31T00:00:00Z`."""
        parts = (self.calendars, self.window)
        return self._words() + "".join(part.words() for part in parts if part)

    def _words(self) -> str:
        if self.kind == "at":
            return f"once at {self.text}"
        if self.kind == "every":
            words = duration_words(self.period)
            if self.after_end:
                return f"{words} after the end of the run before"
            return f"every {words.removeprefix('1 ') if words.count(' ') == 1 else words}"
        assert self.cron is not None
        return f"{describe(self.cron)} ({self.timezone})"

    def next(self, after: int) -> int | None:
        """The first fire later than `after`, or None."""
        if self.window is None:
            return self._next(after)
        last, shift = self._last(), self.window.shift
        after = max(after - shift, self.window.first - 1)
        found = self._next(after) if after < last else None
        return None if found is None or found > last else found + shift

    def _last(self) -> int:
        """The last second that the window leaves, before the shift."""
        assert self.window is not None
        return _counted(self) if self.window.count else self.window.last

    def _next(self, after: int) -> int | None:
        """The first instant later than `after` that the calendars let through, whatever the window."""
        found = self._plain(after)
        if self.calendars is None or found is None:
            return found
        where, until = self.zone or zone(self.timezone), min(found + HORIZON, LAST - 1)
        while found is not None and found <= until:
            opens = self.calendars.open_from(found, where, until)
            if opens is None or opens == found:
                return opens
            found = self._plain(opens - 1)
        return None

    def _plain(self, after: int) -> int | None:
        """The first instant later than `after` by the text alone."""
        if self.after_end:
            return None
        if self.kind == "every":
            return after + self.period - (after - self.anchor) % self.period
        if self.kind == "at":
            return self.anchor if self.anchor > after else None
        assert self.cron is not None and self.zone is not None
        return next_instant(self.cron, self.zone, self.dst, after)

    def walk(self, after: int, until: int) -> Iterator[int]:
        """Every fire with `after` < t <= `until`, in order."""
        found = self.next(after)
        while found is not None and found <= until:
            yield found
            found = self.next(found)

    def count(self, after: int, until: int) -> int:
        """How many fires `after` < t <= `until`, exactly, without visiting them one by one."""
        if self.window is not None:
            shift = self.window.shift
            after, until = max(after - shift, self.window.first - 1), min(until - shift, self._last())
        if self.calendars is None or until <= after:
            return self._count(after, until)
        where = self.zone or zone(self.timezone)
        return sum(self._count(low, high) for low, high in self.calendars.stretches(after, min(until, LAST - 1), where))

    def _count(self, after: int, until: int) -> int:
        """The same by the text alone."""
        if until <= after or self.after_end:
            return 0
        if self.kind == "every":
            return (until - self.anchor) // self.period - (after - self.anchor) // self.period
        if self.kind == "at":
            return int(after < self.anchor <= until)
        assert self.cron is not None and self.zone is not None
        return count_instants(self.cron, self.zone, self.dst, after, until)


def parse_schedules(value: Any, field: str = "schedule") -> tuple[Schedule, ...]:
    """The schedules of a document: a mapping, a list of them, or nothing (manual only). Raises `Invalid`."""
    if value is None:
        return ()
    if isinstance(value, list):
        if len(value) > MOST:
            raise Invalid(field, f"has {len(value)} schedules; at most {MOST}", hint="combine them or make two jobs")
        parsed = tuple(parse_schedule(item, f"{field}[{index}]") for index, item in enumerate(value))
        for index, schedule in enumerate(parsed):
            if schedule in parsed[:index]:
                raise Invalid(f"{field}[{index}]", "is the same as an earlier schedule", hint="remove it")
            if schedule.after_end and len(parsed) > 1:
                raise Invalid(f"{field}[{index}].after", "does not go with other schedules", hint="make two jobs")
        return parsed
    return (parse_schedule(value, field),)


def parse_schedule(value: Any, field: str = "schedule") -> Schedule:
    """One schedule from plain data. Raises `Invalid` naming the field; the result is shared between equal texts."""
    if isinstance(value, str):
        raise Invalid(
            field,
            "must be a mapping",
            hint='write {cron: "30 1 * * *"}, {every: 5m} or {at: …}; leave it out for a job run by hand',
        )
    given = fields(value, field, _KNOWN)
    schedule, window = _unlimited(given, field), parse_window(given, field)
    calendars = parse_calendars(given.get("calendars"), f"{field}.calendars")
    if calendars and schedule.kind == "at":
        raise Invalid(f"{field}.calendars", "does not go with `at`, which is one instant", hint="remove it")
    if calendars and calendars.closed != "skip" and schedule.kind == "every":
        hint = "write the times as `cron`, or leave `closed` out"
        raise Invalid(f"{field}.calendars.closed", "does not go with `every`, which has no time of day", hint=hint)
    schedule = replace(schedule, window=window) if window else schedule
    return _keeping(schedule, calendars) if calendars else schedule


def _keeping(schedule: Schedule, calendars: Calendars) -> Schedule:
    """The schedule with these calendars, its days moved where they say so."""
    cron = moved(schedule.cron, calendars) if schedule.cron is not None else None
    return replace(schedule, calendars=calendars, cron=cron)


def _unlimited(given: Mapping[str, Any], field: str) -> Schedule:
    """The schedule without its window, shared between equal texts."""
    kinds = [kind for kind in ("cron", "every", "at") if given.get(kind) is not None]
    if len(kinds) != 1:
        have = "no" if not kinds else " and ".join(kinds)
        raise Invalid(
            field, f"needs exactly one of cron, every, at; it has {have}", hint="for manual only: no schedule"
        )
    kind = kinds[0]
    for name, owner in (("dst", "cron"), ("dialect", "cron"), ("anchor", "every"), ("after", "every")):
        if given.get(name) is not None and kind != owner:
            raise Invalid(f"{field}.{name}", f"goes with `{owner}` only", hint="remove it")
    timezone = given.get("timezone", "UTC")
    if timezone is None:
        raise Invalid(
            f"{field}.timezone", "is null", hint="leave it out for UTC, or write a name such as Asia/Shanghai"
        )
    if kind == "cron":
        text = texts(given["cron"], f"{field}.cron", most=1 << 20, lines=True)
        dst = given.get("dst")
        if dst is not None:
            choice(dst, f"{field}.dst", ("once", "elapsed", "both"))
        dialect = given.get("dialect")
        dialect = "cron" if dialect is None else choice(dialect, f"{field}.dialect", DIALECTS)
        zone(timezone, f"{field}.timezone")
        text, hashed = read(text, dialect, f"{field}.cron")
        return _cron_schedule(text, dialect, hashed, timezone, dst or "")
    zone(timezone, f"{field}.timezone")
    if kind == "every":
        seconds = parse_duration(given["every"], f"{field}.every", least=1, most=3650 * _DAY)
        if seconds != int(seconds):
            raise Invalid(f"{field}.every", "must be whole seconds", hint="write 1s or more, such as 90s")
        anchor = given.get("anchor")
        start, start_text = (0, "") if anchor is None else parse_instant(anchor, f"{field}.anchor")
        if given.get("after") is None:
            return _every_schedule(int(seconds), timezone, start, start_text)
        return _after_end(given, field, _every_schedule(int(seconds), timezone, 0, ""))
    instant, text = parse_instant(given["at"], f"{field}.at")
    return Schedule("at", text, timezone, anchor=instant)


def _after_end(given: Mapping[str, Any], field: str, schedule: Schedule) -> Schedule:
    """`every` with `after: end`, which goes by no clock."""
    choice(given["after"], f"{field}.after", ("end",))
    for name in ("anchor", "count", "jitter"):
        if given.get(name) is not None:
            raise Invalid(
                f"{field}.{name}", "does not go with `after: end`, whose fires nobody knows beforehand",
                hint="remove one of the two",
            )  # fmt: skip
    return replace(schedule, after_end=True)


@lru_cache(maxsize=65536)
def _counted(schedule: Schedule) -> int:
    """The last instant of a window that counts, or the second before it when there is none."""
    window = schedule.window
    assert window is not None
    found = window.first - 1
    for _ in range(window.count):
        later = schedule._next(found)
        if later is None or later > window.last:
            break
        found = later
    return found


@lru_cache(maxsize=65536)
def _cron_schedule(text: str, dialect: str, hashed: bool, timezone: str, dst: str) -> Schedule:
    cron = cron_of(text, dialect)
    dst = dst or ("elapsed" if cron.wild else "once")
    return Schedule("cron", text, timezone, dst, cron, zone(timezone), dialect=dialect, hashed=hashed)


@lru_cache(maxsize=4096)
def _every_schedule(period: int, timezone: str, anchor: int, anchor_text: str) -> Schedule:
    text = format_duration(period)
    return Schedule("every", text, timezone, period=period, anchor=anchor, anchor_text=anchor_text)


def resolved(schedules: tuple[Schedule, ...], job: str) -> tuple[Schedule, ...]:
    """The schedules as the job of that id has them, `H` and jitter by the id; the same tuple if there is neither."""
    if any(schedule.shifted for schedule in schedules):
        return tuple(schedule.resolved(job) for schedule in schedules)
    return schedules
