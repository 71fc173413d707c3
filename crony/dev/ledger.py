"""What happens in etcd, seen from outside: every record of a job, a cursor, a run, as it is written.

`crony dev` prints runs from it, and at the end counts by it. It only reads, and shares no state with the centre.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crony.dev.audit import Definition, Facts
from crony.domain.backfill import Backfill
from crony.domain.ids import parse_run_id, place_ident
from crony.domain.outcome import Kind, Outcome
from crony.domain.record import UnknownRecord
from crony.domain.run import Done, Trigger
from crony.domain.signing import peek
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.watch import Event, Watcher


@dataclass
class _Job:
    name: str = ""
    start_at: int | None = None
    done_at: int = 0
    revision: int = 0
    definitions: list[Definition] = field(default_factory=list)
    runs: dict[int, set[str]] = field(default_factory=dict)
    ends: dict[str, list[str]] = field(default_factory=dict)
    firsts: dict[str, int] = field(default_factory=dict)
    skips: dict[str, tuple[int, int, int, str]] = field(default_factory=dict)
    overs: dict[int, float] = field(default_factory=dict)
    held: list[tuple[int, int]] = field(default_factory=list)
    held_after: int | None = None


class Ledger:
    """Facts per job from the moment `start` returned; `keep` is False where nobody will ask for them.

    `ended(outcome)` is called for each outcome as it is written.
    """

    def __init__(self, client: Client, keys: Keys, *, ended: Callable[[Outcome], None], keep: bool = True) -> None:
        self._keys, self._ended, self._keep = keys, ended, keep
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._seen: set[tuple[str, int]] = set()
        self._watcher = Watcher(
            client, keys.root, prefix_end(keys.root), on_snapshot=self._snapshot, on_events=self._events, name="ledger"
        )

    def start(self, timeout: float) -> bool:
        """Begin; False when etcd did not answer in time."""
        self._watcher.start()
        return self._watcher.synced(timeout)

    def stop(self) -> None:
        """End the watch."""
        self._watcher.stop()

    @property
    def revision(self) -> int:
        """Everything up to this etcd revision has been noted."""
        return self._watcher.revision

    def facts(self, until: int) -> list[Facts]:
        """Of every job, what is known about the instants after the start (its own or the job's) up to `until`."""
        with self._lock:
            return [
                Facts(
                    name=job.name or ident,
                    start_at=job.start_at,
                    upto_at=until,
                    definitions=list(job.definitions),
                    runs={at: set(runs) for at, runs in job.runs.items()},
                    ends={run: list(kinds) for run, kinds in job.ends.items()},
                    firsts=dict(job.firsts),
                    skips=list(job.skips.values()),
                    overs=dict(job.overs),
                    held=[*job.held, *([] if job.held_after is None else [(job.held_after, until)])],
                )
                for ident, job in self._jobs.items()
                if job.start_at is not None and job.definitions
            ]

    def unfinished(self, until: int) -> list[str]:
        """Runs of fires up to `until` that have not ended."""
        with self._lock:
            return [
                run
                for job in self._jobs.values()
                for at, runs in job.runs.items()
                if job.start_at is not None and job.start_at < at <= until
                for run in runs
                if run not in job.ends
            ]

    # -- what the watch tells ------------------------------------------------------------------

    def _snapshot(self, pairs: list[KV], _revision: int) -> None:
        for pair in pairs:
            self._note(pair.key, pair.value, pair.mod, fresh=False)

    def _events(self, events: list[Event], _revision: int) -> None:
        for event in events:
            if event.kind == "put":
                self._note(event.key, event.value, event.mod, fresh=True)

    def _note(self, key: str, value: bytes, mod: int, *, fresh: bool) -> None:
        parts = key.removeprefix(self._keys.root).split("/")
        if not self._keep and (not fresh or parts[:2] != ["run", "out"]):
            return
        match parts:
            case ["job", ident]:
                self._job_record(ident, value)
            case ["done", ident]:
                self._cursor(ident, value)
            case ["run", "out", run, attempt]:
                self._outcome(run, attempt, value, mod, fresh=fresh)
            case ["run", "wait" | "join", run]:
                self._run(run)
            case ["run", "q", _, "m", place]:
                self._run(place_ident(place))
            case ["run", "backfill", _]:
                self._backfill(value)

    def _cursor(self, ident: str, value: bytes) -> None:
        try:
            done = Done.read(value)
        except UnknownRecord:
            return
        upto = done.upto_at
        with self._lock:
            job = self._jobs.setdefault(ident, _Job())
            job.start_at = upto if job.start_at is None else job.start_at
            job.done_at = max(job.done_at, upto)
            if done.held_for and job.held_after is None:
                job.held_after = upto
            elif not done.held_for and job.held_after is not None:
                job.held.append((job.held_after, upto))
                job.held_after = None

    def _job_record(self, ident: str, value: bytes) -> None:
        try:
            record = peek(value)
            revision, since = int(record["revision"]), float(record["since_at"])
            replaced = [] if record.get("deleted") else list(record.get("replaced") or [])
            document = None if record.get("deleted") else record["document"]
        except (ValueError, KeyError, TypeError):
            return
        with self._lock:
            job = self._jobs.setdefault(ident, _Job())
            if revision <= job.revision:
                return
            if not job.definitions:
                begin = float("-inf")
                for item in replaced:
                    job.definitions.append(_definition(begin, item, ident))
                    begin = float(item["until_at"])
            job.name, job.revision = str(record.get("name") or ident), revision
            job.definitions.append(_definition(since, document or {"enabled": False}, ident))

    def _run(self, run: str) -> None:
        try:
            parts = parse_run_id(run)
        except ValueError:
            return
        if parts.fire is not None:
            with self._lock:
                self._jobs.setdefault(parts.job, _Job()).runs.setdefault(parts.fire, set()).add(run)

    def _backfill(self, value: bytes) -> None:
        # The rest of a `fire_all`: named before each of its fires becomes a run of its own.
        try:
            rest = Backfill.read(value)
        except UnknownRecord:
            return
        for at in rest.fires:
            self._run(rest.run_of(at))

    def _outcome(self, run: str, attempt: str, value: bytes, mod: int, *, fresh: bool) -> None:
        try:
            outcome = Outcome.read(value)
            parse_run_id(run)
        except (UnknownRecord, ValueError):
            return
        if self._keep:
            self._keep_outcome(run, attempt, outcome, mod)
        if fresh:
            self._ended(outcome)

    def _keep_outcome(self, run: str, attempt: str, outcome: Outcome, mod: int) -> None:
        parts = parse_run_id(run)
        with self._lock:
            if (key := (f"{run}/{attempt}", mod)) in self._seen:
                return
            self._seen.add(key)
            job = self._jobs.setdefault(parts.job, _Job())
            if outcome.final and parts.fire is not None:
                job.overs[parts.fire] = outcome.ended_at
            if outcome.kind == Kind.SKIPPED and outcome.trigger == Trigger.CHAIN:
                pass  # no fire of its own
            elif outcome.kind == Kind.SKIPPED:
                first = int(outcome.fire_at or parts.fire or 0)
                job.skips[run] = (first, outcome.to_at or first, outcome.count, outcome.reason)
            else:
                if outcome.final:
                    job.ends.setdefault(run, []).append(outcome.kind)
                if attempt == "1":
                    job.firsts[run] = job.firsts.get(run, 0) + 1
        if outcome.kind != Kind.SKIPPED:
            self._run(run)


def _definition(since: float, document: Mapping[str, Any], job: str) -> Definition:
    schedule = document.get("schedule")
    schedules = schedule if isinstance(schedule, list) else [schedule] if schedule else []
    return Definition(since, bool(document.get("enabled", True)), tuple(schedules), job)
