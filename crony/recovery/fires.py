"""Which fires of a job nobody knows anything about: what was due since the restored cursor, less what is archived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crony.catalog.keeping import names_of
from crony.domain import afterend
from crony.domain.calendar import Calendar
from crony.domain.job import Job, parse
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.errors import CronyError
from crony.store.recovery import KnownFires

SLICE = 5000
MOST = 200_000
"""Most instants of one job looked at one by one; the others are counted together."""
MOST_GAPS = 20
"""Most records of one job; the last one stands for all that would follow."""


@dataclass(frozen=True, slots=True)
class Gap:
    """So many due instants from `first` to `last` of which nothing is known."""

    first: int
    last: int
    count: int


def gaps(live: LiveJob, done: Done, until: int, known: KnownFires) -> list[Gap]:
    """The unknown fires in (`done.upto_at`, `until`], in order."""
    live, after = afterend.known(live, done), done.upto_at
    found: list[Gap] = []
    joined, looked = False, 0
    while looked < MOST:
        instants = live.due_between(after, until, SLICE)
        for instant in instants:
            if known.has(instant):
                joined = False
                continue
            if found and (joined or len(found) >= MOST_GAPS):
                found[-1] = Gap(found[-1].first, instant, found[-1].count + 1)
            else:
                found.append(Gap(instant, instant, 1))
            joined = True
        if len(instants) < SLICE:
            return found
        after, looked = instants[-1], looked + len(instants)
    first, last = live.next_due(after), live.last_due(after, until)
    if first is not None and last is not None and first <= until:
        found.append(Gap(first, last, max(1, int(live.count(after, until)))))
    return found


def lived(
    live: LiveJob | None,
    ident: str,
    generation: int,
    versions: list[tuple[int, float, dict[str, Any]]],
    calendars: Mapping[str, Calendar],
    done: int,
) -> LiveJob | None:
    """The job with every schedule it had since: the restored document and the saves after it; None: nobody can tell."""
    for revision, at, document in versions:
        try:
            job = _filled(parse(document), calendars)
            if live is None or live.deleted:
                live = LiveJob.created(ident, job, generation=generation, revision=revision, now=at)
            else:
                live = live.edited(job, revision=revision, now=at, done=done)
        except (CronyError, KeyError):
            continue  # a save that this version cannot read decided nothing that it could tell of
    return live


def _filled(job: Job, calendars: Mapping[str, Calendar]) -> Job:
    return job.filled(calendars) if names_of(job.schedules) else job
