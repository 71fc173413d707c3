"""The job document (DESIGN section 8): parsed strictly into a frozen `Job`, written back in normal form.

`parse(document).document()` fills in the defaults and is its own normal form. Fields that Crony
does not know are refused with their path and a suggestion, those of features still to come as such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from crony.clock import rfc3339
from crony.domain.action import parse_action
from crony.domain.after import After, parse_after
from crony.domain.alerting import JobAlert, parse_job_alerts
from crony.domain.calendar import Calendar
from crony.domain.callback import Asynchronous, parse_asynchronous
from crony.domain.check import choice, fields, flag, integer, plain, texts
from crony.domain.durations import format_duration, parse_duration
from crony.domain.instants import parse_instant
from crony.domain.keeping import NOTHING, Keeping, parse_keeping
from crony.domain.naming import parse_name, parse_tags
from crony.domain.params import params_of
from crony.domain.placing import Routing, parse_routing
from crony.domain.pool import limits_document, parse_limits
from crony.domain.routing import Strategy
from crony.domain.schedule import Schedule, parse_schedules
from crony.domain.secret import check_uses, parse_secrets
from crony.domain.shell_action import check_env
from crony.domain.window import FIELDS as WINDOW
from crony.errors import Invalid

DOCUMENT = 64 * 1024
"""Most bytes of a document as JSON."""
DESCRIPTION = 8 * 1024

_KNOWN = (
    "name", "description", "enabled", "paused_until", "tags", "owner", "schedule", "misfire", "pause_after", "overlap",
    "overlap_limit", "action", "params", "timeout", "retry", "delivery", "on_node_loss", "on_cut", "routing",
    "priority", "limits", "async", "after", "secrets", "alerts", "output",
)  # fmt: skip
_OF_SCHEDULE = ("calendars", *WINDOW)
OVERLAP = ("skip", "queue_one", "queue_all", "cancel_previous", "allow")
OVERLAP_LIMIT = 100
PAUSE_AFTER = 1000
DELIVERY = ("at_least_once", "at_most_once")
ON_NODE_LOSS = ("rerun", "fail", "hold")
ON_CUT = ("continue", "stop")


@dataclass(frozen=True, slots=True)
class Misfire:
    """What happens to a fire decided later than `after` seconds."""

    after: float = 60.0
    policy: str = "fire_once"
    """fire_once (the latest one) | fire_all | skip"""
    within: float = 604_800.0
    """Fires older than this many seconds are skipped whatever the policy."""

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {"after": format_duration(self.after), "policy": self.policy, "within": format_duration(self.within)}


@dataclass(frozen=True, slots=True)
class Retry:
    """What follows an attempt that ended badly. Durations in seconds."""

    max: int = 0
    """Further attempts after the first."""
    backoff: str = "exponential"
    delay: float = 10.0
    max_delay: float = 600.0
    jitter: bool = True
    elsewhere: bool = True
    """Prefer a node that has not failed this run."""

    def document(self) -> dict[str, Any]:
        """As plain data, durations in text."""
        return {**self.payload(), "delay": format_duration(self.delay), "max_delay": format_duration(self.max_delay)}

    def payload(self) -> dict[str, Any]:
        """As it travels in an envelope, durations in seconds."""
        return {
            "max": self.max,
            "backoff": self.backoff,
            "delay": self.delay,
            "max_delay": self.max_delay,
            "jitter": self.jitter,
            "elsewhere": self.elsewhere,
        }


@dataclass(frozen=True, slots=True)
class Job:
    """A checked job document. Immutable by convention down to `action` and `params`, which are plain dicts."""

    name: str
    description: str
    enabled: bool
    paused_until: int
    """Epoch second up to which nothing is due; 0: it is not paused so."""
    tags: tuple[str, ...]
    owner: str
    schedules: tuple[Schedule, ...]
    many: bool
    """The document gave a list of schedules."""
    misfire: Misfire
    pause_after: int
    """So many failures in a row pause it; 0: none do."""
    overlap: str
    """skip | queue_one | queue_all | cancel_previous | allow: what a fire becomes while a run is alive"""
    overlap_limit: int
    """With queue_all: so many runs at most wait for their turn."""
    action: dict[str, Any]
    params: dict[str, Any]
    timeout: float
    retry: Retry
    delivery: str
    on_node_loss: str
    on_cut: str
    routing: Routing
    priority: int
    limits: tuple[str, ...]
    """Names of the pools in each of which a run needs a slot."""
    asynchronous: Asynchronous | None
    """What its callee is granted when it answers later (the field `async`); None: it must answer at once."""
    after: After | None = None
    """Whose ends it follows; None: nobody's."""
    secrets: tuple[tuple[str, str], ...] = ()
    """What each secret is called in the action, and its name."""
    alerts: tuple[JobAlert, ...] | None = None
    """Whom its alerts go to; None: the platform's rules say so."""
    output: Keeping = NOTHING
    """What is kept of what its runs print."""

    @property
    def after_end(self) -> bool:
        """Whether its fires follow the ends of its runs."""
        return any(schedule.after_end for schedule in self.schedules)

    def document(self) -> dict[str, Any]:
        """The document in normal form: every field, defaults filled in, durations and times as text."""
        return {
            "name": self.name,
            "description": self.description,
            "enabled": self.enabled,
            "paused_until": rfc3339(self.paused_until) if self.paused_until else None,
            "tags": list(self.tags),
            "owner": self.owner,
            "schedule": self.schedule_document(),
            "misfire": self.misfire.document(),
            "pause_after": self.pause_after or None,
            "overlap": self.overlap,
            "overlap_limit": self.overlap_limit,
            "action": self.action,
            "params": self.params,
            "timeout": format_duration(self.timeout),
            "retry": self.retry.document(),
            "delivery": self.delivery,
            "on_node_loss": self.on_node_loss,
            "on_cut": self.on_cut,
            "routing": self.routing.document(),
            "priority": self.priority,
            "limits": limits_document(self.limits),
            "async": self.asynchronous.document() if self.asynchronous else None,
            "after": self.after.document() if self.after else None,
            "secrets": dict(self.secrets),
            "alerts": None if self.alerts is None else [each.document() for each in self.alerts],
            "output": self.output.document() if self.output != NOTHING else None,
        }

    def filled(self, known: Mapping[str, Calendar], parents: Mapping[str, str] | None = None) -> Job:
        """The job with the contents of its calendars and, where given, the ids of its parents, as it is published.

        Raises `KeyError` when one is missing.
        """
        after = self.after.filled(parents) if self.after and parents is not None else self.after
        return replace(self, schedules=tuple(schedule.filled(known) for schedule in self.schedules), after=after)

    def schedule_document(self) -> Any:
        """The `schedule` field in normal form: a mapping, a list of them, or None."""
        if self.many:
            return [schedule.document() for schedule in self.schedules]
        return self.schedules[0].document() if self.schedules else None


