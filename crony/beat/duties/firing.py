"""Firing: what is due becomes runs and skip records, exactly once (PROTOCOL transaction 5, P1 and P2).

A heap holds the next due instant of each job. Jobs that are due now go first; those that fell behind catch up in
what room is left (S6). A job whose decision fails is held with the reason, and the others go on (S11).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from crony.beat import holding, policy
from crony.beat.ahead import Ahead
from crony.beat.commit import Step, Verdict
from crony.beat.duties.alerts import Undelivered
from crony.beat.duties.cancelling import make_room
from crony.beat.duty import Background
from crony.beat.entries import JobEntry
from crony.beat.handout import hand_out, line_up, skip_record
from crony.beat.office import Office
from crony.domain import afterend, hint, ids
from crony.domain.alert import Alert
from crony.domain.backfill import Backfill
from crony.domain.record import UnknownRecord
from crony.domain.run import Done, Trigger
from crony.domain.signing import BadSeal
from crony.domain.streak import released
from crony.errors import CronyError
from crony.lifecycle.fire import fire
from crony.lifecycle.move import Dispatch, Move
from crony.lifecycle.note import note

log = logging.getLogger("crony.beat")

PROMPT = 5.0
"""Seconds: a fire decided within them is on time; later ones let others go first."""
NOTE_EVERY = 2.0
"""Seconds between two transactions of hints: they are a favour to the next leader, and there may be 100,000."""


class Trouble(Exception):
    """A fault of the centre's own while it handed a run out: no reason to hold the job."""


