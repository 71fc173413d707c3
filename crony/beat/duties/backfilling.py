"""Backfills: the next runs of each, as many as may be alive, and its counts, in one step of its record (6).

What was asked for and what a `fire_all` left over are moved alike; the first knows nothing of overlap and is bounded
by its own `parallel`, the second are the job's own fires and follow its rules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from crony.beat import policy
from crony.beat.commit import Step, Verdict
from crony.beat.duties import cancelling
from crony.beat.duties.lookup import Later, Refused, published
from crony.beat.entries import Asked, Filling, JobEntry
from crony.beat.handout import Handed, hand, hand_out, line_up, skip_record
from crony.beat.office import Office
from crony.beat.sorting import filled_by
from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.backfill import KEPT, MOST, PARALLEL, Backfill, Stop
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.run import Request, Trigger
from crony.errors import Invalid
from crony.lifecycle.backfill import advance, forget
from crony.lifecycle.move import Dispatch, Move

log = logging.getLogger("crony.beat")

LOOK = 60.0
"""Seconds between two looks at all of them."""
ENDS = 40
"""Most ends that one step counts."""


class Backfilling:
    """The duty on `run/backfill/`."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._ready: dict[str, None] = {}
        self._held = False
        self._look_at = 0.0
        self._nowhere: set[str] = set()
        """Backfills that waited for nothing but ends of runs that are nowhere, when all were last looked at."""

    def work(self) -> float | None:
        """Move those that can be moved."""
        office, book = self._office, self._office.book
        held = bool(office.holds) or book.stopped
        look = office.mono() >= self._look_at
        if look or (self._held and not held):
            self._ready |= dict.fromkeys(book.backfills)
        if look:
            self._look_at = office.mono() + LOOK
        self._held = held
        self._ready |= dict.fromkeys(ident for ident in book.news.backfills if ident in book.backfills)
        self._let_go(book.news.backfills - book.backfills.keys())
        book.news.backfills.clear()
        if not self._ready or not office.committer.free(office.mono()):
            return None
        ends, steps, waiting = self._ends(), list[Step](), dict[str, None]()
        while self._ready and len(steps) < office.committer.limit("backfill"):
            ident = next(iter(self._ready))
            del self._ready[ident]
            filling = book.backfills.get(ident)
            if filling is None or filling.busy:
                continue
            if filling.rest_until > office.mono():
                waiting[ident] = None
                continue
            try:
                step = self._one(filling, ends.get(ident, ()), look)
            except (Later, cancelling.Busy):
                filling.rest_until = office.mono() + 0.02
                waiting[ident] = None
                continue
            except Exception:
                log.exception("the backfill %s cannot be moved; it stays", ident)
                filling.rest_until = office.mono() + 60.0
                continue
            if step is not None:
                steps.append(step)
        self._ready |= waiting
        if steps:
            office.committer.send("backfill", steps, control_seen=book.seen(office.keys.control))
        return 0.02 if waiting else None

    def _ends(self) -> dict[str, list[Asked]]:
        """Backfill -> what was told of ends of its runs, in their order."""
        found: dict[str, list[Asked]] = {}
        for asked in sorted(self._office.book.ends.values(), key=lambda asked: asked.id):
            if asked.request is not None and not asked.busy and (ident := filled_by(asked.request.run)):
                found.setdefault(ident, []).append(asked)
        return found

    def _one(self, filling: Filling, ends: Sequence[Asked], look: bool) -> Step | None:
        office, record = self._office, filling.record
        if record is None:
            log.error("the backfill %s cannot be read and is set aside", filling.id)
            key = office.keys.backfill(filling.id)
            move = Move(
                {key: filling.seen}, puts={office.keys.dead("backfill", filling.id): filling.value}, deletes=(key,)
            )
            return self._step(filling, move)
        if record.rest_of_fires:
            return None if self._held else self._rest(filling, record)
        if record.ended and not ends:
            if look and office.wall() - record.ended_at > KEPT:
                return self._step(filling, forget(office.keys, filling.id, seen=filling.seen))
            return None
        return self._asked_for(filling, record, ends[:ENDS], look)

    # -- what somebody asked for ---------------------------------------------------------------

    def _asked_for(self, filling: Filling, record: Backfill, ends: Sequence[Asked], look: bool) -> Step | None:
        """Count ends, make runs, cancel them, end it: whatever of these there is to do, in one step."""
        office, now = self._office, self._office.wall()
        alive = office.book.filled(filling.id)
        after = record
        for asked in () if record.ended else ends:
            assert asked.request is not None
            after = after.told(str(asked.request.outcome))
        handed = Handed()
        free = min(record.parallel, PARALLEL) - len(alive)
        if not after.stop and not after.ended and free > 0 and not (self._held or after.exhausted):
            after = self._more(filling, after, free, handed, now)
        cancels = self._cancels(record, alive, now) if after.stop == Stop.ALL and not after.ended else {}
        made = len(handed.dispatches) + len(handed.waits) + len(handed.skips)
        if not after.ended and not alive and not made and (after.stop or after.reason or after.exhausted):
            after = self._over(after, now, look)
        if after == record and not ends and not cancels:
            return None
        move = advance(
            office.keys,
            after,
            seen=filling.seen,
            job=office.owner(record.job),
            dispatches=handed.dispatches,
            waits=handed.waits,
            skips=handed.skips,
            ends={asked.id: asked.seen for asked in ends},
            cancels=cancels,
        )
        return self._step(filling, move, handed.dispatches, ends=ends)

    def _more(self, filling: Filling, after: Backfill, free: int, handed: Handed, now: float) -> Backfill:
        """The next runs, as many as are free, into `handed`; what is left then, or why it cannot go on."""
        office = self._office
        try:
            if filling.impossible:
                raise Refused(filling.impossible)
            entry, live = published(office, after.job)
            if live.generation != after.generation:
                raise Refused("the job was deleted and created again")
            most = min(free, office.at_once(entry, live), MOST - after.made)
            instants = after.next(most)
        except (Refused, Invalid) as error:
            log.warning("the backfill %s of %s is given up: %s", after.id, after.name, error)
            return replace(after, reason=str(error))
        for instant in instants:
            envelope = office.desk.draft(
                live, after.run_of(instant), trigger=Trigger.BACKFILL.value, at=now, fire_at=instant
            )
            envelope = replace(
                envelope, params={**envelope.params, **after.params}, awaited=True, no_chain=after.no_chain is True
            )
            hand(office.desk, envelope, now, handed)
        after = after.without(instants)
        if len(instants) < most:
            return replace(after, after_at=after.until_at)
        return after

    def _cancels(self, record: Backfill, alive: Iterable[str], now: float) -> dict[str, Request]:
        """Requests to cancel what runs, for each run of which that was not asked."""
        book = self._office.book
        asked = {each.request.run for each in book.requests.values() if each.request and each.request.kind == "cancel"}
        wanted = (run for run in sorted(alive) if run not in asked and run not in book.orders)
        reason = (
            f"its backfill was cancelled by {record.stopped_by}" if record.stopped_by else "its backfill was cancelled"
        )
        return {
            ids.request_id(): Request(
                "cancel", run=run, job=record.job, generation=record.generation, by=record.stopped_by,
                requested_at=now, reason=reason,
            )
            for run in wanted
        }  # fmt: skip

    def _over(self, after: Backfill, now: float, look: bool) -> Backfill:
        """Nothing more starts and nothing runs: it ends when every end was told."""
        if after.alive:
            if not look:
                return after
            if after.id not in self._nowhere:
                self._nowhere.add(after.id)
                return after
            log.error("%d runs of the backfill %s are nowhere, and nobody told how they ended", after.alive, after.id)
            after = replace(after, cancelled=after.cancelled + after.alive)
        self._nowhere.discard(after.id)
        return replace(after, ended_at=now)

    def _let_go(self, gone: Iterable[str]) -> None:
        """Take off what was told of ends of backfills that nobody knows."""
        office, gone = self._office, set(gone) - {""}
        if not gone:
            return
        self._nowhere -= gone
        lost = [asked for ident, told in self._ends().items() if ident in gone for asked in told]
        if lost and office.committer.free(office.mono()):
            told = {office.keys.run_in(asked.id): asked.seen for asked in lost[:ENDS]}
            office.committer.send("backfill", [Step(Move(told, deletes=tuple(told)), lambda verdict: None)])

    # -- the rest of a fire_all ----------------------------------------------------------------

    def _rest(self, filling: Filling, record: Backfill) -> Step | None:
        """The next few fires, by the job's rules."""
        office, now = self._office, self._office.wall()
        if filling.impossible:
            return self._give_up(filling, record, SkipReason.ERROR, filling.impossible)
        try:
            entry, live = published(office, record.job)
        except Refused as error:
            return self._give_up(filling, record, SkipReason.DELETED, str(error))
        if live.paused_at(now) or (entry.done is not None and entry.done.held_for):
            return self._give_up(filling, record, SkipReason.PAUSED, "the job was paused before its turn")
        exclusive = live.job.overlap != "allow"
        if exclusive and (entry.limbo or (entry.busy and filling.blocks is not entry)):
            raise Later
        others = office.book.live(entry.id) if exclusive else []
        line = office.book.line(entry.id)
        most = office.at_once(entry, live)
        taken = policy.turns(live.job, record.fires, busy=bool(others), waiting=len(line), most=most)
        handed = hand_out(office.desk, live, taken.go, now)
        handed.waits += line_up(office.desk, live, taken.wait, now)
        if taken.over:
            over = taken.over
            words = policy.in_the_way(live.job, others[0] if others else f"the fire of {rfc3339(record.fires[0])}")
            skipped = policy.Skipped(SkipReason.OVERLAP, over[0], over[-1], len(over), words)
            handed.skips.append(skip_record(live, skipped, now))
        move = advance(
            office.keys,
            replace(record, fires=list(taken.later)),
            seen=filling.seen,
            job=(entry.id, entry.seen),
            dispatches=handed.dispatches,
            waits=handed.waits,
            skips=handed.skips,
        )
        if taken.wait and live.job.overlap == "cancel_previous":
            move = move.also(cancelling.make_room(office, live.id, now))
        return self._step(filling, move, handed.dispatches, entry=entry if exclusive else None)

    def _give_up(self, filling: Filling, record: Backfill, reason: SkipReason, detail: str) -> Step:
        """The fires that it still had get their record."""
        fires = record.fires
        skip = Outcome(
            run=ids.fire_run_id(record.job, record.generation, fires[0]),
            job=record.job,
            name=record.name,
            generation=record.generation,
            revision=0,
            attempt=0,
            kind=Kind.SKIPPED.value,
            final=True,
            trigger=Trigger.SCHEDULE.value,
            ended_at=self._office.wall(),
            reason=reason.value,
            detail=detail,
            fire_at=fires[0],
            to_at=fires[-1],
            count=len(fires),
            awaited=True,
        )
        after = replace(record, fires=[])
        move = advance(self._office.keys, after, seen=filling.seen, job=self._office.owner(record.job), skips=[skip])
        return self._step(filling, move, count="skipped")

    def _step(
        self,
        filling: Filling,
        move: Move,
        dispatches: Sequence[Dispatch] = (),
        *,
        ends: Sequence[Asked] = (),
        entry: JobEntry | None = None,
        count: str = "",
    ) -> Step:
        """`entry`: a job of which nothing else may be decided meanwhile."""
        filling.busy = True
        for asked in ends:
            asked.busy = True
        if entry is not None:
            entry.busy = True

        def settle(verdict: Verdict) -> None:
            office = self._office
            filling.busy = False
            office.book.news.backfills.add(filling.id)
            for asked in ends:
                asked.busy = False
            if verdict is Verdict.LIMBO and office.book.backfills.get(filling.id) is filling:
                filling.blocks = entry  # until the record changes: the runs may appear at any moment
            if entry is not None and (verdict is Verdict.DONE or filling.blocks is None):
                entry.busy, filling.blocks = False, None
                office.book.news.jobs.add(entry.id)
            if verdict is Verdict.DONE:
                office.sent(dispatches)
                if count:
                    office.counts[count] += 1
                return
            filling.rest_until = office.mono() + 0.02
            if verdict is Verdict.IMPOSSIBLE:
                filling.impossible = "it is too large for one message"

        return Step(move, settle)
