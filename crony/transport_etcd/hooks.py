"""Where a node tells the transport what it knows and the transport does not. Each is a plain module variable.

`crony`, the first argument of the hooks about a message, is what the transport put into `properties["crony"]`:
queue, place, fence, incarnation and count of the claim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from typing import Any

let_go: Callable[[dict[str, Any], bytes], None] | None = None
"""Called (from a background thread) when Celery let go of a message of a run queue, by ack or reject, but its claim
is still there: nobody ended the attempt, so the node must. Arguments: the claim, the stored message."""

ended: Callable[[dict[str, Any]], bool] | None = None
"""Asked (from a background thread) before that is looked up: whether this process itself has ended the attempt, and
etcd has confirmed it. Asked once for each."""

requeued: Callable[[dict[str, Any], bytes], bool] | None = None
"""Asked (from a background thread) before a message of a run queue that had been delivered is given back because of
`reject(requeue=True)` - a lost pool child, say. True: dealt with, the claim stays. False or no hook: claim released."""

node: str = ""
"""Stable name of this node, written into its claims. Empty where the process is no node."""

may_claim: Callable[[str], bool] | None = None
"""Asked before claiming from a queue: False while the node is draining or cut. No hook: always."""


loop_moved: Callable[[], None] | None = None
"""Called from the thread that waits for messages, each time it begins to wait anew."""


class _Everything:
    """Contains every tag: when in doubt, nothing is given back."""

    def __contains__(self, tag: object) -> bool:
        return True


def _in_pool() -> Container[str]:
    state = sys.modules.get("celery.worker.state")
    if state is None:
        return frozenset()
    for _ in range(10):
        try:
            held = [*state.reserved_requests, *state.active_requests]
        except RuntimeError:  # the worker's loop changed a set meanwhile
            continue
        return {request.message.delivery_tag for request in held if getattr(request, "message", None) is not None}
    return _Everything()


in_pool: Callable[[], Container[str]] = _in_pool
"""Delivery tags of messages that were handed to the worker's pool and are not done: their claims are never given
back behind the pool's back. Default: what Celery's worker state says."""
