"""Re-route (transaction 14): unstarted work of a node that is lost, drained or leaving goes back to waiting."""

from __future__ import annotations

from collections.abc import Iterable

from crony.domain.run import Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def reroute(
    keys: Keys,
    queue: str,
    place: str,
    *,
    message_seen: int,
    claim_seen: int,
    wait: Wait,
    lost: str = "",
    told: tuple[str, int] | None = None,
    slots: Iterable[str] = (),
) -> Move:
    """Take the message back, the attempt's number and its `slots` with it.

    `claim_seen` is 0 or the revision of a released claim: a node that claims meanwhile wins. The cause is either
    the `lost` incarnation, whose session must be absent, or what `told` so, as (key, revision): the node's control
    record that drains it, or its own record that says it is leaving.
    """
    message, claim = keys.message(queue, place), keys.claim(queue, place)
    seen = {message: message_seen, claim: claim_seen}
    if told is not None:
        seen[told[0]] = told[1]
    return Move(
        seen,
        gone=frozenset({lost}) if lost else frozenset(),
        puts={keys.run_wait(wait.run): wait.encode()},
        deletes=(message, *((claim,) if claim_seen else ()), *slots),
    )


def renew(keys: Keys, queue: str, place: str, *, message_seen: int, claim_seen: int, value: bytes) -> Move:
    """Seal a message again that waited so long that its envelope runs out."""
    message, claim = keys.message(queue, place), keys.claim(queue, place)
    return Move({message: message_seen, claim: claim_seen}, puts={message: value})
