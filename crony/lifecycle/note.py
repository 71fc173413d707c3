"""Note (transaction 20): what the leader writes down about a job without firing it: held and why, what is due next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crony.domain.alert import Alert
from crony.domain.outcome import Outcome
from crony.domain.run import Done
from crony.etcd.keys import Keys
from crony.lifecycle.alert import put
from crony.lifecycle.move import Move


def note(
    keys: Keys,
    job: str,
    *,
    job_seen: int,
    done_seen: int,
    done: Done,
    skips: Sequence[Outcome] = (),
    ends: Mapping[str, int] | None = None,
    alert: Alert | None = None,
) -> Move:
    """Replace the cursor record; `skips` explain fires that `done.upto_at` passes without a run, `alert` tells of it.

    `ends` are the requests, with their revisions, that told of the ends it follows from; they go, so each counts once.
    """
    told = {keys.run_in(request): seen for request, seen in (ends or {}).items()}
    puts = {keys.done(job): done.encode()} | {keys.out(skip.run, 0): skip.encode() for skip in skips}
    if alert is not None:
        puts |= put(keys, alert)
    seen = {keys.job(job): job_seen, keys.done(job): done_seen, **told}
    return Move(seen, puts=puts, deletes=tuple(told), proof=keys.done(job))


def pass_over(keys: Keys, job: str, *, job_seen: int, done_seen: int, ends: Mapping[str, int]) -> Move:
    """Take off requests that told of ends by which nothing of the job goes any more."""
    told = {keys.run_in(request): seen for request, seen in ends.items()}
    return Move({keys.job(job): job_seen, keys.done(job): done_seen, **told}, deletes=tuple(told))


def forget(keys: Keys, job: str, *, job_seen: int, done_seen: int) -> Move:
    """Prune a tombstone that is old enough (M4), its cursor, and the note that its last run failed."""
    seen = {keys.job(job): job_seen, keys.done(job): done_seen}
    return Move(seen, deletes=(*(key for key, revision in seen.items() if revision), keys.lapse(job)))
