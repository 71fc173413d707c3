"""Note (transaction 20): what the leader writes down about a job without firing it: held, and why."""

from __future__ import annotations

from collections.abc import Sequence

from crony.domain.outcome import Outcome
from crony.domain.run import Done
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def note(keys: Keys, job: str, *, job_seen: int, done_seen: int, done: Done, skips: Sequence[Outcome] = ()) -> Move:
    """Replace the cursor record; `skips` explain fires that `done.upto_at` passes without a run."""
    puts = {keys.done(job): done.encode()} | {keys.out(skip.run, 0): skip.encode() for skip in skips}
    return Move({keys.job(job): job_seen, keys.done(job): done_seen}, puts=puts, proof=keys.done(job))


def forget(keys: Keys, job: str, *, job_seen: int, done_seen: int) -> Move:
    """Prune a tombstone that is old enough (M4), and its cursor."""
    seen = {keys.job(job): job_seen, keys.done(job): done_seen}
    return Move(seen, deletes=tuple(key for key, revision in seen.items() if revision))
