"""Fire (transaction 5): what is due becomes messages, waits or skip records, and the job's cursor passes it."""

from __future__ import annotations

from collections.abc import Sequence

from crony.domain.backfill import Backfill
from crony.domain.join import Join
from crony.domain.outcome import Outcome
from crony.domain.run import Done, Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Dispatch, Move, parked, sent


def fire(
    keys: Keys,
    job: str,
    *,
    job_seen: int,
    done_seen: int,
    done: Done,
    dispatches: Sequence[Dispatch] = (),
    waits: Sequence[Wait | Join] = (),
    skips: Sequence[Outcome] = (),
    rest: Backfill | None = None,
) -> Move:
    """One decision of one job over everything due up to `done.upto_at`.

    It holds only for the very document (`job_seen`) and cursor (`done_seen`) it was made from, so each fire is
    decided once. `rest` is what a `fire_all` leaves over.
    """
    out = sent(keys, dispatches)
    puts = {**out.puts}
    puts[keys.done(job)] = done.encode()
    puts |= parked(keys, waits)
    puts |= {keys.out(skip.run, 0): skip.encode() for skip in skips}
    if rest is not None:
        puts[keys.backfill(rest.id)] = rest.encode()
    seen = {**out.seen, keys.job(job): job_seen, keys.done(job): done_seen}
    return Move(seen, out.alive, puts=puts, proof=keys.done(job))
