"""Punctuality: a run that has not begun in time, or is under way for too long, is told while it lives (21).

Level-triggered, from memory, for jobs that set such a limit. What was told lies beside the run, put by the
transaction that tells it and only while the run is where it was seen: no leader tells it twice, nor of a run that is
over. Runs that began late and ended between two looks are told by whoever settles their outcomes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from crony.beat.commit import Step, Verdict
from crony.beat.duties.alerts import Undelivered
from crony.beat.duty import Background
from crony.beat.entries import JobEntry
from crony.beat.office import Office
from crony.domain import ids, punctual
from crony.domain.alert import Alert, AlertKind
from crony.domain.alerting import Limits, limits_of, parse_job_alerts
from crony.domain.run import State
from crony.domain.signing import peek
from crony.errors import Invalid
from crony.lifecycle.alert import tell_of

log = logging.getLogger("crony.beat")

EVERY = 3.0
SOME = 20
"""Most runs told of in one look."""
MOST_READ = 300
"""Most documents read in one look: reading one takes longer than to look at a run."""
NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class _Live:
    """Where a run is: what tells it apart from where it is next, and since when that is so."""

    run: str
    state: State
    key: str
    seen: int
    since: float
    attempt: int
    node: str = ""


class Punctuality:
    """The duty on the limits of jobs."""

    def __init__(self, office: Office, undelivered: Undelivered, delivery: Background) -> None:
        self._office, self._undelivered, self._delivery = office, undelivered, delivery
        self._next = office.mono()
        self._known: dict[str, tuple[int, Limits, str]] = {}
        """Job with live runs -> revision, limits and name of its document."""
        self._busy: set[str] = set()
        """Alerts under way."""

    def work(self) -> float | None:
        """Look at the runs there are, now and then."""
        office, mono = self._office, self._office.mono()
        if mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        self._next = mono + EVERY
        now, steps, reads = office.client.now(), list[Step](), MOST_READ
        jobs: dict[str, tuple[int, Limits, str]] = {}
        for live in self._live():
            job = live.run.split(".", 1)[0]
            if job not in jobs:
                entry, known = office.book.jobs.get(job), self._known.get(job)
                if known is None or entry is None or known[0] != entry.seen:
                    if reads <= 0:
                        continue
                    reads -= 1
                    known = _limits(entry)
                jobs[job] = known
            _, limits, name = jobs[job]
            if limits is NO_LIMITS or len(steps) >= min(SOME, self._undelivered.room):
                continue
            for alert in self._alerts(live, limits, job, name, now):
                steps.append(self._step(live, alert))
        self._known = jobs
        if steps:
            office.committer.send("punctuality", steps)
        return EVERY

    def _live(self) -> Iterator[_Live]:
        """Every whole run, wherever it is; the envelope of a queued one is not opened."""
        book, keys = self._office.book, self._office.keys
        for run, waiting in book.waits.items():
            if waiting.wait is not None:
                attempt = waiting.wait.finished + 1
                yield _Live(run, State.WAITING, keys.run_wait(run), waiting.seen, waiting.wait.since_at, attempt)
        for (queue, place), item in book.queued.items():
            if item.claim is None or not item.holder:
                yield _Live(item.run, State.QUEUED, keys.message(queue, place), item.seen, 0.0, 0, item.node)
            else:
                key = keys.claim(queue, place)
                yield _Live(item.run, State.RUNNING, key, item.claim_seen, item.claim.at, 0, item.node)
        for run, awaited in book.accepted.items():
            if (told := awaited.record) is not None:
                since, key = told.started_at or told.at, keys.run_acc(run)
                yield _Live(run, State.ACCEPTED, key, awaited.seen, since, told.attempt, told.node)
        for run, joined in book.joins.items():
            if joined.join is not None:
                key = keys.run_join(run)
                yield _Live(run, State.RUNNING, key, joined.seen, joined.join.since_at, 0)

    def _alerts(self, live: _Live, limits: Limits, job: str, name: str, now: float) -> Iterator[Alert]:
        try:
            parts = ids.parse_run_id(live.run)
            if parts.part is not None:
                return
            began = live.state in (State.RUNNING, State.ACCEPTED)
            long = limits.too_long and began and live.since and now - live.since > limits.too_long
            if long and not self._told(live.run, AlertKind.TOO_LONG):
                yield punctual.too_long(
                    live.run, job, name, since=live.since, limit=limits.too_long, at=now, node=live.node
                )
            at = live.since if began else now
            fire = parts.fire
            late = limits.late > 0 and fire is not None and at - fire > limits.late
            if fire is not None and late and not self._told(live.run, AlertKind.LATE) and self._attempt(live) == 1:
                yield punctual.late(
                    live.run, job, name, fire_at=fire, began_at=at if began else None, at=now, node=live.node
                )
        except (ValueError, TypeError, OverflowError):
            return  # whoever may write to etcd could have put anything

    def _attempt(self, live: _Live) -> int:
        """Which attempt it is: a later one is not what began late."""
        if live.attempt:
            return live.attempt
        book = self._office.book
        joined = book.joins.get(live.run)
        if joined is not None:
            return 0  # when the first of its parts began is known when it has ended
        where = book.places.get(live.run)
        return int(peek(book.queued[where].sealed)["attempt"]) if where is not None else 0

    def _told(self, run: str, what: AlertKind) -> bool:
        """Whether it was told, or is being told."""
        key = self._office.keys.run_told(run, what.value)
        return key in self._busy or self._office.book.seen(key) > 0

    def _step(self, live: _Live, alert: Alert) -> Step:
        office = self._office
        key = office.keys.run_told(live.run, alert.kind)
        move = tell_of(office.keys, alert, mark=key, seen={live.key: live.seen})
        self._busy.add(key)

        def settle(verdict: Verdict) -> None:
            self._busy.discard(key)
            if verdict is Verdict.DONE:
                office.counts["alerts"] += 1
                self._undelivered.more(1)
                self._delivery.nudge()

        return Step(move, settle)


def _limits(entry: JobEntry | None) -> tuple[int, Limits, str]:
    """What a job minds, as it is written: its document was verified when its run was made."""
    if entry is None or not entry.seen:
        return 0, NO_LIMITS, ""
    try:
        live = peek(entry.sealed)
        document = live.get("document") or {}
        limits = limits_of(parse_job_alerts(document.get("alerts")))
        return entry.seen, limits if limits != NO_LIMITS else NO_LIMITS, str(document.get("name", ""))
    except (Invalid, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return entry.seen, NO_LIMITS, ""