def parse(document: Any) -> Job:
    """The job behind a document. Raises `Invalid` with the path of the first field that is wrong."""
    if not isinstance(document, Mapping):
        raise Invalid("", "a job must be a mapping of fields", hint='begin with {"name": …, "action": …}')
    data = plain(document)
    size = len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
    if size > DOCUMENT:
        longest = max(data, key=lambda name: len(json.dumps(data[name], ensure_ascii=False)))
        problem = f"makes the document {size} bytes long; at most {DOCUMENT}"
        raise Invalid(longest[:100], problem, hint="shorten it: scripts and data can lie on the node")
    for name in _OF_SCHEDULE:
        if name in data:
            raise Invalid(name, "belongs to a schedule", hint="write it inside `schedule`")
    given = fields(data, "", _KNOWN)
    for name in ("name", "action"):
        if given.get(name) is None:
            raise Invalid(name, "is missing", hint="every job has a name and an action")
    schedule = given.get("schedule")
    delivery = choice(_or(given, "delivery", "at_least_once"), "delivery", DELIVERY)
    retry = parse_retry(given.get("retry"))
    if delivery == "at_most_once" and retry.max:
        raise Invalid("retry.max", "must be 0 for a job that runs at most once", hint="leave `retry` out")
    params = params_of(given.get("params"), "params")
    action, asynchronous = parse_action(given["action"], params=params), parse_asynchronous(given.get("async"))
    if action.get("async") and asynchronous is None:
        raise Invalid("action.async", "needs to know until when", hint="add async: {deadline: 2h} to the job")
    routing = _shared(parse_routing(given.get("routing")))
    return Job(
        name=parse_name(given["name"]),
        description=texts(_or(given, "description", ""), "description", least=0, most=DESCRIPTION, lines=True),
        enabled=flag(_or(given, "enabled", True), "enabled"),
        paused_until=parse_pause(given.get("paused_until")),
        tags=parse_tags(given.get("tags")),
        owner=texts(_or(given, "owner", ""), "owner", least=0, most=200),
        schedules=parse_schedules(schedule),
        many=isinstance(schedule, list) and len(schedule) != 0,
        misfire=_misfire(given.get("misfire")),
        pause_after=_pause_after(given.get("pause_after")),
        overlap=choice(_or(given, "overlap", "skip"), "overlap", OVERLAP),
        overlap_limit=integer(_or(given, "overlap_limit", OVERLAP_LIMIT), "overlap_limit", 1, 1000),
        action=action,
        params=params,
        timeout=parse_duration(_or(given, "timeout", "1h"), "timeout", least=0.1, most=30 * 86400),
        retry=retry,
        delivery=delivery,
        on_node_loss=_on_node_loss(given, delivery),
        on_cut=choice(_or(given, "on_cut", "continue"), "on_cut", ON_CUT),
        routing=routing,
        priority=integer(_or(given, "priority", 0), "priority", 0, 9),
        limits=parse_limits(given.get("limits")),
        asynchronous=asynchronous,
        after=parse_after(given.get("after")),
        secrets=_secrets(given.get("secrets"), action, routing),
        alerts=parse_job_alerts(given.get("alerts")),
        output=parse_keeping(given.get("output")),
    )


