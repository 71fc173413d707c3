"""Whom an alert is sent to: those its job names in `alerts`, else those of the platform's alert rules.

An event is what people choose by; each kind of alert is one. A rule on `failure_rate` says when so many failures are
an alert of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from crony.domain.alert import Alert, AlertKind
from crony.domain.channel import parse_destinations
from crony.domain.check import choice, fields, flag, integer, join, listing, texts
from crony.domain.durations import format_duration, parse_duration
from crony.domain.record import Record
from crony.errors import Invalid

EVENTS = {
    AlertKind.RUN_FAILED: "failed", AlertKind.RUN_HELD: "failed", AlertKind.JOB_PAUSED: "failed",
    AlertKind.JOB_HELD: "failed", AlertKind.RECOVERED: "recovered", AlertKind.QUEUE_AGE: "waiting",
    AlertKind.NODE_LOST: "node_lost", AlertKind.LEADER_CHANGED: "leader_changed",
    AlertKind.FAILURE_RATE: "failure_rate", AlertKind.TEST: "test", AlertKind.LATE: "late",
    AlertKind.MISSED: "missed", AlertKind.TOO_LONG: "too_long",
}  # fmt: skip
"""What each kind of alert is to people; the kinds left out are `platform`."""
OF_BOTH = ("failed", "recovered", "waiting", "missed")
"""Events that a job may send elsewhere than the rules do."""
OF_JOBS = (*OF_BOTH, "late", "too_long")
"""Events of jobs: when a run is late or takes too long only its job can say."""
OF_RULES = (*OF_BOTH, "node_lost", "leader_changed", "platform", "failure_rate")
LIMITS = {"late": "later_than", "too_long": "longer_than"}
"""Events with a limit in seconds, and the field that it is in."""
MOST = 10
"""Most entries of a job's `alerts`."""
MOST_PATTERNS = 50
LEAST_LIMIT, MOST_LIMIT = 5.0, 30 * 86400.0
"""Seconds of a limit."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class JobAlert:
    """One entry of a job's `alerts`: on these events, tell these channels and addresses."""

    on: tuple[str, ...]
    to: tuple[str, ...]
    later_than: float | None = None
    """Of `late`: seconds after its nominal instant within which a run has to begin."""
    longer_than: float | None = None
    """Of `too_long`: seconds that an attempt may be under way."""

    def document(self) -> dict[str, Any]:
        """As plain data."""
        limits = {"later_than": self.later_than, "longer_than": self.longer_than}
        given = {name: format_duration(limit) for name, limit in limits.items() if limit is not None}
        return {"on": list(self.on), **given, "to": list(self.to)}


@dataclass(frozen=True, slots=True)
class Rate:
    """More than `above` percent of at least `least` runs that ended within `window` seconds failed."""

    above: int
    window: float = 600.0
    least: int = 10
    each_job: bool = False
    """Counted for each job by itself, not for all that match together."""

    def document(self) -> dict[str, Any]:
        """As plain data."""
        window = format_duration(self.window)
        return {"above": self.above, "window": window, "least": self.least, "each_job": self.each_job}


@dataclass(frozen=True, slots=True)
class Rule:
    """A checked alert rule."""

    name: str
    on: tuple[str, ...]
    to: tuple[str, ...]
    jobs: tuple[str, ...] = ()
    """Patterns of job names (`billing/*`); none: all jobs."""
    rate: Rate | None = None
    cooldown: float = 3600.0
    """Seconds after an alert about a failure rate in which the rule tells of no other."""
    description: str = ""

    def document(self) -> dict[str, Any]:
        """As people write it, in normal form."""
        told: dict[str, Any] = {
            "name": self.name, "description": self.description, "on": list(self.on), "to": list(self.to),
            "jobs": list(self.jobs),
        }  # fmt: skip
        if self.rate is not None:
            told |= {"rate": self.rate.document(), "cooldown": format_duration(self.cooldown)}
        return told

    def covers(self, job: str) -> bool:
        """Whether a job of this name is one of its jobs."""
        return not self.jobs or any(fnmatchcase(job, pattern) for pattern in self.jobs)


@dataclass(frozen=True, slots=True)
class LiveRule(Record):
    """`obj/alert-rule/<name>`, sealed by a web; `deleted` is a tombstone."""

    name: str
    document: dict[str, Any] = field(default_factory=dict)
    revision: int = 0
    deleted: bool = False

    def rule(self) -> Rule:
        """The rule. Raises `Invalid` for one of another version."""
        return parse_rule(self.document)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job minds: seconds, 0: it does not."""

    late: float = 0.0
    too_long: float = 0.0


def limits_of(own: tuple[JobAlert, ...] | None) -> Limits:
    """The limits that a job's `alerts` set."""
    late = max((entry.later_than or 0.0 for entry in own or ()), default=0.0)
    return Limits(late, max((entry.longer_than or 0.0 for entry in own or ()), default=0.0))


def minds_missed(own: tuple[JobAlert, ...] | None) -> str:
    """Whether a fire that becomes no run is an alert to a job: `yes`, `no`; empty: the rules say so."""
    if own is None:
        return ""
    return "yes" if any("missed" in entry.on for entry in own) else "no"


