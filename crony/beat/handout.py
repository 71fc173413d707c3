"""What decided instants of a job become: messages for nodes, records that wait, records of what was let pass."""

from __future__ import annotations

from collections.abc import Iterable

from crony.beat import policy
from crony.beat.desk import Desk
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Outcome
from crony.domain.run import Trigger, Wait, WaitReason
from crony.lifecycle.move import Dispatch
from crony.lifecycle.skip import skipped_fires

IN_LINE = "its turn comes when what is under way has ended"


def hand_out(desk: Desk, live: LiveJob, instants: Iterable[int], now: float) -> tuple[list[Dispatch], list[Wait]]:
    """The fires of a job, each for the best node, or waiting for a slot or a node."""
    dispatches: list[Dispatch] = []
    waits: list[Wait] = []
    for instant in instants:
        run = ids.fire_run_id(live.id, live.generation, instant)
        envelope = desk.draft(live, run, trigger=Trigger.SCHEDULE.value, at=now, fire_at=instant)
        placed = desk.place(envelope, at=now)
        if isinstance(placed, Dispatch):
            dispatches.append(placed)
        else:
            waits.append(placed)
    return dispatches, waits


def line_up(desk: Desk, live: LiveJob, instants: Iterable[int], now: float) -> list[Wait]:
    """The fires of a job that wait for their turn, in order."""
    drafts = (
        desk.draft(live, ids.fire_run_id(live.id, live.generation, instant), trigger=Trigger.SCHEDULE.value, at=now,
                   fire_at=instant)
        for instant in instants
    )  # fmt: skip
    return [desk.park(draft, WaitReason.OVERLAP.value, at=now, detail=IN_LINE) for draft in drafts]


def skip_record(live: LiveJob, skip: policy.Skipped, now: float) -> Outcome:
    """What is kept of instants that the policy lets pass."""
    return skipped_fires(live, skip.reason, skip.detail, first=skip.first, last=skip.last, count=skip.count, at=now)
