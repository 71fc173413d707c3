"""Rates: when more runs fail within a while than a rule lets pass, that is an alert of its own (transaction 22).

Ends are counted in memory as they are settled, by minute and job. A new leader counts anew what etcd and the database
still know of the time before; a handful that is settled in that very moment may be missed.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from crony.beat.duties.alerts import Undelivered
from crony.beat.duty import Background
from crony.domain import ids
from crony.domain.alert import failure_rate
from crony.domain.alerting import Rule
from crony.domain.durations import format_duration
from crony.domain.record import UnknownRecord
from crony.errors import CronyError
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, prefix_end
from crony.lifecycle.move import Lead, transaction
from crony.lifecycle.notify import too_many_failed
from crony.lifecycle.settle import Over, Position, over_for_good
from crony.notifications.directory import Directory
from crony.store import runs
from crony.store.db import Database

log = logging.getLogger("crony.beat")

EVERY = 5.0
SLOT = 15.0
"""Seconds that are counted together: a window is exact to this."""
MOST = 300_000
"""Most counters kept, each of one job and slot; beyond it the oldest go."""
MOST_ARCHIVED = 200_000
"""Most ends read from the database when a leader begins."""


class Counters:
    """Ends by slot of time and job; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[int, dict[str, list[int]]] = {}
        self._names: dict[str, str] = {}
        self._size = 0

    def add(self, job: str, failed: bool, at: float, name: Callable[[], str]) -> None:
        """One run has ended. `name`: of its job, asked for once."""
        with self._lock:
            slot = self._slots.setdefault(int(at // SLOT), {})
            if job not in slot:
                self._size += 1
                if job not in self._names:
                    self._names[job] = name()
            counted = slot.setdefault(job, [0, 0])
            counted[0] += 1
            counted[1] += failed
            while self._size > MOST:
                self._drop(min(self._slots))

    def since(self, at: float) -> dict[str, tuple[str, int, int]]:
        """Job -> (name, ended, failed) of what ended since `at`."""
        found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        with self._lock:
            for slot, jobs in self._slots.items():
                if (slot + 1) * SLOT > at:
                    for job, (ended, failed) in jobs.items():
                        found[job][0] += ended
                        found[job][1] += failed
            return {job: (self._names[job], ended, failed) for job, (ended, failed) in found.items()}

    def forget(self, before: float) -> None:
        """What ended before this instant counts no more."""
        with self._lock:
            for slot in [slot for slot in self._slots if (slot + 1) * SLOT <= before]:
                self._drop(slot)
            kept = {job for jobs in self._slots.values() for job in jobs}
            self._names = {job: name for job, name in self._names.items() if job in kept}

    def _drop(self, slot: int) -> None:
        self._size -= len(self._slots.pop(slot, {}))


class Rates:
    """The duty on failure rates, of the leader of shard 0."""

    def __init__(
        self,
        client: Client,
        lead: Lead,
        directory: Directory,
        database: Database | None,
        undelivered: Undelivered,
        delivery: Background,
    ) -> None:
        self._client, self._lead, self._directory, self._database = client, lead, directory, database
        self._undelivered, self._delivery = undelivered, delivery
        self._counters = Counters()
        self._counting = False
        """There are rules to count for."""
        self.background = Background("failure-rates", EVERY, self._work)

    def ended(self, ends: Iterable[Over]) -> None:
        """These runs have ended and were settled; quick, from the decision loop."""
        if self._counting:
            for end in ends:
                self._counters.add(end.job, end.failed, end.at, lambda end=end: _name(end.value))  # type: ignore[misc]

    def _work(self) -> None:
        rules = [rule for rule in self._directory.rules() if rule.rate is not None]
        if not rules:
            self._counting = False
            self._counters.forget(float("inf"))
            return
        now = self._client.now()
        if not self._counting:
            self._recount(now, max(rule.rate.window for rule in rules if rule.rate))
        for rule in rules:
            self._judge(rule, now)
        self._counters.forget(now - max(rule.rate.window for rule in rules if rule.rate))

    def _recount(self, now: float, window: float) -> None:
        """Begin to count with what is known of the time before."""
        keys = self._lead.keys
        kv = self._client.get(keys.settled)
        try:
            settled = Position.read(kv.value) if kv is not None else Position()
        except UnknownRecord:
            settled = Position()
        self._counting = True
        in_etcd: set[str] = set()
        for page in self._client.pages(keys.outs, prefix_end(keys.outs)):
            for kv in page.kvs:
                in_etcd |= self._count_again(keys, kv, settled, now - window)
        if self._database is None:
            return
        try:
            archived = runs.ends(self._database, now - window, MOST_ARCHIVED)
        except CronyError as error:
            log.warning("failure rates begin without what the database knows of the last minutes: %s", error)
            return
        for run, job, name, failed, at in archived:
            if run not in in_etcd:
                self._counters.add(job, failed, at, lambda name=name: name)  # type: ignore[misc]

    def _count_again(self, keys: Keys, kv: KV, settled: Position, since: float) -> set[str]:
        run = kv.key.removeprefix(keys.outs).split("/")[0]
        end = over_for_good(run, kv.value)
        if end is None or ids.whole(run) != run:
            return set()
        if settled.covers(kv.mod, kv.key) and end.at >= since:
            self._counters.add(end.job, end.failed, end.at, lambda: _name(end.value))
        return {run}

    def _judge(self, rule: Rule, now: float) -> None:
        rate = rule.rate
        assert rate is not None
        counted = {
            job: (name, ended, failed)
            for job, (name, ended, failed) in self._counters.since(now - rate.window).items()
            if rule.covers(name)
        }
        if rate.each_job:
            for job, (name, ended, failed) in counted.items():
                if _too_many(rule, ended, failed):
                    self._tell(rule, job, name, failed, ended, now)
            return
        ended = sum(each[1] for each in counted.values())
        failed = sum(each[2] for each in counted.values())
        if _too_many(rule, ended, failed):
            self._tell(rule, "", rule.name, failed, ended, now)

    def _tell(self, rule: Rule, job: str, name: str, failed: int, ended: int, now: float) -> None:
        """Once in the rule's cool-down, whoever leads; the note about it lies in etcd."""
        assert rule.rate is not None
        keys = self._lead.keys
        noted = self._client.get(keys.rated(rule.name, job))
        if noted is not None and now - _number(noted.value) < rule.cooldown:
            return
        if not self._undelivered.room:
            return
        alert = failure_rate(rule.name, job, name, failed, ended, format_duration(rule.rate.window), now)
        move = too_many_failed(keys, alert, rule.name, job, noted.mod if noted else 0, list(rule.to))
        if self._client.txn(transaction(self._lead, [move])).succeeded:
            self._undelivered.more(1)
            self._delivery.nudge()


def _too_many(rule: Rule, ended: int, failed: int) -> bool:
    rate = rule.rate
    return rate is not None and ended >= rate.least and failed * 100 > rate.above * ended


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def _name(value: bytes) -> str:
    try:
        return str(json.loads(value)["name"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
