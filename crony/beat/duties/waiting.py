"""Waiting runs: retries after their delay, delayed starts, runs in line, for which no node fitted, re-routed ones (7).

A wait is looked at when it comes, when it is due, and when the fleet changes. Whatever is released carries an envelope
that a centre sealed before: the parked one is opened with the centres' keys first (A3).
"""

from __future__ import annotations

import heapq
import logging
import math
from dataclasses import replace

from crony.beat import policy
from crony.beat.commit import Step, Verdict
from crony.beat.desk import NotSplit
from crony.beat.duties.cancelling import make_room
from crony.beat.entries import JobEntry
from crony.beat.entries import Waiting as Waits
from crony.beat.handout import IN_LINE, not_split
from crony.beat.office import Office
from crony.domain.job import Job
from crony.domain.loss import DELIVERIES, LOSSES, given_up
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.queues import node_of
from crony.domain.record import UnknownRecord
from crony.domain.retry import delay
from crony.domain.routing import Strategy
from crony.domain.run import Envelope, Wait, WaitReason
from crony.domain.signing import BadSeal, peek
from crony.errors import Invalid
from crony.lifecycle.end import is_held, outcome_of, without_envelope
from crony.lifecycle.move import Dispatch, Move
from crony.lifecycle.release import finish, park, release
from crony.lifecycle.split import split

log = logging.getLogger("crony.beat")

PATIENCE = 60.0
"""Seconds that a part of a broadcast waits for its own node: longer than a restart takes."""
RETELL = 10.0
"""Seconds between two changes of what a waiting run's record says of the nodes: a fleet may change often."""


