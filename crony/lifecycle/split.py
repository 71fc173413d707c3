"""Split (24 to 27): a run is carried out in parts, and ends when all of them have.

From its split on the run's one place is `run/join/<run>`. Every step compares that record's revision: parts are made in
the transaction that counts them as made, ends are noted in the one that takes their request off, and the end of the
whole removes the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from crony.domain.join import Join
from crony.domain.outcome import Outcome
from crony.domain.run import Envelope, Request, Wait
from crony.etcd.keys import Keys
from crony.lifecycle.end import outcome_of
from crony.lifecycle.move import Dispatch, Move, parked, sent


def split(keys: Keys, join: Join, *, wait_seen: int, job: tuple[str, int] | None) -> Move:
    """A run that waited goes into its parts. (One that did not is split by fire or admit.)"""
    seen = {keys.run_wait(join.run): wait_seen}
    if job is not None:
        seen[keys.job(job[0])] = job[1]
    return Move(seen, puts={keys.run_join(join.run): join.encode()}, deletes=(keys.run_wait(join.run),))


def make(keys: Keys, join: Join, *, join_seen: int, dispatches: Sequence[Dispatch], waits: Sequence[Wait]) -> Move:
    """The next parts go to their queues, or wait; `join` counts them as made."""
    out, key = sent(keys, dispatches), keys.run_join(join.run)
    puts = {**out.puts, **parked(keys, waits), key: join.encode()}
    return Move({**out.seen, key: join_seen}, out.alive, puts=puts, proof=key)


def amend(keys: Keys, request: str, *, request_seen: int, join: Join, join_seen: int) -> Move:
    """A request becomes part of the record: it tells of parts that ended, or cancels the run.

    Of a cancelled run no further parts are made; those that are alive are cancelled one by one (`stop_parts`).
    """
    inbox, key = keys.run_in(request), keys.run_join(join.run)
    return Move({inbox: request_seen, key: join_seen}, puts={key: join.encode()}, deletes=(inbox,))


def close(keys: Keys, outcome: Outcome, *, join_seen: int, request: str = "", request_seen: int = 0) -> Move:
    """The whole run ends; the request that told of its last parts goes with it, if that was what made it end."""
    key, inbox = keys.run_join(outcome.run), keys.run_in(request)
    seen = {key: join_seen, **({inbox: request_seen} if request else {})}
    return Move(seen, puts={keys.out(outcome.run, "end"): outcome.encode()}, deletes=tuple(seen))


def stop_parts(keys: Keys, run: str, *, join_seen: int, cancels: Mapping[str, Request]) -> Move:
    """Ask for parts of a cancelled run to be cancelled, by request id."""
    puts = {keys.run_in(ident): request.encode() for ident, request in cancels.items()}
    return Move({keys.run_join(run): join_seen, **dict.fromkeys(puts, 0)}, puts=puts)


def give_up(keys: Keys, join: Join, reason: str, *, join_seen: int) -> Move:
    """As a cancel, by the leader: its next parts cannot be made."""
    key = keys.run_join(join.run)
    return Move({key: join_seen}, puts={key: replace(join, cancelled=reason).encode()})


def outcome_of_parts(told: Envelope, join: Join, *, at: float) -> Outcome:
    """How the whole run ends, from how its parts ended."""
    kind, reason = join.verdict()
    return outcome_of(
        told,
        kind,
        ended_at=at,
        fence=0,
        final=True,
        held=False,
        attempt=0,
        reason=reason,
        started_at=join.started_at,
        result=join.counts(),
        parts=join.total,
    )
