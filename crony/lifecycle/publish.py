"""Publish (transaction 3): a saved job becomes what the centre sees, without ever lowering a revision.

The cursor `done/<job>` belongs to the leader; only three changes of a job move it, each in the same
transaction as the job itself: creation (nothing before now is due), resume (what was due meanwhile
is recorded as skipped) and deletion (what was due and not yet decided is recorded). Of a job that its
leader paused, any edit is a resume. Where a fire from before the pause is not decided yet, a resume is an
edit like any other, so that the pause does not swallow it. An edit leaves the cursor alone: instants up to `since_at`
stay due by the schedules replaced, later ones are due by the new. `since_at` is never before the
cursor, which is compared, so no decided instant is judged by a schedule that was not there when it
was decided.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from crony.clock import rfc3339
from crony.domain import afterend
from crony.domain.chain import Link
from crony.domain.job import Job
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Outcome, SkipReason
from crony.domain.record import UnknownRecord
from crony.domain.run import Done
from crony.domain.schedule import Schedule
from crony.domain.signing import Sealer, peek
from crony.domain.streak import freed
from crony.errors import Conflict, Invalid, Unavailable
from crony.etcd.client import KV, Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import PUBLISH_BYTES, Compare, Txn, mod
from crony.lifecycle.skip import skipped_fires

NEWER: Final = "newer"
_TRIES = 30


def publish(
    client: Client,
    keys: Keys,
    sealer: Sealer,
    live: LiveJob,
    *,
    now: float | None = None,
    late: bool = False,
    claim: bool = True,
) -> int | Literal["newer"]:
    """Make `live` the published state of its job; returns its revision, or `NEWER` when a higher one is there.

    `since_at`, `replaced` and `published_at` are filled in here, by etcd's clock (`now` overrides it).
    Publishing the same revision again changes nothing. Raises `Invalid` for an `at` that is decided
    already (with `late`, for jobs saved while etcd was away, it is recorded as skipped instead),
    `Conflict` when another job has the name (without `claim` the name is left to it, and taken when the
    same revision is published again), `Unavailable` or `Unknown` when etcd is away.
    """
    for tried in range(_TRIES):
        found = _look(client, keys, live)
        if found.live is not None and found.live.revision > live.revision:
            return NEWER
        plan = _Plan(keys, found, live, client.now() if now is None else now, claim)
        if found.live is not None and found.live.revision == live.revision:
            if plan.has_name():
                return live.revision
            txn = plan.only_name()
        else:
            plan.decide(late)
            txn = plan.txn(sealer)
        try:
            if client.txn(txn).succeeded:
                return live.revision
        except EtcdUnknown:
            if tried == _TRIES - 1:
                raise
        threading.Event().wait(random.uniform(0, 0.005 * tried))  # others write the same keys: let them pass
    raise Unavailable("The job could not be published", why="it changed again each time it was tried", hint="try again")


def refuse_past(client: Client, keys: Keys, job: str | None, new: Job, old: Job | None = None) -> None:
    """Raises `Invalid` when a new `at` of the document lies where nothing will fire any more (S4)."""
    found = client.get(keys.done(job)) if job else None
    line = max(int(client.now()), Done.read(found.value).upto_at if found else 0)
    _refuse_past(new.schedules, old.schedules if old else (), line)


@dataclass(frozen=True, slots=True)
class _Found:
    """What etcd holds of a job, read at one revision."""

    job: KV | None
    live: LiveJob | None
    done: KV | None
    name: KV | None
    old_name: KV | None


def _look(client: Client, keys: Keys, live: LiveJob) -> _Found:
    answers = client.txn(Txn().get(keys.job(live.id)).get(keys.done(live.id)).get(keys.name(live.name))).responses
    job, done, name = (found[0] if found else None for found in answers)
    stored = _stored(job) if job else None
    old_name = None
    if stored is not None and stored.name != live.name:
        old_name = client.get(keys.name(stored.name))
    return _Found(job, stored, done, name, old_name)


def _stored(kv: KV) -> LiveJob | None:
    """The published job, also one whose document cannot be read (its zone is gone, say); None when it is no record at
    all (then overwritten). Raises `UnknownRecord` for a newer one."""
    try:
        payload = peek(kv.value)
    except (ValueError, KeyError, TypeError):
        return None
    try:
        return LiveJob.read(payload)
    except UnknownRecord:
        if isinstance(payload.get("v"), int) and payload["v"] > 1:
            raise
        return None


class _Plan:
    """One publication, decided from what was found."""

    def __init__(self, keys: Keys, found: _Found, wanted: LiveJob, now: float, claim: bool) -> None:
        self.keys, self.found, self.wanted, self.now, self.claim = keys, found, wanted, now, claim
        self.done = Done.read(found.done.value) if found.done else None
        self.line = max(int(now), self.done.upto_at if self.done else 0)
        """The first instant that may still be due by the new document is later than this."""
        self.live = wanted
        self.new_done: Done | None = None
        self.skips: list[Outcome] = []

    def decide(self, late: bool) -> None:
        """Which of creation, edit, resume and deletion this is, and what follows."""
        was, wanted, line = self.found.live, self.wanted, self.line
        base = {"revision": wanted.revision, "now": float(line)}
        if wanted.deleted:
            if was is not None and not was.deleted and self.done is not None and self._decidable(was):
                if self.done.held_for:
                    self._skip(was, SkipReason.PAUSED, self.done.held)
                else:
                    self._skip(was, SkipReason.DELETED, "deleted before they were decided")
            self.live = wanted.tombstone(**base)  # type: ignore[arg-type]
        elif was is None or was.deleted or self.done is None:
            self._past((), late)
            self.new_done = freed(self.done or Done(upto_at=line), line)
            self.live = LiveJob.created(wanted.id, wanted.job, generation=wanted.generation, **base)  # type: ignore[arg-type]
        elif not self._decidable(was):
            self._past((), late)
            self.live = was.edited(wanted.job, done=self.done.upto_at, **base)  # type: ignore[arg-type]
        elif self.done.held_for:
            self._past(was.job.schedules, late)
            self._skip(was, SkipReason.PAUSED, self.done.held)
            self.new_done = freed(self.done, line)
            self.live = was.resumed(wanted.job, **base)  # type: ignore[arg-type]
        elif was.paused_at(line) and not wanted.paused_at(line) and not self._owes(was):
            self._past(was.job.schedules, late)
            self._skip(_unpaused(was), SkipReason.PAUSED, "")
            self.new_done = freed(self.done, line)
            self.live = was.resumed(wanted.job, **base)  # type: ignore[arg-type]
        else:
            self._past(was.job.schedules, late)
            self.live = was.edited(wanted.job, done=self.done.upto_at, **base)  # type: ignore[arg-type]
        self.live = self.live.replace(generation=wanted.generation, published_at=self.now)

    def _owes(self, was: LiveJob) -> bool:
        """Whether fires that were due before a pause are not decided: no leader was there. They stay due then, and the
        leader records what the pause kept from being due, when it comes to it."""
        assert self.done is not None
        return afterend.known(was, self.done).last_due(self.done.upto_at, self.line) is not None

    def _decidable(self, was: LiveJob) -> bool:
        """Whether it can be told here what was due by it: its zone may be gone."""
        try:
            _ = was.job
            was.next_due(self.done.upto_at if self.done else was.since_at)
        except Invalid:
            return False
        return True

    def _past(self, known: Sequence[Schedule], late: bool) -> None:
        """Refuse, or with `late` record, each new `at` that is over."""
        job = self.wanted.job
        if self.wanted.paused_at(self.line):
            return
        if not late:
            _refuse_past(job.schedules, known, self.line)
        for second in sorted({schedule.anchor for schedule in _past_ones(job.schedules, known, self.line)}):
            detail = "its instant had passed when the job could be published"
            self.skips.append(self._record(self.wanted, SkipReason.MISFIRE, detail, second, second, 1))

    def _skip(self, was: LiveJob, reason: SkipReason, detail: str) -> None:
        """One range record over everything that was due and is not decided; the cursor passes it."""
        assert self.done is not None
        was = afterend.known(was, self.done)
        after, first = self.done.upto_at, was.next_due(self.done.upto_at)
        if first is None or first > self.line:
            return
        count, last = was.count(after, self.line), was.last_due(after, self.line) or first
        if count.capped:
            detail = f"{detail}; there were more than {int(count)}".lstrip("; ")
        self.skips = [skip for skip in self.skips if skip.fire_at != first]
        self.skips.append(self._record(was, reason, detail, first, last, max(1, int(count))))
        self.new_done = replace(self.done, upto_at=self.line)

    def _record(self, live: LiveJob, reason: SkipReason, detail: str, first: int, last: int, count: int) -> Outcome:
        return skipped_fires(live, reason, detail, first=first, last=last, count=count, at=self.now)

    def txn(self, sealer: Sealer) -> Txn:
        """The transaction: everything this publication rests on compared, everything it changes put."""
        keys, found, live = self.keys, self.found, self.live
        txn = Txn(max_bytes=PUBLISH_BYTES).when(mod(keys.job(live.id), found.job.mod if found.job else 0))
        if not self._goes_on():
            txn.when(mod(keys.done(live.id), found.done.mod if found.done else 0))
        txn.when(*self._names(txn)).put(keys.job(live.id), sealer.seal(live.payload()))
        if self.new_done is not None:
            txn.put(keys.done(live.id), afterend.begun(live, self.new_done).encode())
        for skip in self.skips:
            txn.put(keys.out(skip.run, 0), skip.encode())
        self._link(txn)
        return txn

    def _link(self, txn: Txn) -> None:
        """Keep beside the job whose ends it follows, for whoever settles those."""
        keys, link = self.keys, Link.of(self.live)
        if link is None and not self._followed():
            return
        if link is not None:
            txn.put(keys.chain(self.live.id), link.encode())
        else:
            txn.delete(keys.chain(self.live.id))
        txn.put(keys.chains, self.live.id.encode())

    def _followed(self) -> bool:
        """Whether the job followed others before; of one that cannot be read, perhaps."""
        was = self.found.live
        if was is None or was.deleted:
            return False
        return (was.document or {}).get("after") is not None

    def has_name(self) -> bool:
        """Whether there is nothing to do about the name."""
        named = self.found.name is not None and self.found.name.value == self.wanted.id.encode()
        return named or self.wanted.deleted or not self.claim

    def only_name(self) -> Txn:
        """Take the name of a job that is published already."""
        assert self.found.job is not None
        txn = Txn().when(mod(self.found.job.key, self.found.job.mod))
        return txn.when(*self._names(txn))

    def _goes_on(self) -> bool:
        """The same schedule goes on (only the action changed, say): where the cursor stands does not matter."""
        was, live = self.found.live, self.live
        if was is None or was.deleted or live.deleted or self.new_done is not None or live.since_at != was.since_at:
            return False
        if not self._decidable(was):
            return False
        before = was.enabled, was.schedules, was.paused_until
        return before == (live.enabled, live.schedules, live.paused_until)

    def _names(self, txn: Txn) -> Iterable[Compare]:
        """Take the name, or give it up; a name of another job is never touched."""
        keys, found, live = self.keys, self.found, self.live
        own, key = live.id.encode(), keys.name(live.name)
        compares = []
        if live.deleted:
            if found.name is not None and found.name.value == own:
                compares.append(mod(key, found.name.mod))
                txn.delete(key)
        elif self.claim:
            if found.name is not None and found.name.value != own:
                raise Conflict(
                    f"Another job is published as {live.name}", hint="choose another name, or try again shortly"
                )
            compares.append(mod(key, found.name.mod if found.name else 0))
            txn.put(key, own)
        if found.old_name is not None and found.old_name.value == own:
            compares.append(mod(found.old_name.key, found.old_name.mod))
            txn.delete(found.old_name.key)
        return compares


def _unpaused(was: LiveJob) -> LiveJob:
    """The job as it would have been without its pauses. A delay after the end has no instants while nothing runs."""
    enabled = tuple(item._replace(enabled=True, paused_until=0) for item in was.replaced)
    schedules = tuple(schedule for schedule in was.job.schedules if not schedule.after_end)
    document = replace(was.job, enabled=True, paused_until=0, schedules=schedules)
    return was.replace(document=document, replaced=enabled)


def _past_ones(schedules: Iterable[Schedule], known: Sequence[Schedule], line: int) -> list[Schedule]:
    return [
        schedule
        for schedule in schedules
        if schedule.kind == "at" and schedule.anchor <= line and schedule not in known
    ]


def _refuse_past(schedules: Iterable[Schedule], known: Sequence[Schedule], line: int) -> None:
    for schedule in _past_ones(schedules, known, line):
        raise Invalid(
            "schedule.at",
            f"{schedule.text} is over: everything up to {rfc3339(line)} is decided already",
            hint="choose a later instant, or run the job by hand",
        )
