"""Ages: a run that nobody has begun for long is told, once for each job and episode (21).

Level-triggered, from memory: the oldest run of a job that waits because no node fits or a pool has no free slot, or
lies unclaimed in a queue. While that job has such a run nothing more is told about it; a new leader may tell of another
run of it once more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from crony.beat.commit import Step, Verdict
from crony.beat.duties.alerts import Undelivered
from crony.beat.duty import Background
from crony.beat.office import Office
from crony.domain import alert as alerts
from crony.domain import ids
from crony.domain.queues import node_of
from crony.domain.run import WaitReason
from crony.domain.signing import peek
from crony.lifecycle.alert import tell

log = logging.getLogger("crony.beat")

EVERY = 15.0
OLD = 600.0
"""Seconds after which a run that could begin and was not begun is told."""
NOBODY_BEGINS = {
    WaitReason.NO_NODE.value: "no node fits",
    WaitReason.POOL.value: "a pool of its job has no free slot",
}
"""What a run that could begin waits for, and how that is told."""
REFUSALS = 3
SOME = 20
"""Most jobs told of in one look."""


@dataclass(frozen=True, slots=True)
class Old:
    """The oldest such run of one job."""

    since: float
    run: str
    key: str
    seen: int
    sealed: str
    why: str
    node: str = ""


class Ages:
    """The duty on runs that nobody begins."""

    def __init__(self, office: Office, undelivered: Undelivered, delivery: Background) -> None:
        self._office, self._undelivered, self._delivery = office, undelivered, delivery
        self._next = office.mono() + EVERY
        self._told: set[str] = set()
        """Jobs told of, while they have an old run."""
        self._refused: dict[str, int] = {}

    def work(self) -> float | None:
        """Look at the ages, now and then."""
        office, mono = self._office, self._office.mono()
        if mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        self._next = mono + EVERY
        now = office.client.now()
        aging = self._old(now - OLD / 2)
        self._told &= aging.keys()  # the clock may seem to step back a little: what was old is not told again for that
        old = {job: each for job, each in aging.items() if each.since < now - OLD}
        self._refused = {job: count for job, count in self._refused.items() if job in old}
        fresh = sorted((each for job, each in old.items() if job not in self._told), key=lambda each: each.since)
        steps = [self._step(each) for each in fresh[: min(SOME, self._undelivered.room)]]
        if steps:
            office.committer.send("queue_age", steps)
        return EVERY

    def _old(self, before: float) -> dict[str, Old]:
        """Job -> its oldest run that could have begun before this instant."""
        office, found = self._office, dict[str, Old]()
        for run, waiting in office.book.waits.items():
            wait = waiting.wait
            if wait is None or wait.reason not in NOBODY_BEGINS or not isinstance(wait.since_at, int | float):
                continue
            if wait.since_at < before:
                why = NOBODY_BEGINS[wait.reason] + (f"; {wait.detail}" if wait.detail else "")
                _keep(found, Old(wait.since_at, run, office.keys.run_wait(run), waiting.seen, wait.envelope, why))
        for (queue, place), item in office.book.queued.items():
            since = _sent_at(place)
            if not item.holder and since < before:
                node, key = node_of(queue), office.keys.message(queue, place)
                why = f"node {node} has not begun it" if node else "no node has taken it from its shared queue"
                _keep(found, Old(since, item.run, key, item.seen, item.sealed, why, node))
        return found

    def _step(self, old: Old) -> Step:
        office = self._office
        job = _job(old.run)
        self._told.add(job)
        try:
            name = str(peek(old.sealed).get("name", ""))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            name = ""
        alert = alerts.queue_age(old.run, job, name, old.since, office.client.now(), old.why, old.node)
        move = tell(office.keys, alert, seen={old.key: old.seen})

        def settle(verdict: Verdict) -> None:
            if verdict is Verdict.DONE:
                office.counts["alerts"] += 1
                self._undelivered.more(1)
                self._delivery.nudge()
                return
            # Refused: its record changed meanwhile, or a leader before us told of it already.
            self._refused[job] = self._refused.get(job, 0) + (verdict is not Verdict.UNSENT)
            if self._refused[job] < REFUSALS:
                self._told.discard(job)

        return Step(move, settle)


def _keep(found: dict[str, Old], old: Old) -> None:
    job = _job(old.run)
    if job not in found or old.since < found[job].since:
        found[job] = old


def _job(run: str) -> str:
    try:
        return ids.parse_run_id(run).job
    except ValueError:
        return ""


def _sent_at(place: str) -> float:
    """When a message was put into its queue, as its place says; never for one that is not ours."""
    try:
        return int(place[1:17], 16) / 1e6
    except ValueError:
        return float("inf")
