"""The record of fires that become no run: one for a whole range, kept beside the outcomes of runs."""

from __future__ import annotations

from crony.domain import ids
from crony.domain.alerting import minds_missed
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.run import Trigger
from crony.errors import Invalid


def skipped_fires(
    live: LiveJob, reason: SkipReason, detail: str, *, first: int, last: int, count: int, at: float
) -> Outcome:
    """What is kept of `count` due instants from `first` to `last`, decided at `at`; named after the first of them."""
    return Outcome(
        run=ids.fire_run_id(live.id, live.generation, first),
        job=live.id,
        name=live.name,
        generation=live.generation,
        revision=live.revision,
        attempt=0,
        kind=Kind.SKIPPED.value,
        final=True,
        trigger=Trigger.SCHEDULE.value,
        ended_at=at,
        reason=reason.value,
        detail=detail,
        fire_at=first,
        requested_at=at,
        to_at=last,
        count=count,
        missed=_minded(live),
    )


def _minded(live: LiveJob) -> str:
    """Whether the job minds that they become no run; of one that cannot be read the rules say so."""
    try:
        return minds_missed(live.job.alerts)
    except Invalid:
        return ""
