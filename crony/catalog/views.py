"""What the catalogue answers with: jobs, their versions, and when they will fire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from crony.catalog.keeping import Lookup, check_calendars, due_schedules, names_of
from crony.clock import SYSTEM
from crony.domain import afterend
from crony.domain.calendar import Calendar
from crony.domain.explain import Mark, marks
from crony.domain.fires import next_fire
from crony.domain.hashed import EXAMPLE
from crony.domain.job import Job, parse, parse_pause
from crony.domain.lint import Advice, advise
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.schedule import Schedule, parse_schedules, resolved
from crony.errors import Invalid, Unavailable
from crony.store.models import JobRow

MOST_FIRES = 200


@dataclass(frozen=True, slots=True)
class Standing:
    """How a job stands with the centre: what etcd says of it."""

    revision: int
    """The one that is live."""
    since_at: int | None = None
    """Instants later than this second are due by its schedule; earlier ones by those before it."""
    next_at: int | None = None
    """With a delay after the end: the next instant, where it is known."""
    awaits: str = ""
    """The run whose end it follows otherwise."""
    taken_in: bool | None = None
    """After a save: whether the leader has taken it in already; None: nobody asked, or etcd did not say."""
    held: str = ""
    """Why the leader does not fire it until it is edited or resumed; empty: it does."""
    held_at: float | None = None
    """Since when, where that is known."""

    @classmethod
    def of(cls, live: LiveJob, done: Done | None) -> Standing:
        """What a published job and its cursor say together."""
        if done is not None and done.held and not live.deleted and done.held_revision >= live.revision:
            return cls(live.revision, live.since_at, held=done.held, held_at=done.held_at or None)
        if done is None or live.deleted or not any(schedule.after_end for schedule in live.schedules):
            return cls(live.revision, live.since_at)
        return cls(
            live.revision,
            live.since_at,
            afterend.known(live, done).next_due(done.upto_at),
            afterend.awaited(live, done),
        )


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as saved, and how it stands with the centre (None: not at all, or etcd did not say)."""

    id: str
    name: str
    revision: int
    generation: int
    enabled: bool
    document: dict[str, Any]
    standing: Standing | None
    created_at: float
    updated_at: float
    updated_by: str = ""
    deleted_at: float | None = None

    @property
    def live_revision(self) -> int | None:
        """The revision that the centre sees."""
        return self.standing.revision if self.standing else None

    @property
    def live_from(self) -> int | None:
        """The first second that is decided by the saved schedule; None: it is not live, or etcd did not say."""
        since = self.standing.since_at if self.standing and self.live else None
        return None if since is None else since + 1

    @property
    def live(self) -> bool:
        """Whether the centre sees this very revision."""
        return self.live_revision == self.revision

    @property
    def paused_until(self) -> int | None:
        """The second until which it is paused, while it is."""
        text = self.document.get("paused_until")
        until = parse_pause(text) if text is not None else 0
        return until if self.enabled and until > SYSTEM.wall() else None

    @property
    def held(self) -> str:
        """Why its leader does not fire it, though it is enabled."""
        return self.standing.held if self.standing and self.enabled and self.deleted_at is None else ""

    @property
    def on(self) -> bool:
        """Whether its schedule is followed now."""
        return self.enabled and self.paused_until is None and not self.held

    @property
    def state(self) -> str:
        """on, paused, paused_until, held (its leader does not fire it) or deleted: what its schedule is worth now."""
        if self.deleted_at is not None:
            return "deleted"
        if not self.enabled:
            return "paused"
        return "held" if self.held else "paused_until" if self.paused_until is not None else "on"

    @property
    def job(self) -> Job:
        """The parsed document."""
        return parse(self.document)

    def next_fire_at(self, after: float | None = None, known: Mapping[str, Calendar] | None = None) -> int | None:
        """The next instant it is due, None when paused, manual or over. `known`: the calendars it keeps to."""
        after = SYSTEM.wall() if after is None else after
        if not self.enabled or self.deleted_at is not None or self.held:
            return None
        after = max(after, self.paused_until or 0)
        if self.job.after_end:
            return self.standing.next_at if self.standing else None
        return next_fire(due_schedules(self.job, self.id, known or {}), int(after))