class Firing:
    """The duty on schedules."""

    def __init__(self, office: Office, undelivered: Undelivered, delivery: Background) -> None:
        self._office = office
        self._undelivered, self._delivery = undelivered, delivery
        self._agenda = office.agenda
        self._ahead = Ahead(office.agenda, office.book, office.desk, office.mono)
        self._late: deque[str] = deque()
        self._note_at = 0.0
        self._resting = False

    @property
    def behind(self) -> int:
        """Jobs that have still to catch up."""
        return len(self._late)

    def work(self) -> float | None:
        """Decide what is due; seconds until the next due instant."""
        office, agenda = self._office, self._agenda
        unread = agenda.learn()
        self._hold_broken()
        if office.holds or office.book.stopped:
            return None
        while office.committer.free(office.mono()):
            steps = self._decide(office.wall())
            if not steps:
                break
            office.committer.send("fire", steps, control_seen=office.book.seen(office.keys.control))
        if unread or agenda.make_ready() or self._ahead.write():
            return 0.0
        agenda.examine()
        self._note_some()
        if not office.committer.free(office.mono()):
            return None
        if self._resting:
            return 0.02
        first = agenda.next()
        return max(0.0, first[0] - office.wall()) if first else None

    # -- hints for the next leader -------------------------------------------------------------

    def _note_some(self) -> None:
        """In idle moments, write down when far jobs are due next (transaction 20)."""
        office, unnoted, steps = self._office, self._agenda.unnoted, list[Step]()
        if not unnoted or not office.committer.idle or office.mono() < self._note_at:
            return
        self._note_at = office.mono() + NOTE_EVERY
        while unnoted and len(steps) < office.committer.limit("note"):
            job, due = unnoted.popitem()
            entry = office.book.jobs.get(job)
            if entry is None or entry.busy or entry.done is None or not entry.seen:
                continue
            if hint.trusted(entry.done, entry.seen, entry.done_seen) or entry.due != due:
                continue
            try:
                done = hint.hinted(entry.document(office.webs), released(entry.done), due, entry.seen)
            except (CronyError, ValueError):
                continue  # it was read a moment ago; whoever reads it next says what is wrong with it
            move = note(office.keys, job, job_seen=entry.seen, done_seen=entry.done_seen, done=done)
            steps.append(self._step(entry, move, runs=False))
        if steps:
            office.committer.send("note", steps)

    # -- what becomes of it --------------------------------------------------------------------

    def _decide(self, now: float) -> list[Step]:
        """Decisions for one transaction: jobs due now, then, if there is room, jobs that are behind."""
        limit, steps = self._office.committer.limit("fire"), list[Step]()
        mono = self._office.mono()
        resting: list[tuple[int, str]] = []
        while (first := self._agenda.next()) is not None and first[0] <= now and len(steps) < limit:
            due, job = self._agenda.take()
            entry = self._office.book.jobs.get(job)
            if entry is not None and entry.rest_until > mono:
                resting.append((due, job))
            elif now - due > PROMPT:
                self._late.append(job)
            else:
                self._add(steps, job, now)
        self._resting = bool(resting)
        for item in resting:
            self._agenda.put_back(item)
        while self._late and len(steps) < limit:
            self._add(steps, self._late.popleft(), now)
        return steps

    def _add(self, steps: list[Step], job: str, now: float) -> None:
        entry = self._office.book.jobs.get(job)
        if entry is None or entry.due is None or entry.busy or entry.done is None or not entry.seen:
            return
        due, entry.due = entry.due, None
        try:
            step = self._job(entry, entry.done, now)
        except (BadSeal, UnknownRecord) as error:
            self._agenda.distrust(entry, error)
            return
        except Trouble as error:
            log.exception("job %s cannot be dispatched right now: %s", entry.id, error)
            entry.rest_until = self._office.mono() + 5.0
            self._agenda.plan(entry.id, due)
            return
        except Exception as error:
            try:
                step = self._hold(entry, entry.done, due, error)
            except Exception as odd:  # its cursor makes no sense either: the others' steps must still be sent
                self._agenda.distrust(entry, odd)
                return
        if step is not None:
            steps.append(step)

    def _job(self, entry: JobEntry, done: Done, now: float) -> Step | None:
        """One decision over everything the job has due."""
        office = self._office
        document = entry.document(office.webs)
        live = afterend.known(document, done)
        others = office.book.live(entry.id) if live.job.overlap != "allow" else []
        busy, most = others[0] if others else "", office.at_once(entry, live)
        waiting = len(office.book.line(entry.id)) if others else 0
        plan = policy.decide(live, done.upto_at, now, busy=busy, waiting=waiting, most=most)
        if plan is None:
            self._agenda.plan(entry.id, live.next_due(done.upto_at))
            return None
        try:
            handed = hand_out(office.desk, live, plan.fires, now, lambda run: self._ahead.take(document, run))
            handed.waits += line_up(office.desk, live, plan.waits, now)
        except Exception as error:
            raise Trouble(str(error)) from error
        rest = None
        if plan.rest:
            rest = Backfill(ids.backfill_id(), live.id, live.name, live.generation, Trigger.SCHEDULE.value,
                            fires=list(plan.rest), requested_at=now)  # fmt: skip
        run = ids.fire_run_id(live.id, live.generation, plan.upto)
        ran = plan.upto in (*plan.fires[-1:], *plan.waits[-1:], *plan.rest[-1:])
        fires = done.fires + len(plan.fires) + len(plan.waits) + len(plan.rest)
        after = released(done).but(upto_at=plan.upto, fires=fires)
        after = afterend.fired(document, after, run if ran else "", now)
        due_at = plan.following
        if due_at == policy.UNKNOWN or live is not document:  # what is due next may follow from this very decision
            due_at = afterend.known(document, after).next_due(plan.upto)
        move = fire(
            office.keys,
            entry.id,
            job_seen=entry.seen,
            done_seen=entry.done_seen,
            done=hint.hinted(document, after, due_at, entry.seen),
            dispatches=handed.dispatches,
            waits=handed.waits,
            skips=[*handed.skips, *(skip_record(live, skip, now) for skip in plan.skips)],
            rest=rest,
        )
        if plan.waits and live.job.overlap == "cancel_previous":
            move = move.also(make_room(office, entry.id, now))
        skipped = len(handed.skips) + sum(skip.count for skip in plan.skips)
        return self._step(entry, move, handed.dispatches, skipped)

    def _step(
        self,
        entry: JobEntry,
        move: Move,
        dispatches: Sequence[Dispatch] = (),
        skipped: int = 0,
        alert: Alert | None = None,
        *,
        runs: bool = True,
    ) -> Step:
        """`runs`: it may make some, so that nothing else is decided about the job while it is in doubt."""
        entry.busy, seen = True, entry.done_seen

        def settle(verdict: Verdict) -> None:
            self._settled(entry, verdict, seen if runs else 0, dispatches, skipped)
            if alert is not None and verdict is Verdict.DONE:
                self._office.counts["alerts"] += 1
                self._undelivered.more(1)
                self._delivery.nudge()

        return Step(move, settle)

    def _settled(
        self, entry: JobEntry, verdict: Verdict, seen: int, dispatches: Sequence[Dispatch], skipped: int
    ) -> None:
        office = self._office
        entry.busy = False
        office.book.news.jobs.add(entry.id)
        if verdict is Verdict.DONE:
            entry.refusals, entry.limbo = 0, False
            office.sent(dispatches)
            office.figured(dispatches)
            office.counts["skipped"] += skipped
        elif verdict is Verdict.LIMBO and seen:
            entry.limbo = entry.done_seen == seen
            office.book.news.doubt |= not entry.limbo  # it has arrived just now
        elif verdict is Verdict.REFUSED:
            entry.refusals += 1
            if entry.refusals >= 3:
                entry.rest_until = office.mono() + min(1.0, 0.02 * 2 ** min(entry.refusals, 10))
        elif verdict is Verdict.IMPOSSIBLE and entry.done is not None and not entry.done.held:
            due = self._agenda.known(entry, entry.done).next_due(entry.done.upto_at)
            office.committer.send("note", [self._hold(entry, entry.done, due, ValueError("its message is too large"))])

    # -- jobs that cannot be decided -----------------------------------------------------------

    def _hold(self, entry: JobEntry, done: Done, due: int | None, error: Exception) -> Step:
        """Write down that the job does not fire and why, and tell people; the instant that was due gets a record."""
        office = self._office
        held = holding.hold(office, entry, done, due, error, tell=self._undelivered.room > 0)
        return self._step(entry, held.move, skipped=held.skipped, alert=held.alert, runs=False)

    def _hold_broken(self) -> None:
        """Hold the jobs whose next instant could not be told."""
        broken = self._agenda.broken
        while broken:
            job, error = broken.popitem()
            entry = self._office.book.jobs.get(job)
            if entry is not None and not entry.busy and entry.seen and entry.done is not None:
                self._office.committer.send("note", [self._hold(entry, entry.done, None, error)])