def _secrets(value: Any, action: Mapping[str, Any], routing: Routing) -> tuple[tuple[str, str], ...]:
    """What the action calls its secrets, and their names; none stands where it would be seen."""
    found = parse_secrets(value)
    check_uses(action, dict(found))
    if found and action["kind"] == "shell":
        both = {**check_env(dict.fromkeys(dict(found), ""), "secrets"), **action["env"]}
        if len(both) < len(found) + len(action["env"]):
            raise Invalid("secrets", "has a name that `env` has too", hint="keep it in one of them")
    if found and routing.strategy == Strategy.ANY:
        raise Invalid("secrets", "go to nodes that hold the key, and `any` may take another", hint="use weighted")
    return found


def _on_node_loss(given: Mapping[str, Any], delivery: str) -> str:
    """What follows the loss of its node; work that must not run twice fails, and nothing else is allowed (N13)."""
    once = delivery == "at_most_once"
    found = choice(_or(given, "on_node_loss", "fail" if once else "rerun"), "on_node_loss", ON_NODE_LOSS)
    if once and found != "fail":
        raise Invalid(
            "on_node_loss", f"{found} is not for a job that runs at most once", hint="write fail, or leave it out"
        )
    return found


def parse_pause(value: Any, field: str = "paused_until") -> int:
    """The second that a pause ends with; 0 for null. Raises `Invalid`."""
    return 0 if value is None else parse_instant(value, field)[0]


def _pause_after(value: Any) -> int:
    return 0 if value is None else integer(value, "pause_after", 1, PAUSE_AFTER)


def _or(given: Mapping[str, Any], name: str, default: Any) -> Any:
    """The field, or its default when it is missing; null is not "missing", it is the wrong type."""
    return given.get(name, default)


def parse_retry(value: Any, field: str = "retry") -> Retry:
    """The `retry` section, shared between equal ones. Raises `Invalid`."""
    if value is None:
        return _NO_RETRY
    given = fields(value, field, ("max", "backoff", "delay", "max_delay", "jitter", "elsewhere"))
    delay = parse_duration(_or(given, "delay", "10s"), f"{field}.delay", least=0, most=86400)
    longest = parse_duration(
        _or(given, "max_delay", format_duration(max(600, delay))), f"{field}.max_delay", most=604_800
    )
    if longest < delay:
        raise Invalid(f"{field}.max_delay", "is shorter than `delay`", hint="raise it or leave it out")
    return _shared(
        Retry(
            max=integer(_or(given, "max", 0), f"{field}.max", 0, 100),
            backoff=choice(_or(given, "backoff", "exponential"), f"{field}.backoff", ("exponential", "fixed")),
            delay=delay,
            max_delay=longest,
            jitter=flag(_or(given, "jitter", True), f"{field}.jitter"),
            elsewhere=flag(_or(given, "elsewhere", True), f"{field}.elsewhere"),
        )
    )


def _misfire(value: Any, field: str = "misfire") -> Misfire:
    if value is None:
        return _MISFIRE
    given = fields(value, field, ("after", "policy", "within"))
    after = parse_duration(_or(given, "after", "60s"), f"{field}.after", least=1, most=86400)
    within = parse_duration(_or(given, "within", "7d"), f"{field}.within", least=1, most=366 * 86400)
    if within < after:
        raise Invalid(f"{field}.within", "is shorter than `after`", hint="raise it or leave it out")
    policy = choice(_or(given, "policy", "fire_once"), f"{field}.policy", ("fire_once", "fire_all", "skip"))
    return _shared(Misfire(after, policy, within))


_MISFIRE, _NO_RETRY = Misfire(), Retry()
_SECTIONS: dict[Any, Any] = {}
T = TypeVar("T", Misfire, Routing, Retry)


def _shared(section: T) -> T:
    """The same object for equal sections: a leader holds 100,000 jobs, most of them alike in this."""
    if len(_SECTIONS) > 10_000:
        _SECTIONS.clear()
    found: T = _SECTIONS.setdefault(section, section)
    return found
