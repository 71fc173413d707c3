"""What was due, by an independent oracle: cronsim for cron, arithmetic for the rest, over the documents published.

When exactly a save took effect cannot be known from outside: it lies between what the document says (`published_at`)
and the step that put it. Instants in between may be due by the old document, by the new one, or (where both say so)
must be.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from tests.soak.judge.reading import History, Told, sealed

SLACK = 1.0
"""Seconds by which web and etcd may differ on when a save happened."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: object) -> float:
    """A duration of a document, in seconds."""
    parts = re.findall(r"([0-9.]+)\s*(ms|s|m|h|d)", str(text))
    return sum(float(number) * (0.001 if unit == "ms" else _UNITS[unit]) for number, unit in parts)


def instant(text: str) -> int:
    """An RFC 3339 time as epoch seconds."""
    return int(datetime.fromisoformat(text).timestamp())


@dataclass(frozen=True)
class Version:
    """A published document: in force from somewhere in [low, high] on."""

    revision: int
    low: float
    high: float
    told: Told

    @property
    def document(self) -> Told:
        """What people wrote; empty for a tombstone."""
        return self.told.get("document") or {}

    @property
    def schedules(self) -> list[Told]:
        """Its schedules."""
        found = self.document.get("schedule")
        return found if isinstance(found, list) else [found] if found else []

    def paused_at(self, second: int) -> bool:
        """Whether nothing is due at this instant, whatever its schedules say."""
        until = self.document.get("paused_until")
        return not self.document.get("enabled", True) or bool(until and second <= instant(until))


@dataclass(frozen=True)
class Due:
    """What is due at one second. `must`: certainly; else it may be. `paused`: only a pause keeps it from being due."""

    must: bool
    paused: bool = False


class Timeline:
    """One job: which instants were due when, from the first publish to the end of the history."""

    def __init__(self, history: History, job: str, versions: list[Version], until: float) -> None:
        self.history, self.job, self.versions, self.until = history, job, versions, until
        self._shift: int | None = None
        self._table: dict[int, Due] | None = None

    @property
    def after_end(self) -> bool:
        """Whether its instants follow from the ends of its runs, and from nothing else."""
        return any(each.get("after") == "end" for version in self.versions for each in version.schedules)

    @property
    def widest(self) -> int:
        """The largest shift its schedules may have: jitter, and the second that `H` stands for."""
        every = [each for version in self.versions for each in version.schedules]
        return max((int(_spread(each)) for each in every), default=0)

    def learn(self, fires: Iterable[int]) -> None:
        """Find the shift of a job with jitter or `H` from its first fire; every other one has to agree."""
        first = min(fires, default=None)
        if self._shift is not None or not self.widest or first is None:
            return
        unshifted = [
            second for number in range(len(self.versions)) for second in self._instants(number, 0, before=self.widest)
        ]
        near = [first - second for second in unshifted if 0 <= first - second <= self.widest]
        self._shift = min(near, default=0)

    @property
    def table(self) -> dict[int, Due]:
        """Second -> what is due then; seconds at which nothing may be due are missing."""
        if self._table is None:
            self._table = dict(self._work_out(self._shift or 0))
        return self._table

    def between(self, after: int, until: int) -> dict[int, Due]:
        """The part in `after` < t <= `until`."""
        return {second: due for second, due in self.table.items() if after < second <= until}

    def _work_out(self, shift: int) -> Iterator[tuple[int, Due]]:
        known = self._shift is not None or not self.widest  # a job that never fired keeps its shift to itself
        instants = [set(self._instants(number, shift)) for number in range(len(self.versions))]
        for second in sorted(set().union(*instants)):
            says = [
                (second in instants[number], version.paused_at(second)) for number, version in self._in_force(second)
            ]
            due = [scheduled and not paused for scheduled, paused in says]
            if any(due):
                yield second, Due(must=known and all(due))
            elif any(scheduled for scheduled, _ in says):
                yield second, Due(must=False, paused=True)

    def _in_force(self, second: int) -> list[tuple[int, Version | _Nothing]]:
        """Every version that may decide this instant; `_NOTHING` before the first one."""
        found: list[tuple[int, Version | _Nothing]] = []
        for number, version in enumerate(self.versions):
            until = self.versions[number + 1].high if number + 1 < len(self.versions) else float("inf")
            if version.low - SLACK <= second <= until + SLACK:
                found.append((number, version))
        if self.versions and second <= self.versions[0].high + SLACK:
            found.append((0, _NOTHING))
        return found

    def _instants(self, number: int, shift: int, *, before: int = 0) -> Iterator[int]:
        version = self.versions[number]
        until = self.versions[number + 1].high if number + 1 < len(self.versions) else self.until
        low, high = int(version.low - SLACK) - 1 - shift - before, int(until + SLACK) + 1 - shift
        for schedule in version.schedules:
            for second in fires(schedule, low, high, self.history.zones):
                yield second + (shift if _spread(schedule) else 0)


