"""Displace (part of 5, 6 and 7): a run with `cancel_previous` makes those before it go, in the step that parks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crony.domain.outcome import Outcome
from crony.domain.run import Request
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def displace(keys: Keys, cancels: Mapping[str, Request], ended: Iterable[tuple[Outcome, int]]) -> Move:
    """Ask for the `cancels`, by request id, and end runs that wait for their turn, each with the revision of its record
    as seen. What is cancelled ends as any cancelled run does, in its own time."""
    puts = {keys.run_in(ident): request.encode() for ident, request in cancels.items()}
    seen: dict[str, int] = {}
    for outcome, revision in ended:
        puts[keys.out(outcome.run, 0)] = outcome.encode()
        seen[keys.run_wait(outcome.run)] = revision
    return Move(seen, puts=puts, deletes=tuple(seen))
