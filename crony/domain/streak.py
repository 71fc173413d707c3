"""Failures in a row: a job may ask to be paused after so many (`pause_after`), by its leader, in `done/<job>`.

A run counts when it has ended for good, whoever asked for it: success begins the count anew, failure of any kind is one
more, a run that was cancelled or skipped says nothing. So does an edit begin anew: only runs of the present revision
count. The pause is one like any other, but that the catalogue does not know of it: an edit or a resume ends it.
"""

from __future__ import annotations

from crony.domain import tzdata
from crony.domain.alert import BAD
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.run import Done

FAILURES = "failures"
"""As `Done.held_for`."""


def counted(live: LiveJob, done: Done, run: str, outcome: str, revision: int, now: float) -> Done | None:
    """The cursor record after a run of this revision ended so, paused where that is due; None: nothing changes."""
    if not live.job.pause_after or revision != live.revision or outcome not in (*BAD, Kind.SUCCEEDED):
        return None
    before = done.failures if done.failures_revision == revision else 0
    failures = before + 1 if outcome in BAD else 0
    after = done.but(failures=failures, failures_revision=revision)
    if failures < live.job.pause_after or (done.held and done.held_revision == revision):
        return None if after == done else after
    why = f"{failures} failures in a row, the last one run {run}"
    return after.but(held=why, held_for=FAILURES, held_revision=revision, held_at=now)


def freed(done: Done, upto: int) -> Done:
    """The record of a job that goes on: decided up to `upto`, held by nothing, its failures forgotten."""
    return released(done).but(upto_at=upto, failures=0)


def released(done: Done) -> Done:
    """The record, held by nothing."""
    if not (done.held or done.held_revision or done.held_for or done.held_at or done.held_tz):
        return done
    return done.but(held="", held_revision=0, held_for="", held_at=0.0, held_tz="")


def stays_held(done: Done, live: LiveJob) -> bool:
    """Whether what holds the job has not changed since."""
    return bool(done.held) and live.revision <= done.held_revision and done.held_tz in ("", tzdata.version())
