"""Unhold: a person lets a run go on that waits because its node was lost after the work had started."""

from __future__ import annotations

from dataclasses import replace

from crony.domain.run import Wait, WaitReason
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def unhold(keys: Keys, request: str, *, request_seen: int, wait: Wait, wait_seen: int, detail: str) -> Move:
    """The run on hold becomes one that waits for a node, with its next attempt; the request goes."""
    key = keys.run_wait(wait.run)
    free = replace(wait, reason=WaitReason.REROUTE.value, due_at=0.0, detail=detail)
    return Move(
        {keys.run_in(request): request_seen, key: wait_seen},
        puts={key: free.encode()},
        deletes=(keys.run_in(request),),
    )
