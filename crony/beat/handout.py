"""What decided runs become: messages for nodes, records that wait or have parts, records of what was let pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from crony.beat import policy
from crony.beat.desk import Desk, NotSplit
from crony.domain import ids
from crony.domain.join import Join
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome
from crony.domain.run import Envelope, Trigger, Wait, WaitReason
from crony.lifecycle.end import outcome_of
from crony.lifecycle.move import Dispatch
from crony.lifecycle.skip import skipped_fires

IN_LINE = "its turn comes when what is under way has ended"


@dataclass(slots=True)
class Handed:
    """What became of some runs, each in one of the lists."""

    dispatches: list[Dispatch] = field(default_factory=list)
    waits: list[Wait | Join] = field(default_factory=list)
    skips: list[Outcome] = field(default_factory=list)


def hand(desk: Desk, envelope: Envelope, now: float, into: Handed | None = None) -> Handed:
    """A run whose turn it is: for the best node, into parts, or waiting for a slot or a node. `into`: beside others."""
    into = into or Handed()
    if envelope.splits:
        try:
            into.waits.append(desk.split(envelope, at=now))
        except NotSplit as error:
            into.skips.append(not_split(envelope, error, now))
        return into
    placed = desk.place(envelope, at=now)
    if isinstance(placed, Dispatch):
        into.dispatches.append(placed)
    else:
        into.waits.append(placed)
    return into


def hand_out(
    desk: Desk,
    live: LiveJob,
    instants: Iterable[int],
    now: float,
    ready: Callable[[str], Dispatch | None] = lambda run: None,
) -> Handed:
    """The fires of a job, in order; `ready` may know the message of a run."""
    handed = Handed()
    for instant in instants:
        found = ready(ids.fire_run_id(live.id, live.generation, instant))
        if found is not None:
            handed.dispatches.append(found)
        else:
            hand(desk, draft_fire(desk, live, instant, now), now, handed)
    return handed


def line_up(desk: Desk, live: LiveJob, instants: Iterable[int], now: float) -> list[Wait]:
    """The fires of a job that wait for their turn, in order."""
    drafts = (draft_fire(desk, live, instant, now) for instant in instants)
    return [desk.park(draft, WaitReason.OVERLAP.value, at=now, detail=IN_LINE) for draft in drafts]


def skip_record(live: LiveJob, skip: policy.Skipped, now: float) -> Outcome:
    """What is kept of instants that the policy lets pass."""
    return skipped_fires(live, skip.reason, skip.detail, first=skip.first, last=skip.last, count=skip.count, at=now)


def not_split(envelope: Envelope, error: NotSplit, now: float) -> Outcome:
    """What is kept of a run that cannot be carried out in parts now."""
    facts = {"attempt": 0, "reason": error.reason.value, "detail": error.detail}
    return outcome_of(envelope, Kind.SKIPPED, ended_at=now, fence=0, final=True, held=False, **facts)


def draft_fire(desk: Desk, live: LiveJob, instant: int, now: float) -> Envelope:
    """The first attempt of the run that a fire becomes; addressed to nobody yet."""
    run = ids.fire_run_id(live.id, live.generation, instant)
    return desk.draft(live, run, trigger=Trigger.SCHEDULE.value, at=now, fire_at=instant)