def view_of(row: JobRow) -> JobView:
    """A stored job, without how it stands."""
    return JobView(
        row.id,
        row.name,
        row.revision,
        row.generation,
        row.enabled,
        row.document,
        None,
        row.created_at,
        row.updated_at,
        row.updated_by,
        row.deleted_at,
    )


@dataclass(frozen=True, slots=True)
class VersionView:
    """One save of a job: create, update, pause, resume, delete or rollback."""

    revision: int
    action: str
    actor: str
    at: float
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fire:
    """A coming fire: epoch second, local RFC 3339 in the schedule's zone, its offset, weekday (0 Monday)."""

    at: int
    local: str
    offset: str
    weekday: int
    relative_seconds: int
    marks: tuple[Mark, ...] = ()
    """What clock changes did to it."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The next fires of a schedule, and the schedule in words."""

    fires: list[Fire]
    words: str
    timezone: str
    example: bool = False
    """The text has an `H` and the job no id yet: once saved it fires at other times."""
    warnings: tuple[Advice, ...] = ()
    """Likely mistakes in the schedule."""
    known: bool = True
    """Whether the fires are known beforehand; else `fires` has the next one at most."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile found. `ahead`: etcd has a higher revision than the database; `strange`: a job the database
    does not know. Both are left as they are and need a person (a restored database, perhaps)."""

    published: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether database and etcd agree now."""
        return not (self.ahead or self.strange or self.failed)


class SavedNotLive(Unavailable):
    """The change is saved but the centre does not see it yet; it will go live by itself. `view` is the saved job."""

    def __init__(self, view: JobView, why: str) -> None:
        super().__init__(
            f"Job {view.name} is saved as revision {view.revision} but is not live yet",
            why=why,
            hint="nothing to do: it goes live by itself once etcd can be reached",
        )
        self.view = view


def preview(
    document: Mapping[str, Any],
    n: int = 10,
    after: float | None = None,
    job: str = EXAMPLE,
    *,
    lookup: Lookup | None = None,
    standing: Standing | None = None,
) -> Preview:
    """The next `n` fires of a document's (or a bare `{schedule: …}`'s) schedule, each `H` and jitter by the `job`'s id.

    Of a delay after the end there is at most the one that the `standing` of a saved job knows. Without an id an `H` is
    an example, and a jitter is not known: the instants are those before it. `lookup` finds calendars. Raises `Invalid`.
    """
    if not 1 <= n <= MOST_FIRES:
        raise Invalid("n", f"must be between 1 and {MOST_FIRES}")
    schedules = resolved(parse_schedules(document.get("schedule")), job)
    words = "; ".join(schedule.describe() for schedule in schedules) or "by hand only"
    known = lookup(names_of(schedules)) if lookup else {}
    check_calendars(schedules, known, many=isinstance(document.get("schedule"), list))
    schedules = tuple(schedule.filled(known) for schedule in schedules)
    now = SYSTEM.wall() if after is None else after
    zone = schedules[0].timezone if schedules else "UTC"
    found = _next(schedules, int(now), n)
    known_before = not any(schedule.after_end for schedule in schedules)
    if not known_before and standing and standing.next_at and standing.next_at > now:
        found = [standing.next_at]
    fires = [_fire(at, zone, now, marks(schedules, before, at)) for before, at in pairwise([int(now), *found])]
    example = job == EXAMPLE and any(schedule.hashed for schedule in schedules)
    return Preview(fires, words, zone, example, tuple(advise(schedules, now)), known_before)


def _next(schedules: tuple[Schedule, ...], after: int, n: int) -> list[int]:
    found: list[int] = []
    at = next_fire(schedules, after)
    while at is not None and len(found) < n:
        found.append(at)
        at = next_fire(schedules, at)
    return found


def _fire(at: int, zone: str, now: float, remarks: tuple[Mark, ...]) -> Fire:
    moment = datetime.fromtimestamp(at, ZoneInfo(zone))
    return Fire(at, moment.isoformat(), moment.strftime("%z"), moment.weekday(), round(at - now), remarks)
