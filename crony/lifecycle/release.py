"""Release (transaction 7): a waiting run goes on to its next attempt, keeps waiting, or ends."""

from __future__ import annotations

from collections.abc import Iterable

from crony.domain.outcome import Outcome
from crony.domain.run import Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Dispatch, Move, sent


def release(
    keys: Keys, run: str, *, wait_seen: int, job: tuple[str, int] | None, cancel_key: str, dispatch: Dispatch
) -> Move:
    """From the waiting record to a queue. `cancel_key` (the node's order about this run) must be absent."""
    out = sent(keys, [dispatch])
    seen = {**out.seen, keys.run_wait(run): wait_seen}
    if cancel_key:
        seen[cancel_key] = 0
    if job is not None:
        seen[keys.job(job[0])] = job[1]
    return Move(seen, out.alive, puts=out.puts, deletes=(keys.run_wait(run),))


def park(keys: Keys, wait: Wait, *, wait_seen: int) -> Move:
    """Keep it waiting, for another reason."""
    key = keys.run_wait(wait.run)
    return Move({key: wait_seen}, puts={key: wait.encode()})


def finish(keys: Keys, outcome: Outcome, *, wait_seen: int, orders: Iterable[str] = ()) -> Move:
    """End the run that waits: attempt 0 is a skip, anything else its end. Open orders about it go too."""
    key = keys.run_wait(outcome.run)
    slot: int | str = 0 if outcome.attempt == 0 and outcome.kind == "skipped" else "end"
    return Move({key: wait_seen}, puts={keys.out(outcome.run, slot): outcome.encode()}, deletes=(key, *orders))