class Waiting:
    """The duty on `run/wait/`."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._ready: dict[str, None] = {}
        self._heap: list[tuple[float, str]] = []
        self._turns: dict[str, None] = {}
        """Runs that were called from the lines of pools, in order."""
        self._fleet = -1
        self._told: dict[str, float] = {}
        """Run -> monotonic time at which its record was last told why no node fits."""

    def work(self) -> float | None:
        """Release or end what can be."""
        office, book = self._office, self._office.book
        now = office.wall()
        for run in book.news.waits:
            if run in book.waits:
                self._ready[run] = None
        book.news.waits.clear()
        if self._fleet != book.fleet:
            self._fleet = book.fleet
            self._ready |= {run: None for run, waiting in book.waits.items() if waiting.stuck not in (-1, book.fleet)}
        while self._heap and self._heap[0][0] <= now:
            self._ready[heapq.heappop(self._heap)[1]] = None
            book.pools.news = True  # if it was one in line that had to rest
        if not office.holds and not book.stopped:
            if book.pools.news:
                book.pools.news = False
                self._turns = dict.fromkeys(book.pools.turns(lambda run: self._rested(run, now)))
                self._ready |= self._turns
            while self._ready and office.committer.free(office.mono()):
                steps = self._some(now)
                if not steps:
                    break
                office.committer.send("release", steps, control_seen=book.seen(office.keys.control))
        return max(0.0, self._heap[0][0] - office.wall()) if self._heap else None

    def _some(self, now: float) -> list[Step]:
        steps: list[Step] = []
        while self._ready and len(steps) < self._office.committer.limit("release"):
            run = next(iter(self._ready))
            del self._ready[run]
            waiting = self._office.book.waits.get(run)
            if waiting is None or waiting.busy or not self._its_turn(waiting):
                continue
            try:
                ordered = self._office.book.orders.get(run)  # to stop: it does not sit out its back-off first
                due = max(0.0 if ordered else self._due(waiting, now), waiting.rest_until)
                if due > now:
                    heapq.heappush(self._heap, (due, run))
                    continue
                step = self._one(waiting, now)
            except Exception:
                log.exception("the waiting run %s cannot be decided; it goes on waiting", run)
                waiting.rest_until = now + 60
                heapq.heappush(self._heap, (now + 60, run))
                continue
            if step is not None:
                steps.append(step)
        return steps

    def _rested(self, run: str, now: float) -> bool:
        waiting = self._office.book.waits.get(run)
        return waiting is not None and not waiting.busy and waiting.rest_until <= now

    def _its_turn(self, waiting: Waits) -> bool:
        """Whether it may be looked at: one in line for a slot waits until it is called, or has to end."""
        in_line = waiting.wait is not None and waiting.wait.reason == WaitReason.POOL
        ends = waiting.impossible or self._office.book.orders.get(waiting.run)
        return not in_line or bool(ends) or waiting.run in self._turns

    def _due(self, waiting: Waits, now: float) -> float:
        """Wall clock instant before which it stays; 0: at once, also for one that cannot be read."""
        if waiting.due_at is None:
            waiting.due_at = 0.0
            wait = waiting.wait
            if wait is not None and wait.due_at:
                waiting.due_at = _instant(wait.due_at)
            elif wait is not None and wait.reason == WaitReason.ENDED:
                try:
                    retry = peek(wait.envelope)["retry"]
                    # The end was stamped by the node's clock; one that is ahead must not prolong the wait.
                    asked = float(wait.retry_after)
                    waiting.due_at = min(_instant(wait.since_at), now) + delay(retry, wait.finished, waiting.run, asked)
                except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
                    pass
        return waiting.due_at

    # -- one run -------------------------------------------------------------------------------

    def _one(self, waiting: Waits, now: float) -> Step | None:
        office, wait = self._office, waiting.wait
        try:
            if wait is None:
                raise UnknownRecord("its waiting record cannot be read")
            told = office.desk.open(wait.envelope)
            if told.run != waiting.run or told.attempt not in (wait.finished, wait.finished + 1):
                raise BadSeal("its envelope is of another run or attempt")
        except (BadSeal, UnknownRecord) as error:
            log.error("the waiting run %s is ended: %s", waiting.run, error)
            return self._finish(waiting, without_envelope(waiting.run, str(error), now))
        told = replace(told, attempt=wait.finished + 1, avoid=wait.avoid)
        told = replace(told, deliveries=wait.deliveries, losses=wait.losses)
        if waiting.impossible:
            return self._finish(waiting, self._end(told, wait.finished, Kind.REFUSED, waiting.impossible, now))
        if office.book.orders.get(waiting.run):
            return self._finish(waiting, self._end(told, wait.finished, Kind.CANCELLED, "cancelled", now))
        if wait.reason == WaitReason.ENDED:
            ended = self._after_an_attempt(waiting, wait, told, now)
            if ended is not None:
                return ended
        if wait.reason == WaitReason.REROUTE and wait.deliveries > DELIVERIES:
            reason = f"given up: delivered {wait.deliveries} times and never started; {wait.detail}"
            return self._finish(waiting, self._end(told, wait.finished, Kind.REFUSED, reason, now))
        entry, owner = None, None
        if not _implicit(told):
            entry, owner = office.book.jobs.get(told.job), office.owner(told.job)
            if self._deleted(entry):
                return self._finish(waiting, self._end(told, wait.finished, Kind.CANCELLED, "its job was deleted", now))
        if wait.reason == WaitReason.HOLD:
            return None  # until a person lets it go on or cancels it
        exclusive = None
        if entry is not None and self._minds_others(entry, told, wait):
            if entry.limbo or (entry.busy and waiting.blocks is not entry):
                heapq.heappush(self._heap, (now + 0.02, waiting.run))
                return None
            others = office.book.live(told.job)
            if wait.reason == WaitReason.OVERLAP and office.book.turn(told.job) != waiting.run:
                return None  # looked at again when one of them has ended
            if wait.reason == WaitReason.DELAY and others:
                return self._behind(waiting, told, entry, others[0], now)
            exclusive = entry
        if told.splits:
            return self._split(waiting, told, owner, exclusive, now)
        slots = office.book.pools.enter(told.pools, in_turn=wait.reason == WaitReason.POOL)
        if slots is None:
            return self._for_a_slot(waiting, wait, told, exclusive)
        dispatch = office.desk.address(told, wait.avoid, slots=slots)
        if dispatch is None:
            return self._stuck(waiting, told, exclusive)
        before = wait.node or node_of(told.queue)
        move = release(
            office.keys,
            waiting.run,
            wait_seen=waiting.seen,
            job=owner,
            cancel_key=office.keys.cmd(before, waiting.run) if before else "",
            dispatch=dispatch,
        )
        return self._step(waiting, move, dispatch=dispatch, exclusive=exclusive)

    def _after_an_attempt(self, waiting: Waits, wait: Wait, told: Envelope, now: float) -> Step | None:
        """Its attempt just ended. None: another one follows."""
        if is_held(told, wait.outcome):
            held = replace(wait, reason=WaitReason.HOLD.value, due_at=0.0)
            return self._step(waiting, park(self._office.keys, held, wait_seen=waiting.seen))
        kind = Kind(wait.outcome) if wait.outcome in set(Kind) else Kind.FAILED
        reason = ""
        if told.delivery == "at_most_once":
            reason = "it may have run, and must not run twice"
        elif wait.losses >= LOSSES:
            kind, reason = Kind.LOST, given_up(wait.losses)
        elif kind is not Kind.LOST and wait.finished > int(told.retry.get("max", 0)):
            reason = "no attempts are left"
        return self._finish(waiting, self._end(told, wait.finished, kind, reason, now)) if reason else None

    def _split(
        self, waiting: Waits, told: Envelope, owner: tuple[str, int] | None, exclusive: JobEntry | None, now: float
    ) -> Step:
        """Its turn has come, and it is to be carried out in parts."""
        office = self._office
        try:
            join = office.desk.split(told, at=now)
        except NotSplit as error:
            return self._finish(waiting, not_split(told, error, now), count="skipped")
        return self._step(waiting, split(office.keys, join, wait_seen=waiting.seen, job=owner), exclusive=exclusive)

    def _minds_others(self, entry: JobEntry, told: Envelope, wait: Wait) -> bool:
        """Whether it may start only while nothing else of its job is alive."""
        if wait.reason == WaitReason.DELAY:
            return told.overlap != "allow"
        job = self._job(entry)
        return wait.reason == WaitReason.OVERLAP and (job is None or job.overlap != "allow")

    def _job(self, entry: JobEntry) -> Job | None:
        """What its job says now; None when that cannot be read."""
        try:
            return entry.document(self._office.webs).job
        except (BadSeal, UnknownRecord, Invalid):
            return None

    def _behind(self, waiting: Waits, told: Envelope, entry: JobEntry, other: str, now: float) -> Step:
        """The moment its caller chose has come, and another run is alive: it stands in line, or is skipped."""
        office, wait, job = self._office, waiting.wait, self._job(entry)
        assert wait is not None
        if policy.may_wait(job, len(office.book.line(told.job))):
            parked = replace(wait, reason=WaitReason.OVERLAP.value, since_at=now, due_at=0.0, detail=IN_LINE)
            move = park(office.keys, parked, wait_seen=waiting.seen)
            if job is not None and job.overlap == "cancel_previous":
                move = move.also(make_room(office, told.job, now))
            return self._step(waiting, move, exclusive=entry)
        skip = outcome_of(told, Kind.SKIPPED, ended_at=now, fence=0, final=True, attempt=0)
        skip = replace(skip, reason=SkipReason.OVERLAP.value, detail=policy.in_the_way(job, other))
        return self._finish(waiting, skip, count="skipped")

    def _for_a_slot(self, waiting: Waits, wait: Wait, told: Envelope, exclusive: JobEntry | None) -> Step | None:
        """A pool of its job has no slot for it now: it stands in line, as old as it is."""
        if wait.reason == WaitReason.POOL:
            return None  # looked at again when it is its turn
        why = self._office.book.pools.why(told.pools)
        parked = replace(wait, reason=WaitReason.POOL.value, due_at=0.0, detail=why)
        return self._step(waiting, park(self._office.keys, parked, wait_seen=waiting.seen), exclusive=exclusive)

    def _deleted(self, entry: JobEntry | None) -> bool:
        if entry is None or not entry.seen:
            return True
        try:
            return entry.document(self._office.webs).deleted
        except (BadSeal, UnknownRecord):
            return False  # the run carries its own sealed envelope; the document decides about new ones only

    def _stuck(self, waiting: Waits, told: Envelope, exclusive: JobEntry | None) -> Step | None:
        """Nobody fits: say so in the record, anew when the reasons changed, and look again when the fleet changes."""
        office, wait = self._office, waiting.wait
        waiting.stuck = office.book.fleet
        assert wait is not None
        why = office.desk.why_nobody(told)
        since, now = wait.since_at, office.wall()
        if told.strategy == Strategy.BROADCAST and wait.reason != WaitReason.NO_NODE:
            since = now  # from here on it waits for its own node
        elif told.strategy == Strategy.BROADCAST:
            if since + PATIENCE <= now:
                reason = f"its node did not come back within {PATIENCE:g} s; {why}"
                return self._finish(waiting, self._end(told, wait.finished, Kind.LOST, reason, now))
            heapq.heappush(self._heap, (since + PATIENCE, waiting.run))
        if wait.reason == WaitReason.NO_NODE:
            if wait.detail == why:
                return None
            if office.mono() < self._told.get(waiting.run, -RETELL) + RETELL:
                heapq.heappush(self._heap, (office.wall() + RETELL, waiting.run))
                return None
        if len(self._told) > 2 * len(office.book.waits) + 100:
            self._told = {run: at for run, at in self._told.items() if run in office.book.waits}
        self._told[waiting.run] = office.mono()
        parked = replace(wait, reason=WaitReason.NO_NODE.value, since_at=since, due_at=0.0, detail=why)
        return self._step(waiting, park(office.keys, parked, wait_seen=waiting.seen), exclusive=exclusive)

    def _end(self, told: Envelope, finished: int, kind: Kind, reason: str, now: float) -> Outcome:
        return replace(outcome_of(told, kind, ended_at=now, fence=0, final=True, reason=reason), attempt=finished)

    def _finish(self, waiting: Waits, outcome: Outcome, *, count: str = "ended") -> Step:
        orders = tuple(self._office.book.orders.get(waiting.run, ()))
        move = finish(self._office.keys, outcome, wait_seen=waiting.seen, orders=orders)
        return self._step(waiting, move, count=count)

    def _step(
        self,
        waiting: Waits,
        move: Move,
        *,
        dispatch: Dispatch | None = None,
        exclusive: JobEntry | None = None,
        count: str = "",
    ) -> Step:
        waiting.busy = True
        if exclusive is not None:
            exclusive.busy = True

        def settle(verdict: Verdict) -> None:
            office = self._office
            waiting.busy = False
            if verdict is Verdict.LIMBO and office.book.waits.get(waiting.run) is waiting:
                waiting.blocks = exclusive  # until the record changes: the run may start at any moment
            if exclusive is not None and (verdict is Verdict.DONE or waiting.blocks is None):
                exclusive.busy, waiting.blocks = False, None
                office.book.news.jobs.add(exclusive.id)
            if verdict is Verdict.DONE:
                office.sent([dispatch] if dispatch else ())
                if count:
                    office.counts[count] += 1
            elif waiting.run in office.book.waits:
                hopeless = verdict is Verdict.IMPOSSIBLE
                waiting.rest_until = office.wall() + (60.0 if hopeless and waiting.impossible else 0.05)
                if hopeless:
                    waiting.impossible = "it is too large for one message"
                heapq.heappush(self._heap, (waiting.rest_until, waiting.run))

        return Step(move, settle)


def _instant(given: float) -> float:
    """A record's instant; 0 for what is none: whoever ends an attempt writes such records."""
    try:
        instant = float(given)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return instant if math.isfinite(instant) else 0.0


def _implicit(told: Envelope) -> bool:
    """Whether its job is the implicit one of a task, which has no key."""
    return told.generation == 0 and told.job.startswith("t")
