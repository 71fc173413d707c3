"""Take over (transaction 13): claimed work of a node that stayed away longer than the grace."""

from __future__ import annotations

from collections.abc import Iterable

from crony.domain.outcome import Outcome
from crony.domain.run import Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def takeover(
    keys: Keys,
    queue: str,
    place: str,
    *,
    incarnation: str,
    message_seen: int,
    claim_seen: int,
    outcome: Outcome | None,
    wait: Wait | None,
    orders: Iterable[str] = (),
    slots: Iterable[str] = (),
) -> Move:
    """Take the attempt from its holder while that one's session is absent and its claim unchanged.

    `outcome` is how the attempt ended; None when it never started. `wait` is how the run goes on; None when it ends
    here (then `orders` about it go too). `slots` are those it holds. The holder's own end or permit, coming later,
    finds its claim gone.
    """
    message, claim = keys.message(queue, place), keys.claim(queue, place)
    puts = {} if outcome is None else {keys.out(outcome.run, outcome.attempt): outcome.encode()}
    if wait is not None:
        puts[keys.run_wait(wait.run)] = wait.encode()
    return Move(
        {message: message_seen, claim: claim_seen},
        gone=frozenset({incarnation}),
        puts=puts,
        deletes=(message, claim, *orders, *slots),
    )
