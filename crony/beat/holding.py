"""Holding a job that cannot be decided: it does not fire, its record says why, people are told, the others go on (S11).

A job is held until it is edited; one whose zone the time zone data lack, also until other data are there. When an edit
gave it another zone, nobody can tell what was due by the one before: that part of time is passed, with a record.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from crony.beat import policy
from crony.beat.entries import JobEntry
from crony.beat.handout import skip_record
from crony.beat.office import Office
from crony.domain import tzdata
from crony.domain.alert import Alert, job_held
from crony.domain.livejob import LiveJob
from crony.domain.outcome import SkipReason
from crony.domain.run import Done
from crony.domain.streak import released
from crony.domain.zones import NoZone
from crony.errors import Invalid
from crony.lifecycle.move import Move
from crony.lifecycle.note import note

log = logging.getLogger("crony.beat")

LONGEST = 300
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Held:
    """The move that holds a job; how many fires it explains, and the alert it puts."""

    move: Move
    skipped: int
    alert: Alert | None


def hold(office: Office, entry: JobEntry, done: Done, due: int | None, error: Exception, *, tell: bool) -> Held:
    """Hold a job because of `error`; `due`, if it was, gets a record. `tell`: there is room for an alert.

    Raises as `JobEntry.document` when not even that can be read.
    """
    live = entry.document(office.webs)
    if isinstance(error, NoZone) and (until := _untold_until(live, done)) is not None:
        return _pass_over(office, entry, live, done, until, error)
    gone = isinstance(error, NoZone)
    reason = (error.what_to_do if isinstance(error, NoZone) else f"{type(error).__name__}: {error}")[:LONGEST]
    log.error("job %s does not fire until it is edited%s: %s", entry.id, " or has its zone" if gone else "", reason)
    now, skips = office.wall(), []
    if due is not None and due > done.upto_at:
        skips.append(skip_record(live, policy.Skipped(SkipReason.ERROR, due, due, 1, reason), now))
    after = replace(
        done,
        held=reason,
        held_revision=live.revision,
        held_for="",
        held_at=now,
        held_tz=tzdata.version() if gone else "",
        upto_at=max(done.upto_at, due or 0),
        due_seen=0,
    )
    alert = job_held(live.id, live.name, live.revision, entry.done_seen, now, reason) if tell else None
    if alert is None:
        office.counts["alerts_not_kept"] += 1
    entry.problem = reason
    move = note(
        office.keys, entry.id, job_seen=entry.seen, done_seen=entry.done_seen, done=after, skips=skips, alert=alert
    )
    return Held(move, len(skips), alert)


def _untold_until(live: LiveJob, done: Done) -> int | None:
    """Up to when only schedules that were replaced are in the way; None: the job's own is."""
    if live.since_at <= done.upto_at or not live.replaced:
        return None
    try:
        live.replace(replaced=()).next_due(live.since_at)
    except Invalid:
        return None
    return live.since_at


def _pass_over(office: Office, entry: JobEntry, live: LiveJob, done: Done, until: int, error: NoZone) -> Held:
    detail = f"what was due by the schedule before cannot be told any more: {error.problem}"[:LONGEST]
    log.error("job %s: %s", entry.id, detail)
    skipped = policy.Skipped(SkipReason.ERROR, done.upto_at + 1, until, 1, detail)
    after = replace(released(done), upto_at=until, due_seen=0)
    move = note(office.keys, entry.id, job_seen=entry.seen, done_seen=entry.done_seen, done=after,
                skips=[skip_record(live, skipped, office.wall())])  # fmt: skip
    return Held(move, 1, None)
