"""A job as it lives in etcd (`job/<id>`): its document, and which schedule decides which instants (PROTOCOL S3).

An edit does not touch the cursor `done/<job>`. The new document carries `since_at`, the second of
the save, and the schedules it replaced: instants up to a replaced schedule's `until_at` are due by
that schedule, instants later than `since_at` by the document's own. So a fire next to an edit is due
exactly once, whoever decides it and however late.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from crony.domain import stretches
from crony.domain.check import flag
from crony.domain.crossing import NOTHING, Crossing, Due, crossing
from crony.domain.fires import Count
from crony.domain.job import Job, parse, parse_pause
from crony.domain.record import RECORD_VERSION, UnknownRecord
from crony.domain.replaced import Replaced, compact, parsed_schedules
from crony.domain.schedule import Schedule, resolved
from crony.domain.stretches import Stretch
from crony.errors import Conflict, Invalid

LONGEST_CHAIN = 64
"""Edits of the schedule that may wait for a leader's decision."""


class LiveJob:
    """The published job. Immutable; small, because a leader holds all of them."""

    __slots__ = (
        "_job",
        "_raw",
        "_times",
        "crossed",
        "deleted",
        "generation",
        "id",
        "name",
        "published_at",
        "replaced",
        "revision",
        "since_at",
    )

    id: str
    name: str
    generation: int
    """Rises with each creation under the same id; part of run ids."""
    revision: int
    """Rises with each save; never goes down."""
    deleted: bool
    """A tombstone: nothing is due, and an older save cannot bring the job back."""
    since_at: int
    replaced: tuple[Replaced, ...]
    published_at: float
    crossed: Crossing
    """What the last edit found between a closed day and where it moved."""
    _raw: str | None
    _job: Job | None
    _times: tuple[bool, tuple[Schedule, ...], int] | None

    def __init__(
        self,
        id: str,
        name: str,
        generation: int,
        revision: int,
        *,
        document: Mapping[str, Any] | Job | None = None,
        deleted: bool = False,
        since_at: float = 0,
        replaced: Iterable[Replaced | Mapping[str, Any]] = (),
        published_at: float = 0.0,
        crossed: Crossing = NOTHING,
        times: tuple[bool, tuple[Schedule, ...], int] | None = None,
    ) -> None:
        """`times`: what is due instead of what the document says, as (enabled, schedules, paused until)."""

        def keep(slot: str, value: Any) -> None:
            object.__setattr__(self, slot, value)

        keep("id", id)
        keep("name", name)
        keep("generation", generation)
        keep("revision", revision)
        keep("deleted", deleted)
        keep("since_at", math.floor(since_at))
        keep("replaced", tuple(item if isinstance(item, Replaced) else Replaced.read(item) for item in replaced))
        keep("published_at", published_at)
        keep("crossed", crossed)
        keep("_job", document if isinstance(document, Job) else None)
        keep("_raw", None if document is None or isinstance(document, Job) else compact(document))
        if times is not None:
            keep("_times", times)
            return
        try:
            keep("_times", None if document is None or isinstance(document, Job) else _timing_of(document, id))
        except Invalid:
            keep("_times", None)  # said again, loudly, when somebody asks what is due

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"LiveJob.{name} is read-only; use replace()")

    def __repr__(self) -> str:
        state = " deleted" if self.deleted else ""
        return f"LiveJob({self.id} {self.name!r} generation {self.generation} revision {self.revision}{state})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LiveJob) and self.payload() == other.payload()

    def __hash__(self) -> int:
        return hash((self.id, self.generation, self.revision))

    # -- the record ------------------------------------------------------------------------

    def payload(self) -> dict[str, Any]:
        """The record as plain data, version first."""
        return {
            "v": RECORD_VERSION,
            "id": self.id,
            "name": self.name,
            "generation": self.generation,
            "revision": self.revision,
            "deleted": self.deleted,
            "document": self.document,
            "since_at": self.since_at,
            "replaced": [item.payload() for item in self.replaced],
            "published_at": self.published_at,
            **({"crossed": self.crossed.payload()} if self.crossed.moved else {}),
        }

    def encode(self) -> bytes:
        """The record as JSON bytes (unsealed)."""
        return compact(self.payload()).encode()

    @classmethod
    def read(cls, data: bytes | str | Mapping[str, Any]) -> Self:
        """The record behind a payload. Raises `UnknownRecord`.

        The document is checked when it is used: its schedule when something asks what is due, all of it by `job`.
        """
        try:
            raw = data if isinstance(data, Mapping) else json.loads(data)
            if raw.get("v", 0) > RECORD_VERSION:
                raise UnknownRecord(f"a LiveJob of version {raw['v']}", hint="upgrade this process")
            document = raw.get("document")
            if not isinstance(document, Mapping | None):
                raise TypeError("document is not an object")
            return cls(
                str(raw["id"]),
                str(raw["name"]),
                int(raw["generation"]),
                int(raw["revision"]),
                document=document,
                deleted=bool(raw.get("deleted", False)),
                since_at=int(raw.get("since_at", 0)),
                replaced=raw.get("replaced", ()),
                published_at=float(raw.get("published_at", 0.0)),
                crossed=Crossing.read(raw["crossed"]) if "crossed" in raw else NOTHING,
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UnknownRecord("not a LiveJob", why=str(error)) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some parts changed."""
        kept = ("id", "name", "generation", "revision", "deleted", "since_at", "replaced", "published_at", "crossed")
        parts: dict[str, Any] = {name: getattr(self, name) for name in kept}
        parts["document"] = self._job if self._job is not None else self.document
        return type(self)(**{**parts, **changes})

    # -- its life --------------------------------------------------------------------------

    @classmethod
    def created(
        cls, ident: str, document: Mapping[str, Any] | Job, *, generation: int = 1, revision: int = 1, now: float
    ) -> Self:
        """A new job: due from `now` on (its publish puts `done` = now)."""
        job = document if isinstance(document, Job) else parse(document)
        return cls(ident, job.name, generation, revision, document=job, since_at=now, published_at=now)

    def edited(self, document: Mapping[str, Any] | Job, *, revision: int, now: float, done: int | None = None) -> Self:
        """The job after a save at `now`, with this one's schedule kept for the instants up to it.

        `done` is the job's cursor where the caller knows it: what is decided needs no schedule any
        more. Raises `Conflict` when too many edits wait for a leader.
        """
        job = document if isinstance(document, Job) else parse(document)
        # A save by a web whose clock is behind the one before must not reach back over that one's instants.
        since = max(math.floor(now), self.since_at)
        chain = [item for item in self.replaced if done is None or item.until_at > done]
        enabled, text, paused, goes_by_ends = self._in_force()
        crossed = self._crossed(job, since)
        if chain and chain[-1].until_at >= since:
            pass  # This one decided no instant at all.
        elif (job.enabled, compact(job.schedule_document()), job.paused_until) == (enabled, text, paused):
            # Nothing changed in time: this document goes on from where its predecessor began.
            since, crossed = self.since_at, self.crossed
        elif done is None or since > done:
            began = self.since_at if goes_by_ends else 0
            chain.append(Replaced(since, enabled, text, paused, began, self.crossed.extra, self.crossed.without))
        if len(chain) > LONGEST_CHAIN:
            raise Conflict(
                f"the schedule of {job.name} was changed {LONGEST_CHAIN} times without a leader to follow",
                hint="start a scheduling centre, then save again",
            )
        return type(self)(
            self.id,
            job.name,
            self.generation,
            revision,
            document=job,
            since_at=since,
            replaced=chain,
            published_at=now,
            crossed=crossed,
        )

    def _crossed(self, job: Job, at: float) -> Crossing:
        """What an edit or a resume at `at` finds between a closed day and where it moved. Raises `Conflict`."""
        try:
            old = self.schedules
        except Invalid:
            return NOTHING  # its zone is gone: where its fires were, nobody can tell
        new = resolved(job.schedules, self.id)
        return crossing(old, new, math.floor(at), since=self.since_at, was=dict(self.crossed.moved))

    def _in_force(self) -> tuple[bool, str, int, bool]:
        """(enabled, schedule as text, paused until, goes by ends). Of one whose zone is gone here as it is written:
        whoever has the zone can still tell what was due by it."""
        try:
            job = self.job
        except Invalid:
            raw = self.document or {}
            return flag(raw.get("enabled", True), "enabled"), compact(raw.get("schedule")), 0, False
        by_ends = any(schedule.after_end for schedule in job.schedules)
        return job.enabled, compact(job.schedule_document()), job.paused_until, by_ends

    def resumed(self, document: Mapping[str, Any] | Job, *, revision: int, now: float) -> Self:
        """The job after a resume at `now`: due from then on (its publish moves `done` to now at least)."""
        job = document if isinstance(document, Job) else parse(document)
        return type(self)(
            self.id, job.name, self.generation, revision, document=job, since_at=now, published_at=now,
            crossed=self._crossed(job, now),
        )  # fmt: skip

    def tombstone(self, *, revision: int, now: float) -> Self:
        """The job after its deletion: nothing is due any more."""
        return type(self)(self.id, self.name, self.generation, revision, deleted=True, since_at=now, published_at=now)

    # -- what it says ----------------------------------------------------------------------

    @property
    def job(self) -> Job:
        """The parsed document, kept. Raises `Invalid` when this version of Crony cannot read it, or for a tombstone."""
        if self._job is None:
            if self._raw is None:
                raise Invalid("", f"{self.name} is deleted", hint="create it again")
            job = parse(json.loads(self._raw))
            object.__setattr__(self, "_job", job)
            object.__setattr__(self, "_raw", None)
            return job
        return self._job

    @property
    def document(self) -> dict[str, Any] | None:
        """The document as plain data (in normal form once `job` was used); None for a tombstone."""
        if self._job is not None:
            return self._job.document()
        return None if self._raw is None else json.loads(self._raw)

    @property
    def enabled(self) -> bool:
        """Whether its own schedules are followed."""
        return not self.deleted and self._timing()[0]

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """Its own schedules; none for a tombstone."""
        return () if self.deleted else self._timing()[1]

    @property
    def paused_until(self) -> int:
        """The second up to which its own schedules are not followed."""
        return 0 if self.deleted else self._timing()[2]

    def paused_at(self, instant: float) -> bool:
        """Whether its own schedules are not followed at this instant."""
        return not self.enabled or self.paused_until > instant

    def _timing(self) -> tuple[bool, tuple[Schedule, ...], int]:
        """(enabled, schedules, paused until), the rest not parsed: a new leader asks 100,000 jobs when they are due."""
        if self._times is None:
            if self._job is None and self._raw is not None:
                times = _timing_of(json.loads(self._raw), self.id)
            else:
                times = (self.job.enabled, resolved(self.job.schedules, self.id), self.job.paused_until)
            object.__setattr__(self, "_times", times)
            return times
        return self._times

    def _stretches(self, after: int, until: float) -> Iterator[Stretch]:
        """Which schedules are in force when in (after, until]."""
        if self.deleted:
            return
        low = after
        for item in self.replaced:
            if item.until_at > low:
                if low < until:
                    high = min(until, item.until_at)
                    yield Stretch(item.enabled, item.due(self.id), low, high, item.paused_until)
                low = item.until_at
        low = max(low, self.since_at if self.replaced else low)
        enabled, schedules, paused = self._timing()
        if low < until:
            yield Stretch(enabled, Due(schedules, self.crossed.extra, self.crossed.without), low, until, paused)

    def passed_over(self, after: int, until: int) -> tuple[int, int, Count] | None:
        """(first, last, how many) of what pauses kept from being due in (after, until]; None: nothing."""
        return stretches.passed_over(self._stretches(after, until))

    def due_between(self, after: int, until: int, limit: int) -> list[int]:
        """The first `limit` due instants with `after` < t <= `until`, in order and distinct."""
        return stretches.between(self._stretches(after, until), limit)

    def next_due(self, after: int) -> int | None:
        """The first due instant later than `after`, or None when nothing will ever be due."""
        return stretches.first(self._stretches(after, math.inf))

    def last_due(self, after: int, until: int) -> int | None:
        """The last due instant with `after` < t <= `until`, or None; cheap, however many there are."""
        return stretches.last(self._stretches(after, until))

    def count(self, after: int, until: int) -> Count:
        """How many instants are due with `after` < t <= `until` (`capped`: at least that many)."""
        return stretches.count(self._stretches(after, until))


def _timing_of(document: Mapping[str, Any], job: str) -> tuple[bool, tuple[Schedule, ...], int]:
    schedules = resolved(parsed_schedules(compact(document.get("schedule"))), job)
    return flag(document.get("enabled", True), "enabled"), schedules, parse_pause(document.get("paused_until"))
