"""Cancel (transaction 15): a run ends where it lies; a claimed one is ordered to stop on its node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crony.domain.outcome import Outcome
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def cancel(
    keys: Keys,
    request: str,
    *,
    request_seen: int,
    records: Mapping[str, int],
    outcome: Outcome,
    also: Iterable[str] = (),
) -> Move:
    """End a run that nobody works on; `also` what goes with it, slots and orders.

    `records` are the keys it lies in, with the revisions seen (request, wait, or message with a claim that is
    absent, 0, or released; or accepted); they go, the outcome comes. Attempt 0 means it never had an attempt.
    `also`: what else goes, whatever it says: orders about the run, its callee's last sign of life.
    """
    slot: int | str = outcome.attempt or "end"
    gone = (key for key, revision in records.items() if revision)
    return Move(
        {keys.run_in(request): request_seen, **records},
        puts={keys.out(outcome.run, slot): outcome.encode()},
        deletes=(keys.run_in(request), *gone, *also),
    )


def order(
    keys: Keys, request: str, *, request_seen: int, run: str, node: str, claim_key: str, claim_seen: int, value: bytes
) -> Move:
    """Tell the node that holds the run to stop it; the order stays until the run ends."""
    return Move(
        {keys.run_in(request): request_seen, claim_key: claim_seen},
        puts={keys.cmd(node, run): value},
        deletes=(keys.run_in(request),),
    )


def drop(keys: Keys, request: str, *, request_seen: int) -> Move:
    """Take off a request that has nothing to do any more: its run has ended, or is under way already."""
    key = keys.run_in(request)
    return Move({key: request_seen}, deletes=(key,))
