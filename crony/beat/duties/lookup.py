"""The published job that something asks for, from the book or, when its watch is a moment behind, from etcd."""

from __future__ import annotations

from crony.beat.entries import JobEntry
from crony.beat.office import Office
from crony.domain.livejob import LiveJob
from crony.domain.run import UnknownRecord
from crony.domain.signing import BadSeal
from crony.errors import CronyError


class Refused(Exception):
    """It cannot become a run, and why."""


class Later(Exception):
    """Not now: something about its job is under way."""


def published(office: Office, job: str) -> tuple[JobEntry, LiveJob]:
    """A published job that is not deleted. Raises `Refused` for any other, `Later` while etcd does not answer."""
    entry = office.book.jobs.get(job)
    if entry is None or not entry.seen:
        try:
            for key in (office.keys.job(job), office.keys.done(job)):
                found = office.client.get(key, timeout=0.5)
                if found is not None:
                    office.book.put(found.key, found.value, found.mod, found.create)
        except CronyError:
            raise Later from None
        entry = office.book.jobs.get(job)
    if entry is None or not entry.seen:
        raise Refused("there is no such job")
    try:
        live = entry.document(office.webs)
    except (BadSeal, UnknownRecord) as error:
        raise Refused(f"the job's document is not acted on: {error}") from None
    if live.deleted:
        raise Refused("the job is deleted")
    return entry, live
