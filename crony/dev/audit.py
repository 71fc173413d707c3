"""Did every due fire become exactly one run, or one record of why not? Counted without Crony's own schedule code.

`due` looks at one second after the other and asks, by the words of the schedule alone, whether it is due: the dumbest
way there is, on purpose. What happened is told by the records of etcd (`crony.dev.ledger` reads them).

Fires that follow the ends of runs (`every: 5m, after: end`) are not known beforehand, and the totals say so: whether
one was due is asked of the ends that were recorded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

_Fields = tuple[tuple[frozenset[int], bool], ...]
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMES = ((), _MONTHS, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
_FIELDS = ((0, 59, 0), (0, 23, 0), (1, 31, 0), (1, 12, 1), (0, 7, 2))
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Definition:
    """What a job was from `since_at` on (until the next definition)."""

    since_at: float
    enabled: bool
    schedules: tuple[Mapping[str, Any], ...]
    job: str = ""
    """The job's id: a jitter follows from it."""


@dataclass
class Facts:
    """What the records say about one job in the time looked at: instants after `start_at`, up to `upto_at`."""

    name: str
    start_at: int
    upto_at: int
    definitions: list[Definition] = field(default_factory=list)
    runs: dict[int, set[str]] = field(default_factory=dict)
    """Fire instant -> ids of the runs that were made for it."""
    ends: dict[str, list[str]] = field(default_factory=dict)
    """Run -> kinds of its final outcomes; more than one is one too many."""
    firsts: dict[str, int] = field(default_factory=dict)
    """Run -> how many times the outcome of its first attempt was written."""
    skips: list[tuple[int, int, int, str]] = field(default_factory=list)
    """(first instant, last instant, how many, reason) of recorded skips."""
    overs: dict[int, float] = field(default_factory=dict)
    """Fire instant -> when its run ended for good, or was decided to be none."""
    held: list[tuple[int, int]] = field(default_factory=list)
    """(after, until): nothing was due in between, because the leader had paused the job as it asked for."""


@dataclass
class Totals:
    """The last line of `crony dev --exit-after`, and the names behind its last two figures."""

    fires: int = 0
    dispatched: int = 0
    skipped: int = 0
    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    doubled: int = 0
    notes: list[str] = field(default_factory=list)
    """What is wrong."""
    remarks: list[str] = field(default_factory=list)
    """What a reader should know of how it was counted."""

    def figures(self) -> dict[str, int]:
        """The figures alone."""
        return {name: getattr(self, name) for name in FIGURES}


LONG_AGO = "1970-01-01T00:00:00Z"
FIGURES = ("fires", "dispatched", "skipped", "succeeded", "failed", "lost", "doubled")


def count(jobs: Iterable[Facts]) -> Totals:
    """The figures over all jobs. `notes` names every fire that was lost, doubled, or made up."""
    total = Totals()
    for facts in jobs:
        try:
            due = set(due_between(facts.definitions, facts.start_at, facts.upto_at))
            followed = due_after_ends(facts)
        except ValueError as error:
            total.notes.append(f"not judged: {facts.name}: this counter reads plain five-field cron only ({error})")
            continue
        if followed is not None:
            due |= followed
            total.remarks.append(f"not known beforehand: the fires of {facts.name} were judged by the ends they follow")
        due -= {at for at in due for after, until in facts.held if after < at <= until}
        fired = {at for at in facts.runs if facts.start_at < at <= facts.upto_at}
        skips = [skip for skip in facts.skips if skip[3] != "paused" and facts.start_at < skip[0] <= facts.upto_at]
        explained = {at for at in due for first, last, _, _ in skips if first <= at <= last}
        for at in sorted(due - fired - explained):
            total.lost += 1
            total.notes.append(f"lost: {facts.name} at {_words(at)}")
        for at in sorted(fired):
            if len(facts.runs[at]) > 1 or any(facts.firsts.get(run, 0) > 1 for run in facts.runs[at]):
                total.doubled += 1
                total.notes.append(f"doubled: {facts.name} at {_words(at)}")
        for at in sorted(fired - due):
            total.notes.append(f"not due, yet fired: {facts.name} at {_words(at)}")
        runs = {run for at in fired for run in facts.runs[at]}
        for run in runs:
            kinds = facts.ends.get(run, [])
            if len(kinds) > 1:
                total.notes.append(f"ended {len(kinds)} times: {run}")
            total.succeeded += kinds[:1] == ["succeeded"]
            total.failed += bool(kinds) and kinds[0] != "succeeded"
        total.dispatched += len(fired)
        total.skipped += sum(skip[2] for skip in skips)
    total.fires = total.dispatched + total.skipped
    return total


