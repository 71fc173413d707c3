"""Admit (transaction 6): a request leaves the inbox as a message, a wait or an outcome, in one step."""

from __future__ import annotations

from collections.abc import Sequence

from crony.domain.join import Join
from crony.domain.outcome import Outcome
from crony.domain.run import Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Dispatch, Move, parked, sent


def admit(
    keys: Keys,
    request: str,
    *,
    request_seen: int,
    job: tuple[str, int] | None,
    dispatches: Sequence[Dispatch] = (),
    waits: Sequence[Wait | Join] = (),
    skips: Sequence[Outcome] = (),
    end: Outcome | None = None,
) -> Move:
    """Take the request off and put what it becomes.

    `job` is (id, revision seen) of the job key it was decided from; None for the implicit job of a task, which has
    no key. `end` is the final record of a run that never starts (refused).
    """
    out = sent(keys, dispatches)
    puts = {**out.puts}
    puts |= parked(keys, waits)
    puts |= {keys.out(skip.run, 0): skip.encode() for skip in skips}
    if end is not None:
        puts[keys.out(end.run, "end")] = end.encode()
    seen = {**out.seen, keys.run_in(request): request_seen}
    if job is not None:
        seen[keys.job(job[0])] = job[1]
    return Move(seen, out.alive, puts=puts, deletes=(keys.run_in(request),))


def set_aside(keys: Keys, request: str, *, request_seen: int, value: bytes) -> Move:
    """Move a request nobody can read to the dead letters."""
    key = keys.run_in(request)
    return Move({key: request_seen}, puts={keys.dead("in", request): value}, deletes=(key,))
