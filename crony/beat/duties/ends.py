"""Ends that something goes by: the leader of a job is told of them once each, and moves the job's cursor record (20).

Whoever settles outcomes puts a request for each awaited end, in the transaction that moves `settled`; this duty takes
it off in the transaction that acts on it. So an end counts once, whichever leader dies in between.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from crony.beat.commit import Step, Verdict
from crony.beat.duties.alerts import Undelivered
from crony.beat.duty import Background
from crony.beat.entries import Asked, JobEntry
from crony.beat.office import Office
from crony.beat.sorting import filled_by
from crony.domain import afterend, streak
from crony.domain.alert import Alert, job_paused
from crony.domain.livejob import LiveJob
from crony.domain.record import UnknownRecord
from crony.domain.run import Done, Request
from crony.domain.signing import BadSeal
from crony.errors import Invalid
from crony.lifecycle.move import Move
from crony.lifecycle.note import note, pass_over

log = logging.getLogger("crony.beat")

MOST = 20
"""Most ends of one job that one transaction takes off."""
MISSED_EVERY = 60.0


class Ends:
    """The duty on awaited ends."""

    def __init__(self, office: Office, undelivered: Undelivered, delivery: Background) -> None:
        self._office = office
        self._undelivered, self._delivery = undelivered, delivery
        self._missed_at = office.mono() + MISSED_EVERY
        self._missed: set[tuple[str, str]] = set()
        """(job, run) of awaited runs that were nowhere when they were last looked for."""

    def work(self) -> float | None:
        """Act on the ends there are, one step for each job."""
        office, book = self._office, self._office.book
        self._look_for_missed()
        if not book.news.ends or not office.committer.free(office.mono()):
            return None
        book.news.ends, waiting = False, False
        steps: list[Step] = []
        for job, told in self._by_job().items():
            if len(steps) >= office.committer.limit("ended"):
                book.news.ends = True
                break
            entry = book.jobs.get(job)
            if entry is not None and (entry.busy or entry.rest_until > office.mono()):
                waiting = True
                continue
            steps.append(self._one(job, entry, told[:MOST]))
        book.news.ends |= waiting
        if steps:
            office.committer.send("ended", steps)
        return 0.02 if waiting else None

    def _by_job(self) -> dict[str, list[Asked]]:
        found: dict[str, list[Asked]] = {}
        for asked in sorted(self._office.book.ends.values(), key=lambda asked: asked.id):
            if not asked.busy and asked.request is not None and not filled_by(asked.request.run):
                found.setdefault(str(asked.request.job), []).append(asked)
        return found

    def _one(self, job: str, entry: JobEntry | None, told: Sequence[Asked]) -> Step:
        """What the ends of one job, in their order, come to."""
        office = self._office
        ends = {asked.id: asked.seen for asked in told}
        requests = [asked.request for asked in told if asked.request is not None]
        job_seen, done_seen = (entry.seen, entry.done_seen) if entry is not None else (0, 0)
        after: Done | None = None
        if entry is not None and entry.seen and entry.done is not None:
            try:
                after = self._after(entry.document(office.webs), entry.done, job_seen, requests)
            except (BadSeal, UnknownRecord, Invalid) as error:
                log.error("ends of runs of job %s count for nothing: %s", job, error)
            except Exception:  # whoever writes outcomes must not be able to stop the others
                log.exception("ends of runs of job %s count for nothing", job)
        if after is None:
            move = pass_over(office.keys, job, job_seen=job_seen, done_seen=done_seen, ends=ends)
            return self._step(move, None, told)
        alert = self._alert(entry, after, requests)
        move = note(office.keys, job, job_seen=job_seen, done_seen=done_seen, done=after, ends=ends, alert=alert)
        return self._step(move, entry, told, alert)

    def _alert(self, entry: JobEntry | None, after: Done, requests: Sequence[Request]) -> Alert | None:
        """The alert about a job that these ends pause; none where there is no room for one."""
        if entry is None or entry.done is None or after.held_at == entry.done.held_at:
            return None
        last = next((request for request in requests if request.run in after.held), requests[-1])
        log.error("job %s is paused until it is edited or resumed: %s", entry.id, after.held)
        if not self._undelivered.room:
            self._office.counts["alerts_not_kept"] += 1
            return None
        name = entry.document(self._office.webs).name
        return job_paused(entry.id, name, last.run, last.outcome, after.held, after.held_at)

    def _after(self, live: LiveJob, done: Done, job_seen: int, requests: Sequence[Request]) -> Done | None:
        """The cursor record after these ends; None: nothing changes."""
        if live.deleted:
            return None
        after, now = done, self._office.wall()
        for request in requests:
            after = afterend.ended(live, after, request.run, float(request.ended_at), now) or after
            after = streak.counted(live, after, request.run, request.outcome, int(request.revision), now) or after
        return None if after == done else afterend.noted(live, after, job_seen)

    def _step(self, move: Move, entry: JobEntry | None, told: Sequence[Asked], alert: Alert | None = None) -> Step:
        """`entry`: the job whose record it changes. Unanswered it is tried again: the compares let it happen once."""
        for asked in told:
            asked.busy = True
        if entry is not None:
            entry.busy = True

        def settle(verdict: Verdict) -> None:
            book = self._office.book
            book.news.ends = True
            for asked in told:
                asked.busy = False
            if entry is not None:
                entry.busy = False
                book.news.jobs.add(entry.id)
                if verdict is not Verdict.DONE:
                    entry.rest_until = self._office.mono() + 0.02
            if alert is not None and verdict is Verdict.DONE:
                self._office.counts["alerts"] += 1
                self._undelivered.more(1)
                self._delivery.nudge()

        return Step(move, settle)

    # -- what nobody told ----------------------------------------------------------------------

    def _look_for_missed(self) -> None:
        """A job must not wait for ever for the end of a run that is nowhere: whatever lost it, the delay begins now."""
        office, book = self._office, self._office.book
        if office.mono() < self._missed_at or not office.committer.free(office.mono()):
            return
        self._missed_at = office.mono() + MISSED_EVERY
        told = {asked.request.run for asked in book.ends.values() if asked.request is not None}
        told |= {key.removeprefix(office.keys.outs).split("/")[0] for key in book.outs}
        told |= {
            run for each in book.backfills.values() if each.record for run in map(each.record.run_of, each.record.fires)
        }
        nowhere = {
            (entry.id, entry.done.awaits)
            for entry in book.jobs.values()
            if entry.done is not None and entry.done.awaits and not book.is_live(entry.done.awaits)
            if entry.done.awaits not in told
        }
        steps: list[Step] = []
        for job, run in nowhere & self._missed:
            entry = book.jobs[job]
            if entry.busy or entry.done is None or len(steps) >= office.committer.limit("ended"):
                continue
            end = Request("ended", run=run, job=job, ended_at=office.wall())
            try:
                after = self._after(entry.document(office.webs), entry.done, entry.seen, [end])
            except (BadSeal, UnknownRecord, Invalid):
                continue
            if after is not None:
                log.error("job %s waits for the end of run %s, which is nowhere: its delay begins now", job, run)
                move = note(office.keys, job, job_seen=entry.seen, done_seen=entry.done_seen, done=after)
                steps.append(self._step(move, entry, []))
        self._missed = nowhere
        if steps:
            office.committer.send("ended", steps)