class _Nothing:
    """Before a job was there."""

    def paused_at(self, second: int) -> bool:
        """Nothing is due."""
        return True


_NOTHING = _Nothing()


def timelines(history: History) -> dict[str, Timeline]:
    """Every job that was ever published."""
    versions: dict[str, list[Version]] = {}
    until = 0.0
    for step in history.steps:
        until = step.high
        for change in step.of("job"):
            if change.new is None:
                continue
            told = sealed(change.new.value)
            low = min(float(told.get("published_at", step.low)), step.high)
            versions.setdefault(change.parts[1], []).append(Version(int(told["revision"]), low, step.high, told))
    return {job: Timeline(history, job, found, until) for job, found in versions.items()}


def fires(schedule: Told, after: int, until: int, zones: dict[str, str]) -> Iterator[int]:
    """Instants of a schedule in `after` < t <= `until`, whatever shifts it."""
    found = _instants_of(schedule, after, until, zones)
    calendars = schedule.get("calendars")
    if not calendars:
        return found
    where = _zone(str(schedule.get("timezone", "UTC")), zones.get(str(schedule.get("timezone")), ""))
    return (second for second in found if _open(calendars, second, where))


def _open(calendars: Told, second: int, where: tzinfo) -> bool:
    """Whether calendars (of whole days, and of periods) let an instant through; none of ours moves fires."""
    include, exclude = calendars.get("include") or [], calendars.get("exclude") or []
    inside = not include or any(_has(each, second, where) for each in include)
    return inside and not any(_has(each, second, where) for each in exclude)


def _has(calendar: Told, second: int, where: tzinfo) -> bool:
    moment = datetime.fromtimestamp(second, UTC).astimezone(where)
    day, name = moment.date().isoformat(), moment.strftime("%a").lower()
    listed = any(name == str(each)[:3].lower() for each in calendar.get("weekdays") or ())
    listed = (listed or _among(calendar.get("include"), day)) and not _among(calendar.get("exclude"), day)
    periods = calendar.get("periods") or ()
    return listed or any(instant(each["start"]) <= second < instant(each["end"]) for each in periods)


def _among(days: Any, day: str) -> bool:
    """Whether a day is one of those listed, each a day or a range such as 2026-10-01..2026-10-07."""
    return any(low <= day <= (high or low) for low, _, high in (str(each).partition("..") for each in days or ()))


def _instants_of(schedule: Told, after: int, until: int, zones: dict[str, str]) -> Iterator[int]:
    if schedule.get("start"):
        after = max(after, instant(schedule["start"]) - 1)
    if schedule.get("end"):
        until = min(until, instant(schedule["end"]) - 1)
    if schedule.get("after") == "end":
        return
    if "every" in schedule:
        period, anchor = int(seconds(schedule["every"])), 0
        if schedule.get("anchor"):
            anchor = instant(schedule["anchor"])
        yield from range(after + period - (after - anchor) % period, until + 1, period)
    elif "at" in schedule:
        at = instant(schedule["at"])
        if after < at <= until:
            yield at
    elif "cron" in schedule:
        where = _zone(str(schedule.get("timezone", "UTC")), zones.get(str(schedule.get("timezone")), ""))
        text = " ".join("0" if field == "H" else field for field in str(schedule["cron"]).split())
        for moment in CronSim(text, datetime.fromtimestamp(after, UTC).astimezone(where)):
            second = int(moment.timestamp())
            if second > until:
                return
            if second > after:
                yield second


def _spread(schedule: Told) -> float:
    """How far a schedule may be shifted, seconds."""
    hashed = "H" in str(schedule.get("cron", "")).split()
    return seconds(schedule["jitter"]) if schedule.get("jitter") else 59 if hashed else 0


@lru_cache(maxsize=64)
def _zone(name: str, tzif: str) -> tzinfo:
    if tzif:
        return ZoneInfo.from_file(io.BytesIO(base64.b64decode(tzif)), key=name)
    return UTC if name == "UTC" else ZoneInfo(name)
