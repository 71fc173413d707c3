"""What becomes of everything a job has due, as a pure decision: which instants run, which are skipped and why.

An instant is late when it is decided more than `misfire.after` after its time. What is not late is dispatched as
itself. Late ones follow the job's policy: `fire_once` runs the latest of all that is due and skips the others,
`fire_all` runs each (the first `AT_ONCE` now, the rest as a backfill), `skip` runs none; nothing older than
`misfire.within` runs. Then overlap decides whose turn it is: see `turns`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crony.clock import rfc3339
from crony.domain.job import Job
from crony.domain.livejob import LiveJob
from crony.domain.outcome import SkipReason

AT_ONCE = 20
"""Most runs of one job in one transaction (S6)."""
MESSAGES = 250 * 1024
"""Most bytes, about, of the messages of one decision: large documents go out fewer at a time."""
WRITES = 50
"""Most messages and slots that one decision puts; each slot is a compare as well, and a transaction has 100 writes for
this, the ends that a backfill counts, and the records of what is skipped."""
UNKNOWN = -1
SLICE = 5000
"""Most instants looked at in one decision; the next decision goes on from there."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A range of due instants that become no run, for one reason."""

    reason: SkipReason
    first: int
    last: int
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision over everything due up to `upto`, the last instant it covers."""

    upto: int
    fires: tuple[int, ...] = ()
    waits: tuple[int, ...] = ()
    """Instants whose runs wait for their turn, behind the run that is alive."""
    skips: tuple[Skipped, ...] = ()
    rest: tuple[int, ...] = ()
    """Instants left to a backfill."""
    following: int | None = field(default=UNKNOWN, compare=False)
    """What is due next after `upto` by the same schedules; UNKNOWN: it was not looked at."""


def at_once(document: int, most: int = AT_ONCE, pools: int = 0) -> int:
    """How many runs of a job whose sealed document has so many bytes, and which needs a slot of so many pools, fit one
    decision, `most` at most."""
    return max(1, min(most, MESSAGES // (2 * document + 500), WRITES // (1 + pools)))


REPLACED = "a later one took its place"


class Turns(NamedTuple):
    """What overlap makes of instants that are to run, each in order."""

    go: Sequence[int]
    wait: Sequence[int]
    """They stand in line until what is alive has ended."""
    over: Sequence[int]
    """They become a skip record."""
    later: Sequence[int]
    """No room in this decision."""


def places(job: Job | None) -> int:
    """How many runs of a job may wait for their turn; of a job that cannot be read, none."""
    if job is None:
        return 0
    return {"queue_one": 1, "queue_all": job.overlap_limit}.get(job.overlap, 0)


def may_wait(job: Job | None, waiting: int) -> bool:
    """Whether a new run may wait for its turn behind so many others, instead of being skipped."""
    return waiting < places(job) or (job is not None and job.overlap == "cancel_previous")


def turns(job: Job, instants: Sequence[int], *, busy: bool, waiting: int, most: int) -> Turns:
    """Whose turn it is. `busy`: a run of the job is alive, `waiting` of them stand in line; at most `most` run or
    wait by one decision.

    With `allow` all go. Otherwise the first goes if nothing is alive; with `queue_one` and `queue_all` those behind it
    stand in line as long as there is a place. Who stands there stays: it is the newcomer that is skipped. With
    `cancel_previous` it is the other way round: the last one takes the place of all before it, also of those alive.
    """
    if job.overlap == "allow":
        return Turns(instants[:most], (), (), instants[most:])
    if job.overlap == "cancel_previous":
        newest, over = instants[-1:], instants[:-1]
        return Turns((), newest, over, ()) if busy else Turns(newest, (), over, ())
    free = 0 if busy else 1
    takes = free + max(0, places(job) - waiting)
    taken, over, later = instants[:takes], instants[takes:], instants[:0]
    if len(taken) > most:
        taken, over, later = taken[:most], (), instants[most:]
    return Turns(taken[:free], taken[free:], over, later)


def decide(
    live: LiveJob, done: int, now: float, *, busy: str = "", waiting: int = 0, most: int = AT_ONCE
) -> Plan | None:
    """What to do about the instants in (done, now]; None: nothing is due.

    `busy` names a live run of the job (empty: none), `waiting` says how many wait for their turn. At most `most` runs
    are made and `SLICE` instants looked at in one decision, however many are skipped.
    """
    job, first = live.job, live.next_due(done)
    if first is None or first > now:
        return None
    skips: list[Skipped | None] = []
    late_to = max(done, math.ceil(now - job.misfire.after) - 1)
    if first > late_to and not live.replaced and not live.paused_until and most:
        following = live.next_due(first)
        if following is None or following > now:  # nearly always: one instant, and on time
            taken = turns(job, (first,), busy=bool(busy), waiting=waiting, most=most)
            over = _overlapping(job, taken.over, busy)
            return Plan(first, tuple(taken.go), tuple(taken.wait), (over,) if over else (), (), following)
    current = live.due_between(max(late_to, first - 1), math.floor(now), SLICE)
    late: list[int] = []
    if first <= late_to:
        late, missed_to = _late(live, done, late_to, now, nothing_else=not current)
        skips.append(_missed(live, done, missed_to))
    if len(late) == SLICE:
        current = []  # they follow in the next decision
    covered = [*(skip.last for skip in skips if skip), *late[-1:], *current[-1:]]
    if not covered:
        return None
    upto, chosen = covered[-1], late + current
    rest: tuple[int, ...] = ()
    taken = turns(job, chosen, busy=bool(busy), waiting=waiting, most=most)
    skips.append(_overlapping(job, taken.over, busy or (f"the fire of {rfc3339(taken.go[0])}" if taken.go else "")))
    if taken.later:
        if job.overlap == "allow":
            rest = tuple(instant for instant in taken.later if instant <= late_to)
        if len(rest) < len(taken.later):  # what is not late is dispatched as itself, by the decision that follows
            upto = late[-1] if rest else [*taken.go, *taken.wait][-1]
    skips.append(_paused(live, done, upto))
    return Plan(upto, tuple(taken.go), tuple(taken.wait), tuple(skip for skip in skips if skip is not None), rest)


def _late(live: LiveJob, done: int, late_to: int, now: float, *, nothing_else: bool) -> tuple[list[int], int]:
    """Late instants to run, in order, and up to where the ones before them are missed."""
    misfire = live.job.misfire
    oldest = max(done, math.ceil(now - misfire.within) - 1)
    if misfire.policy == "fire_all":
        return live.due_between(min(oldest, late_to), late_to, SLICE), min(oldest, late_to)
    if misfire.policy == "fire_once" and nothing_else:
        last = live.last_due(done, late_to)
        if last is not None and last > oldest:
            return [last], last - 1
    return [], late_to


def _missed(live: LiveJob, done: int, until: int) -> Skipped | None:
    """The record of everything due in (done, until]."""
    first = live.next_due(done)
    last = live.last_due(done, until)
    if first is None or last is None or first > until:
        return None
    count = live.count(done, until)
    more = "at least this many; " if count.capped else ""
    misfire = live.job.misfire
    rule = {"fire_once": "only the latest runs", "fire_all": "each one runs", "skip": "late fires do not run"}
    within = "" if misfire.policy == "skip" else f", at most {misfire.within:g} s old"
    detail = f"{more}decided more than {misfire.after:g} s late; {rule[misfire.policy]}{within}"
    return Skipped(SkipReason.MISFIRE, first, last, int(count), detail)


def _paused(live: LiveJob, done: int, upto: int) -> Skipped | None:
    """The record of what a pause kept from being due: one that ended by itself, or before which something else was
    still to be decided."""
    found = live.passed_over(done, upto)
    if found is None:
        return None
    by_hand = any(not item.enabled for item in live.replaced)
    return Skipped(SkipReason.PAUSED, *found[:2], int(found[2]), "" if by_hand else "paused until a set time")


def _overlapping(job: Job, instants: Sequence[int], other: str) -> Skipped | None:
    if not instants:
        return None
    return Skipped(SkipReason.OVERLAP, instants[0], instants[-1], len(instants), in_the_way(job, other))


def in_the_way(job: Job | None, other: str) -> str:
    """Why a run that found the run `other` alive is skipped."""
    if job is not None and job.overlap == "cancel_previous":
        return REPLACED
    if places(job):
        return f"no place in line was free (limit {places(job)})"
    return f"{other} was still under way"