def event_of(kind: str) -> str:
    """The event that alerts of this kind are."""
    return EVENTS.get(kind, "platform")  # type: ignore[call-overload,no-any-return]


def destinations(alert: Alert, own: tuple[JobAlert, ...] | None, rules: Iterable[Rule]) -> tuple[str, ...]:
    """Channels and addresses that the alert goes to, each once. `own`: the job's `alerts`; None: it says nothing."""
    event, found = event_of(alert.kind), dict[str, None]()
    if own is not None and event in OF_JOBS:
        for entry in own:
            if event in entry.on:
                found |= dict.fromkeys(entry.to)
        return tuple(found)
    for rule in rules:
        if event == "test" or (event in rule.on and (event not in OF_BOTH or rule.covers(alert.name))):
            found |= dict.fromkeys(rule.to)
    return tuple(found)


def parse_job_alerts(value: Any, at: str = "alerts") -> tuple[JobAlert, ...] | None:
    """A job's `alerts`; None when it says nothing, so that the rules decide. Raises `Invalid`."""
    if value is None:
        return None
    found: list[JobAlert] = []
    for index, item in enumerate(listing(value, at, MOST)):
        path = f"{at}[{index}]"
        given = fields(item, path, ("on", "to", *LIMITS.values()))
        on = _events(given, path, OF_JOBS)
        limits = {name: _limit(given, path, event, on) for event, name in LIMITS.items()}
        for name, limit in limits.items():
            if limit is not None and any(getattr(other, name) not in (None, limit) for other in found):
                raise Invalid(f"{path}.{name}", "differs from that of another entry", hint="a job has one such limit")
        found.append(JobAlert(on, _to(given, path), **limits))
    return tuple(found)


def parse_rule(document: Any) -> Rule:
    """The rule behind a document. Raises `Invalid` naming the field."""
    given = fields(document, "", ("name", "description", "on", "to", "jobs", "rate", "cooldown"))
    name = given.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Invalid("name", "is not the name of a rule", hint="use a-z, 0-9 and . _ -, at most 63 characters")
    on = _events(given, "", OF_RULES)
    by_rate = "failure_rate" in on
    if by_rate and len(on) > 1:
        raise Invalid("on", "failure_rate stands alone", hint="make another rule for the other events")
    for field_ in ("rate", "cooldown"):
        if given.get(field_) is not None and not by_rate:
            raise Invalid(field_, "is for a rule on failure_rate", hint="remove it")
    if by_rate and given.get("rate") is None:
        raise Invalid("rate", "is missing", hint="write {above: 20, window: 10m, least: 10}")
    return Rule(
        name,
        on,
        _to(given, ""),
        _patterns(given.get("jobs")),
        _rate(given["rate"]) if by_rate else None,
        parse_duration(given.get("cooldown", "1h"), "cooldown", least=60, most=7 * 86400),
        texts(given.get("description", ""), "description", least=0, most=2000, lines=True),
    )


def _rate(value: Any) -> Rate:
    given = fields(value, "rate", ("above", "window", "least", "each_job"))
    if given.get("above") is None:
        raise Invalid("rate.above", "is missing", hint="write how many percent of the runs may fail")
    return Rate(
        integer(given["above"], "rate.above", 0, 99),
        parse_duration(given.get("window", "10m"), "rate.window", least=60, most=6 * 3600),
        integer(given.get("least", 10), "rate.least", 1, 1_000_000),
        flag(given.get("each_job", False), "rate.each_job"),
    )


def _patterns(value: Any) -> tuple[str, ...]:
    items = listing(value if value is not None else [], "jobs", MOST_PATTERNS)
    return tuple(dict.fromkeys(texts(item, f"jobs[{index}]", most=200) for index, item in enumerate(items)))


def _limit(given: Any, path: str, event: str, on: tuple[str, ...]) -> float | None:
    name = LIMITS[event]
    at, value = join(path, name), given.get(name)
    if event not in on:
        if value is not None:
            raise Invalid(at, f"is for the event {event}", hint=f"add {event} to on, or remove it")
        return None
    if value is None:
        raise Invalid(at, "is missing", hint=f"write {name}: 10m, say")
    return parse_duration(value, at, least=LEAST_LIMIT, most=MOST_LIMIT)


def _events(given: Any, path: str, known: tuple[str, ...]) -> tuple[str, ...]:
    at = join(path, "on")
    items = listing(given.get("on"), at, len(OF_RULES))
    if not items:
        raise Invalid(at, "is empty", hint=f"name events: {', '.join(known)}")
    found = [_event(item, f"{at}[{index}]", known) for index, item in enumerate(items)]
    return tuple(dict.fromkeys(found))


def _event(value: Any, at: str, known: tuple[str, ...]) -> str:
    if known is OF_RULES and value in LIMITS:
        raise Invalid(at, f"{value} is an event of jobs, each with its limit", hint="write it into the job's alerts")
    return choice(value, at, known)


def _to(given: Any, path: str) -> tuple[str, ...]:
    at = join(path, "to")
    found = parse_destinations(given.get("to"), at)
    if not found:
        raise Invalid(at, "is empty", hint="name channels or e-mail addresses")
    return found
