"""Fire (transaction 5): what is due becomes messages, waits or skip records, and the job's cursor passes it."""

from __future__ import annotations

from collections.abc import Sequence

from crony.domain.outcome import Outcome
from crony.domain.run import Done, Request, Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Dispatch, Move, sent


def fire(
    keys: Keys,
    job: str,
    *,
    job_seen: int,
    done_seen: int,
    done: Done,
    dispatches: Sequence[Dispatch] = (),
    waits: Sequence[Wait] = (),
    skips: Sequence[Outcome] = (),
    backfill: tuple[str, Request] | None = None,
) -> Move:
    """One decision of one job over everything due up to `done.upto_at`.

    It holds only for the very document (`job_seen`) and cursor (`done_seen`) it was made from, so each fire is
    decided once. `backfill` is the rest of a `fire_all`, as (request id, request).
    """
    out = sent(keys, dispatches)
    puts = {**out.puts}
    puts[keys.done(job)] = done.encode()
    puts |= {keys.run_wait(wait.run): wait.encode() for wait in waits}
    puts |= {keys.out(skip.run, 0): skip.encode() for skip in skips}
    if backfill is not None:
        puts[keys.run_in(backfill[0])] = backfill[1].encode()
    seen = {**out.seen, keys.job(job): job_seen, keys.done(job): done_seen}
    return Move(seen, out.alive, puts=puts, proof=keys.done(job))