def due_between(definitions: Sequence[Definition], after: int, until: int) -> list[int]:
    """Every second with `after` < t <= `until` that is due by the definition in force at t."""
    found = []
    for second in range(after + 1, until + 1):
        current = definitions[0] if definitions else None
        for definition in definitions[1:]:
            if definition.since_at < second:
                current = definition
        if current and current.enabled and any(due(schedule, second, current.job) for schedule in current.schedules):
            found.append(second)
    return found


def due_after_ends(facts: Facts) -> set[int] | None:
    """Every second that is due because something ended a delay before it; None for a job without such a schedule."""
    found, any_at_all = set(), False
    for place, definition in enumerate(facts.definitions):
        following = facts.definitions[place + 1 : place + 2]
        until = min(facts.upto_at, following[0].since_at) if following else facts.upto_at
        for schedule in definition.schedules if definition.enabled else ():
            if not schedule.get("after"):
                continue
            any_at_all = True
            fires = sorted(at for at in facts.overs if definition.since_at < at <= until)
            overs = [facts.overs[at] for at in fires]
            if definition.since_at >= facts.start_at:
                overs.append(definition.since_at)
            elif fires := sorted(at for at in facts.runs if facts.start_at < at <= until)[:1]:
                found.add(fires[0])  # it follows something from before the time looked at
            for over in overs:
                second = max(
                    math.ceil(over) + int(_seconds(schedule["every"])), _instant(schedule.get("start") or LONG_AGO)
                )
                while second <= until and not _kept(schedule, second):
                    second += 1
                if second <= until and not (schedule.get("end") and second >= _instant(schedule["end"])):
                    found.add(second)
    return {at for at in found if facts.start_at < at} if any_at_all else None


def due(schedule: Mapping[str, Any], second: int, job: str = "") -> bool:
    """Whether a schedule (of a document) of this job is due at this second. Raises ValueError for unknown words."""
    if schedule.get("after"):
        return False
    if schedule.get("jitter"):
        number = int(sha256(job.encode()).hexdigest()[:16], 16)
        second -= number % (int(_seconds(schedule["jitter"])) + 1)
    start, end, most = (schedule.get(name) for name in ("start", "end", "count"))
    if (start and second < _instant(start)) or (end and second >= _instant(end)):
        return False
    if not (_comes(schedule, second) and _kept(schedule, second)):
        return False
    return not most or sum(_comes(schedule, at) and _kept(schedule, at) for at in _slots(schedule, second)) <= most


def _slots(schedule: Mapping[str, Any], second: int) -> range:
    """The seconds from its start to this one at which it could come."""
    step = int(_seconds(schedule["every"])) if schedule.get("every") else 60
    anchor, start = _instant(schedule.get("anchor") or "1970-01-01T00:00:00Z"), _instant(schedule["start"])
    return range(start + (anchor - start) % step, second + 1, step)


def _kept(schedule: Mapping[str, Any], second: int) -> bool:
    """Whether the calendars of a published schedule let the second through."""
    named = schedule.get("calendars") or {}
    moment = datetime.fromtimestamp(second, ZoneInfo(schedule.get("timezone") or "UTC"))
    included = [_in(calendar, moment) for calendar in named.get("include", ())]
    return (not included or any(included)) and not any(_in(calendar, moment) for calendar in named.get("exclude", ()))


def _in(calendar: Mapping[str, Any], moment: datetime) -> bool:
    for period in calendar.get("periods", ()):
        if datetime.fromisoformat(period["start"]) <= moment < datetime.fromisoformat(period["end"]):
            return True
    return _has_day(calendar, moment)


