"""Runs that follow others, when their own leader takes them on: whether the job still follows, and is not paused.

Whoever settled the parent's end may have known an older save of the job. Here the document decides, and its revision
is compared.
"""

from __future__ import annotations

from crony.beat.duties import lookup
from crony.beat.duties.lookup import Refused
from crony.beat.entries import JobEntry
from crony.beat.office import Office
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.run import Request, Trigger


class NotFollowed(Exception):
    """A run that should follow another does not; `record` says why."""

    def __init__(self, record: Outcome) -> None:
        super().__init__(record.detail)
        self.record = record


def published(office: Office, request: Request) -> tuple[JobEntry, LiveJob]:
    """The job that a request asks for. Raises as `lookup.published`; for a run that follows another `NotFollowed`."""
    try:
        entry, live = lookup.published(office, request.job)
    except Refused as error:
        if request.trigger != Trigger.CHAIN:
            raise
        raise NotFollowed(_skipped(request, SkipReason.DELETED, str(error), office.wall())) from None
    if request.trigger != Trigger.CHAIN:
        return entry, live
    after = live.job.after
    held = entry.done.held if entry.done is not None and entry.done.held_for else ""
    if after is None or _job_of(request.cause) not in after.ids:
        why = SkipReason.PARENT, "the job does not run after it any more"
    elif live.paused_at(office.wall()) or held:
        why = SkipReason.PAUSED, held or "the job was paused"
    else:
        return entry, live
    raise NotFollowed(_skipped(request, *why, office.wall(), live.revision))


def fire_of(request: Request) -> float | None:
    """The nominal instant of the fire that the chain of a run began with; None: with none, or it is in no chain."""
    if request.trigger != Trigger.CHAIN:
        return None
    try:
        return ids.parse_run_id(request.chain).fire
    except ValueError:
        return None


def _job_of(run: str) -> str:
    return run.split(".")[0]


def _skipped(request: Request, reason: SkipReason, detail: str, now: float, revision: int = 0) -> Outcome:
    return Outcome(
        run=request.run, job=request.job, name=str(request.name), generation=ids.parse_run_id(request.run).generation,
        revision=revision, attempt=0, kind=Kind.SKIPPED.value, final=True, trigger=Trigger.CHAIN.value, ended_at=now,
        reason=reason.value, detail=detail, requested_at=float(request.requested_at), chain=str(request.chain),
        cause=str(request.cause), chain_at=float(request.chain_at),
    )  # fmt: skip
