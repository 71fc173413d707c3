"""The published job that something asks for, from the book or, when its watch is behind, from etcd."""

from __future__ import annotations

from crony.beat.entries import JobEntry
from crony.beat.office import Office
from crony.domain.livejob import LiveJob
from crony.domain.record import UnknownRecord
from crony.domain.signing import BadSeal
from crony.errors import CronyError

BEHIND = 1.0
"""Seconds that a job which etcd has, and its watch has not told of, is waited for: what was published before it comes
with it, such as its pool, or the nodes. After that it goes by what is known."""


class Refused(Exception):
    """It cannot become a run, and why."""


class Later(Exception):
    """Not now: something about its job is under way."""


def published(office: Office, job: str) -> tuple[JobEntry, LiveJob]:
    """A published job that is not deleted. Raises `Refused` for any other, `Later` while etcd does not answer
    or its watch is a moment behind."""
    entry = office.book.jobs.get(job)
    if entry is None or not entry.seen:
        entry = _stranger(office, job)
    office.strangers.pop(job, None)
    if entry is None or not entry.seen:
        raise Refused("there is no such job")
    try:
        live = entry.document(office.webs)
    except (BadSeal, UnknownRecord) as error:
        raise Refused(f"the job's document is not acted on: {error}") from None
    if live.deleted:
        raise Refused("the job is deleted")
    return entry, live


def _stranger(office: Office, job: str) -> JobEntry | None:
    """A job that no watch has told of, as etcd has it."""
    now, since = office.mono(), office.strangers.get(job)
    if since is not None and now < since + BEHIND:
        raise Later
    try:
        read = [office.client.get(key, timeout=0.5) for key in (office.keys.job(job), office.keys.done(job))]
    except CronyError:
        raise Later from None
    if read[0] is not None and since is None:
        office.strangers[job] = now
        raise Later
    for found in read:
        if found is not None:
            office.book.put(found.key, found.value, found.mod, found.create)
    return office.book.jobs.get(job)
