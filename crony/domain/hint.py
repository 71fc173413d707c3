"""When a job is due next, left as a hint in its cursor, so that whoever leads later need not read every document.

A hint follows from one revision of the job key and, where the job goes by a zone, from one release of the time zone
data. After an edit, under other data (a new release, a centre on another machine) it is worked out anew. Whoever
creates a job leaves the first one, and cannot know the revision yet: cursor and job then bear the same one.

A hint is believed, and proved afterwards (`Agenda.examine`): anybody who may write to etcd can leave one that lies.
"""

from __future__ import annotations

from crony.domain import tzdata
from crony.domain.livejob import LiveJob
from crony.domain.run import Done

ANY = "-"
"""As `Done.due_tz`: no time zone data went into it."""
TOGETHER = -1
"""As `Done.due_seen`: the job key was put by the transaction that put the cursor."""


def hinted(live: LiveJob, done: Done, due: int | None, job_seen: int) -> Done:
    """The cursor with the hint that the job is due next at `due`, worked out from its key at revision `job_seen`."""
    return done.but(due_at=due, due_seen=job_seen, due_tz=tzdata.version() if _goes_by_a_zone(live) else ANY)


def trusted(done: Done, job_seen: int, done_seen: int) -> bool:
    """Whether the hint is still good for the job key at revision `job_seen`; the cursor is of revision `done_seen`."""
    meant = done_seen if done.due_seen == TOGETHER else done.due_seen
    return meant == job_seen and not done.held and done.due_tz in (ANY, tzdata.version())


def timeless(done: Done, job_seen: int, done_seen: int) -> bool:
    """Whether it is good under any time zone data."""
    return done.due_tz == ANY and trusted(done, job_seen, done_seen)


def _goes_by_a_zone(live: LiveJob) -> bool:
    schedules = live.schedules
    if live.replaced:
        schedules = (*schedules, *(schedule for item in live.replaced for schedule in item.schedules(live.id)))
    return any(each.timezone != "UTC" and (each.kind == "cron" or each.calendars is not None) for each in schedules)
