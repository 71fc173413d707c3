"""Backfills: instants of a job that are run because somebody asks for them, not because they come.

A backfill is one record in etcd. Its remaining range moves with the runs it makes, in one transaction each, and so do
its counts with the ends of those runs. It keeps the schedule as it was when it was asked for: what its preview showed
is what runs, whatever becomes of the job's schedule. The runs bear the instant as their time, and a suffix of the
backfill's own in their id, so that a period that ran before runs again.

At most `parallel` of its runs are alive at a time. They know nothing of the job's `overlap`, nor it of them: the
schedule fires beside a backfill as if there were none.

What a `fire_all` leaves over is a backfill too, of instants that are named one by one: those are the job's own fires,
by their own names and its own rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.alert import BAD
from crony.domain.fires import count_between, fires_between, last_fire
from crony.domain.outcome import Kind
from crony.domain.record import Record
from crony.domain.replaced import parsed_schedules
from crony.domain.run import Trigger
from crony.domain.schedule import Schedule, resolved
from crony.errors import Invalid

MOST = 100_000
"""Most instants of one backfill."""
PARALLEL = 50
"""Most runs of one that are alive at a time."""
SCHEDULE = 16 * 1024
"""Most bytes of the schedule that it keeps, calendars included."""
KEPT = 7 * 86400.0
"""Seconds for which one that has ended can still be looked at."""
ORDERS = ("oldest", "newest")


class Stop(StrEnum):
    """What somebody asks of a backfill under way."""

    REST = "rest"  # nothing more of it starts
    ALL = "all"  # and what runs is cancelled


@dataclass(frozen=True, slots=True)
class Backfill(Record):
    """`run/backfill/<id>`. Instants are epoch seconds; ranges leave their first second out and have their last."""

    id: str
    job: str
    name: str
    generation: int
    trigger: str = Trigger.BACKFILL.value
    """backfill; schedule: the rest of a `fire_all`"""
    schedule: str = ""
    """The job's `schedule` when it was asked for, its calendars filled in, as JSON text."""
    from_at: int = 0
    to_at: int = 0
    """The whole range."""
    after_at: int = 0
    until_at: int = 0
    """What is left of it."""
    fires: list[int] = field(default_factory=list)
    """What is left of a `fire_all`, in order."""
    again: list[int] = field(default_factory=list)
    """Instants outside of what is left that get a run first: `crony recover` found later ones to have run, not them."""
    order: str = "oldest"
    parallel: int = 1
    total: int = 0
    """Instants of the whole range."""
    made: int = 0
    """Runs made so far."""
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    """Ends of those runs: cancelled ones, and all that neither succeeded nor failed."""
    params: dict[str, Any] = field(default_factory=dict)
    """Over those of the job."""
    no_chain: bool = False
    """Nothing follows its runs."""
    by: str = ""
    requested_at: float = 0.0
    stop: str = ""
    """What was asked of it: see `Stop`."""
    stopped_by: str = ""
    ended_at: float = 0.0
    """0: it goes on."""
    reason: str = ""
    """Why it ended before its time."""

    @property
    def rest_of_fires(self) -> bool:
        """Whether it is what a `fire_all` left over."""
        return self.trigger == Trigger.SCHEDULE

    @property
    def exhausted(self) -> bool:
        """Whether no instant is left that gets a run."""
        return (not self.again and self.after_at >= self.until_at) or self.made >= MOST

    @property
    def ended(self) -> bool:
        """Whether nothing of it is under way any more, or will be."""
        return self.ended_at > 0

    @property
    def alive(self) -> int:
        """Runs made that have not ended, as far as it was told."""
        return max(0, self.made - self.succeeded - self.failed - self.cancelled)

    @property
    def left(self) -> int:
        """Instants that no run was made for."""
        return max(0, self.total - self.made)

    @property
    def state(self) -> str:
        """running, stopping, cancelled, given_up or done."""
        if self.ended:
            return "cancelled" if self.stop else "given_up" if self.reason else "done"
        return "stopping" if self.stop else "running"

    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules it goes by, as the job of that id has them. Raises `Invalid`."""
        return resolved(parsed_schedules(self.schedule), self.job)

    def next(self, most: int) -> tuple[int, ...]:
        """The next instants, at most so many, in its order."""
        if self.rest_of_fires:
            return tuple(self.fires[:most])
        found = self.again[:most]
        if self.order == "oldest":
            most -= len(found)
            ahead = fires_between(self.schedules(), self.after_at, self.until_at, most) if most else ()
            return (*found, *ahead)
        until = self.until_at
        while len(found) < most and (at := last_fire(self.schedules(), self.after_at, until)) is not None:
            found.append(at)
            until = at - 1
        return tuple(found)

    def without(self, taken: Sequence[int]) -> Backfill:
        """What is left when the first of `next` are taken."""
        if not taken:
            return self
        if self.rest_of_fires:
            return replace(self, fires=self.fires[len(taken) :])
        made, anew = self.made + len(taken), len(self.again)
        if len(taken) <= anew:
            return replace(self, again=self.again[len(taken) :], made=made)
        if self.order == "oldest":
            return replace(self, again=[], after_at=taken[-1], made=made)
        return replace(self, again=[], until_at=taken[-1] - 1, made=made)

    def told(self, outcome: str) -> Backfill:
        """After a run of it ended so."""
        if outcome == Kind.SUCCEEDED:
            return replace(self, succeeded=self.succeeded + 1)
        if outcome in BAD:
            return replace(self, failed=self.failed + 1)
        return replace(self, cancelled=self.cancelled + 1)

    def run_of(self, instant: int) -> str:
        """The id of its run for an instant."""
        if self.rest_of_fires:
            return ids.fire_run_id(self.job, self.generation, instant)
        return ids.backfill_run_id(self.job, self.generation, self.id, instant)


def planned(
    *,
    ident: str,
    job: str,
    name: str,
    generation: int,
    schedules: Sequence[Schedule],
    schedule: str,
    start: float,
    end: float,
    now: float,
    parallel: int = 1,
    order: str = "oldest",
    params: Mapping[str, Any] | None = None,
    no_chain: bool = False,
    by: str = "",
) -> Backfill:
    """A backfill of what a schedule has from `start` on and before `end`, checked. Raises `Invalid` naming the field.

    `schedules` are those of the job as a centre has them, `schedule` the same as text.
    """
    if not schedules:
        raise Invalid("schedule", "is not there: the job runs by hand only", hint="a backfill needs instants to run")
    if any(each.after_end for each in schedules):
        raise Invalid("schedule", "follows the ends of runs, so it has no instants in a period", hint="run it by hand")
    if len(schedule.encode()) > SCHEDULE:
        raise Invalid("schedule", f"is longer than {SCHEDULE // 1024} KiB with its calendars", hint="shorten those")
    first, last = int(-(-start // 1)) - 1, int(-(-end // 1)) - 1
    if first < 0:
        raise Invalid("from", "lies before 1970", hint="take a shorter period")
    if last <= first:
        raise Invalid("to", "is not later than `from`", hint="an instant at `to` itself is not part of it")
    if end > now:
        raise Invalid("to", f"lies in the future: it is {rfc3339(int(now))}", hint="what is to come fires by itself")
    total = count_between(schedules, first, last)
    if total > MOST or total.capped:
        raise Invalid("from", f"makes more than {MOST} instants ({total})", hint="take a shorter period")
    if not total:
        raise Invalid("from", "and `to` hold no instant of the schedule", hint="take a longer period")
    return Backfill(
        ident, job, name, generation, schedule=schedule, from_at=first, to_at=last, after_at=first, until_at=last,
        order=order, parallel=parallel, total=int(total), params=dict(params or {}), no_chain=no_chain, by=by,
        requested_at=now,
    )  # fmt: skip
