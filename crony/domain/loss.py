"""What becomes of a run whose attempt was lost: its node went, or the process that ran it."""

from __future__ import annotations

from enum import Enum

from crony.domain.run import Envelope

LOSSES = 5
"""Nodes that one run may take with it before it is given up (N3)."""
DELIVERIES = 5
"""Times an attempt may be delivered in vain, to nodes or processes that were lost before it started."""


def given_up(losses: int) -> str:
    """Why a run ends that has cost too many nodes."""
    return f"given up: {losses} nodes were lost while they ran it"


class Next(Enum):
    """What follows a loss."""

    AGAIN = "again"  # another attempt
    ELSEWHERE = "elsewhere"  # it did not start: the same attempt goes to another node
    HOLD = "hold"  # a person decides
    END = "end"


def after_loss(told: Envelope, *, started: bool) -> Next:
    """What the loss of the node that held an attempt means for its run.

    `started`: its claim says so; of work that needs no permit nobody knows, and it counts as started.
    """
    if told.needs_permit and not started:
        return Next.ELSEWHERE
    if told.delivery == "at_most_once" or told.on_node_loss == "fail":
        return Next.END
    if told.on_node_loss == "hold":
        return Next.HOLD
    return Next.END if told.losses + 1 >= LOSSES else Next.AGAIN