def _has_day(calendar: Mapping[str, Any], moment: datetime) -> bool:
    day = moment.date().isoformat()
    names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    taken = {
        part: any(text[:10] <= day <= text[-10:] for text in calendar.get(part, ())) for part in ("include", "exclude")
    }
    return taken["include"] or (names[moment.weekday()] in calendar.get("weekdays", ()) and not taken["exclude"])


def _instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def _comes(schedule: Mapping[str, Any], second: int) -> bool:
    """The same whatever its window."""
    if schedule.get("at"):
        return datetime.fromisoformat(schedule["at"]).timestamp() == second
    if schedule.get("every"):
        anchor = datetime.fromisoformat(schedule["anchor"]).timestamp() if schedule.get("anchor") else 0
        return (second - anchor) % _seconds(schedule["every"]) == 0
    text = schedule["cron"]
    fields = _parse(text)
    if second % 60:
        return False  # every zone's offset is whole minutes since 1972
    zone = ZoneInfo(schedule.get("timezone") or "UTC")
    rule = schedule.get("dst") or ("elapsed" if "*" in "".join(_MACROS.get(text, text).split()[:2]) else "once")
    named = schedule.get("calendars") or {}
    here, before = datetime.fromtimestamp(second, zone), datetime.fromtimestamp(second - 1, zone)
    label, gap = _label(here), _label(here) - _label(before) - 1
    if _lands(fields, named, label) and (rule != "once" or here.fold == 0):
        return True
    return rule != "elapsed" and gap > 0 and any(_lands(fields, named, label - ago) for ago in range(1, gap + 1))


def _lands(fields: _Fields, named: Mapping[str, Any], label: int) -> bool:
    """Whether a fire takes place at this label: its own, or one that a closed day sent here."""
    where = named.get("closed", "skip")
    if where == "skip":
        return _matches(fields, label)
    if not _open(named, label):
        return False
    step = -86400 if where == "next" else 86400
    for days in range(32):
        if days and _open(named, label + days * step):
            return False
        if _matches(fields, label + days * step):
            return True
    return False


def _open(named: Mapping[str, Any], label: int) -> bool:
    """Whether the day of this label is open as a whole."""
    moment = datetime.fromtimestamp(label, UTC)
    included, excluded = ([_has_day(each, moment) for each in named.get(part, ())] for part in ("include", "exclude"))
    return (not included or any(included)) and not any(excluded)


def _label(moment: datetime) -> int:
    """Local time read as if it were UTC, in seconds."""
    return int(moment.replace(tzinfo=UTC, fold=0).timestamp())


def _matches(fields: _Fields, label: int) -> bool:
    if label % 60:
        return False
    moment = datetime.fromtimestamp(label, UTC)
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = fields
    if moment.minute not in minutes or moment.hour not in hours or moment.month not in months:
        return False
    day, weekday = moment.day in days, moment.isoweekday() % 7 in weekdays
    return day and weekday if any_day or any_weekday else day or weekday


@lru_cache(maxsize=4096)
def _parse(text: str) -> _Fields:
    """Of each of the five fields: its values, and whether a `*` stands in it."""
    words = _MACROS.get(text.strip().lower(), text).lower().split()
    if len(words) != 5:
        raise ValueError(f"not five fields: {text!r}")
    fields = []
    for word, (low, high, names) in zip(words, _FIELDS, strict=True):
        values: set[int] = set()
        for item in word.split(","):
            span, _, step = item.partition("/")
            first, dash, last = span.partition("-")
            if span == "*":
                start, end = low, high
            else:
                start = _value(first, names)
                end = _value(last, names) if dash else high if step else start
            values.update(range(start, end + 1, int(step or 1)))
        if high == 7 and 7 in values:
            values.add(0)
        fields.append((frozenset(values), "*" in word))
    return tuple(fields)


def _value(word: str, names: int) -> int:
    if word.isdigit():
        return int(word)
    return _NAMES[names].index(word) + (1 if names == 1 else 0)


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _words(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
