"""A delay after the end (`every: 5m, after: end`): the next instant is due that long after the run before it ended.

No instant follows from such a schedule alone. At most one is known at a time, and `done/<job>` is the one place that
knows it. It goes through three states, each put by the transaction that makes it so:

| `done/<job>` | the next instant |
|---|---|
| nothing of this schedule (`next_since` is another one's) | a period after it came into force: creation, resume, edit |
| `awaits` a run | not known; a period after that run has ended, however it ends |
| `next_at` | is this one; a fire that becomes no run is followed by one a period after that decision |

`known` turns the one instant into a schedule of one instant, so that deciding what becomes of it needs no other rules
than those of every fire.
"""

from __future__ import annotations

import contextlib
import math

from crony.clock import rfc3339
from crony.domain.hint import TOGETHER, hinted
from crony.domain.livejob import LiveJob
from crony.domain.replaced import Replaced
from crony.domain.run import Done
from crony.domain.schedule import HORIZON, Schedule
from crony.domain.zones import FIRST, LAST, zone
from crony.errors import Invalid


def delayed(live: LiveJob) -> Schedule | None:
    """The job's schedule if it is a delay after the end, which is then its only one."""
    for schedule in live.schedules:
        if schedule.after_end:
            return schedule
    return None


def follow(schedule: Schedule, end: int) -> int | None:
    """The instant that follows something that was over at `end`: a period later, or as soon after that as window and
    calendars let it through; None when they never do."""
    window = schedule.window
    first, last = (window.first, window.last) if window else (FIRST, LAST - 1)
    found: int | None = max(end + schedule.period, first)
    if schedule.calendars is not None and found is not None and found <= last:
        where = schedule.zone or zone(schedule.timezone)
        found = schedule.calendars.open_from(found, where, min(found + HORIZON, last, LAST - 1))
    return None if found is None or found > last else found


def known(live: LiveJob, done: Done) -> LiveJob:
    """The job with the one instant that is known in the place of each delay after the end; other jobs as they are."""
    replaced = tuple([_known_before(item, live.id, done) for item in live.replaced])
    schedule = delayed(live)
    if schedule is None:
        return live if replaced == live.replaced else live.replace(replaced=replaced)
    at = _instant(schedule, done, live.since_at, live.paused_until)
    return live.replace(replaced=replaced, times=(live.enabled, () if at is None else (_once(at),), live.paused_until))


def _known_before(item: Replaced, job: str, done: Done) -> Replaced:
    """The same for a schedule that was replaced."""
    schedule = next((schedule for schedule in item.schedules(job) if schedule.after_end), None)
    if schedule is None:
        return item
    at = _instant(schedule, done, item.since_at, item.paused_until)
    return item._replace(schedule="null" if at is None else f'{{"at":"{rfc3339(at)}"}}')


def _instant(schedule: Schedule, done: Done, since: int, paused_until: int) -> int | None:
    if done.next_since != since:
        return follow(schedule, max(since, paused_until))
    if done.next_at is not None and done.next_at <= done.upto_at:
        return follow(schedule, done.upto_at)  # it was passed by something that knows nothing of delays
    return done.next_at


def _once(at: int) -> Schedule:
    return Schedule("at", str(rfc3339(at)), anchor=at)


def awaited(live: LiveJob, done: Done) -> str:
    """The run whose end the next instant follows; empty: none does."""
    return done.awaits if delayed(live) is not None and done.next_since == live.since_at else ""


def fired(live: LiveJob, done: Done, run: str, now: float) -> Done:
    """The cursor of a decision made at `now` with what follows from it. `run`: what the last instant that it covers
    became; empty: none. That instant may be one of a schedule that was replaced: of the present one nothing follows."""
    schedule = delayed(live)
    if schedule is None or done.upto_at <= live.since_at:
        if done.next_at is None and not done.next_since and not done.awaits:
            return done
        return done.but(next_at=None, next_since=0, awaits="")
    following = None if run else follow(schedule, max(done.upto_at, math.ceil(now)))
    return done.but(next_at=following, next_since=live.since_at, awaits=run)


def ended(live: LiveJob, done: Done, run: str, ended_at: float, now: float) -> Done | None:
    """The cursor after the end of a run, None when nothing goes by it.

    `ended_at` is what whoever ended it said, by its own clock: neither before the fire nor after now is believed.
    """
    schedule = delayed(live)
    if schedule is None or not run or awaited(live, done) != run:
        return None
    end = max(done.upto_at, math.ceil(min(ended_at, now)))
    return done.but(next_at=follow(schedule, end), awaits="")


def noted(live: LiveJob, done: Done, job_seen: int) -> Done:
    """The cursor with the hint when the job is due next, worked out from its key at revision `job_seen`."""
    return hinted(live, done, known(live, done).next_due(done.upto_at), job_seen)


def begun(live: LiveJob, done: Done) -> Done:
    """The cursor that is put together with the job, with the hint when it is due first; without one where that cannot
    be told here, and for a deleted job, which the leader is to read."""
    if not live.deleted:
        with contextlib.suppress(Invalid):
            return noted(live, done, TOGETHER)
    return done.but(due_at=None, due_seen=0, due_tz="")
