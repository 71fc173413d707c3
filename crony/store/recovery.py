"""What a recovery asks of the archive: which fires of a job, and which runs, it knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased

from crony.domain.chain import End
from crony.domain.outcome import Kind
from crony.domain.run import State, Trigger
from crony.store.db import Database
from crony.store.models import JobRow, JobVersionRow, RunRow, SkipRow

PAGE = 500


@dataclass(frozen=True, slots=True)
class KnownFires:
    """Nominal seconds of the fires that became runs, and (first, last) of those skipped."""

    runs: frozenset[int] = frozenset()
    skips: tuple[tuple[int, int], ...] = ()

    def has(self, instant: int) -> bool:
        """Whether something is known to have become of a fire."""
        return instant in self.runs or any(first <= instant <= last for first, last in self.skips)

    @property
    def last(self) -> int:
        """The last of them; 0: there is none."""
        return max([*self.runs, *(last for _, last in self.skips)], default=0)


@dataclass(frozen=True, slots=True)
class SavedJob:
    """A job as the database has it. `versions`: (revision, saved at, document), oldest first."""

    id: str
    name: str
    generation: int
    revision: int
    deleted_at: float | None
    versions: tuple[tuple[int, float, dict[str, object]], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run as far as it was archived; `attempt` is the last one known to have ended."""

    id: str
    job: str
    name: str
    generation: int
    revision: int
    trigger: str
    attempt: int
    ended: bool
    outcome: str
    fire_at: float | None
    requested_at: float | None
    parts: int = 0
    """Of a run of which nothing but some of its parts is known: how many it has at least. 0: it is known itself."""


def fires(db: Database, job: str, after: int) -> KnownFires:
    """What is known of the fires of a job later than `after`. Raises `Unavailable`."""
    mine = RunRow.job_id == job, RunRow.trigger == Trigger.SCHEDULE.value  # a backfill's runs are no fires
    runs = select(RunRow.fire_at).where(*mine, RunRow.sort_at >= after, RunRow.fire_at > after)
    skipped = SkipRow.job_id == job, SkipRow.trigger == Trigger.SCHEDULE.value
    skips = select(SkipRow.fire_at, SkipRow.to_at).where(*skipped, SkipRow.decided_at >= after)
    at = db.read(lambda session: session.scalars(runs).all())
    ranges = db.read(lambda session: session.execute(skips).all())
    return KnownFires(
        frozenset(int(instant) for instant in at if instant is not None),
        tuple((int(first), int(last if last is not None else first)) for first, last in ranges if first is not None),
    )


def runs(db: Database, wanted: Iterable[str]) -> dict[str, KnownRun]:
    """Those of these runs that the archive knows; a skipped fire is a run that has ended. Raises `Unavailable`.

    One of which it has parts alone is known, and has not ended: the row of a run in parts comes with its end.
    """
    todo, found = sorted(set(wanted)), dict[str, KnownRun]()
    for start in range(0, len(todo), PAGE):
        part = todo[start : start + PAGE]
        rows = db.read(lambda session, part=part: session.scalars(select(RunRow).where(RunRow.id.in_(part))).all())  # type: ignore[misc]
        found |= {row.id: _known(row) for row in rows}
        query = select(SkipRow).where(SkipRow.run_id.in_(part))
        for row in db.read(lambda session, query=query: session.scalars(query).all()):  # type: ignore[misc]
            found.setdefault(
                row.run_id,
                KnownRun(row.run_id, row.job_id, row.job_name, row.generation, row.revision, row.trigger, 0, True,
                         Kind.SKIPPED.value, row.fire_at, None),
            )  # fmt: skip
        for whole in _wholes(db, _PARTED.where(RunRow.parent_id.in_(part))):
            found.setdefault(whole.id, whole)
    return found


def open_runs(db: Database) -> list[KnownRun]:
    """Runs of which an attempt ended and the run did not. Raises `Unavailable`."""
    query = select(RunRow).where(RunRow.state != State.ENDED.value)
    return [_known(row) for row in db.read(lambda session: session.scalars(query).all())]


def open_wholes(db: Database, since: float) -> list[KnownRun]:
    """Runs of which a part ended after `since` (epoch seconds), and nothing else is known. Raises `Unavailable`."""
    whole = aliased(RunRow)
    unknown = ~select(whole.id).where(whole.id == RunRow.parent_id).exists()
    return _wholes(db, _PARTED.where(RunRow.parent_id.is_not(None), RunRow.ended_at >= since, unknown))


_PARTED = select(
    RunRow.parent_id, func.min(RunRow.job_id), func.min(RunRow.job_name), func.max(RunRow.generation),
    func.max(RunRow.revision), func.min(RunRow.trigger), func.min(RunRow.fire_at), func.min(RunRow.requested_at),
    func.max(RunRow.part),
).group_by(RunRow.parent_id)  # fmt: skip


def _wholes(db: Database, query: Select[*tuple[Any, ...]]) -> list[KnownRun]:
    rows = db.read(lambda session: session.execute(query).all())
    return [
        KnownRun(run, job, name, generation, revision, trigger, 0, False, "", fire_at, asked, parts=part + 1)
        for run, job, name, generation, revision, trigger, fire_at, asked, part in rows
    ]


def ends(db: Database, jobs: Sequence[str], since: float) -> list[tuple[End, float]]:
    """Ends of whole runs of these jobs after `since` (epoch seconds), and their fires that became no run; each with
    its instant, in that order. Runs that nothing was to follow are left out. Raises `Unavailable`."""
    found: list[tuple[End, float]] = []
    for start in range(0, len(jobs), PAGE):
        part = jobs[start : start + PAGE]
        over = RunRow.state == State.ENDED.value, RunRow.ended_at >= since, RunRow.parent_id.is_(None)
        runs = select(RunRow).where(RunRow.job_id.in_(part), *over, RunRow.no_chain.is_not(True))
        for row in db.read(lambda session, query=runs: session.scalars(query).all()):  # type: ignore[misc]
            facts = {"result": row.result, "reason": row.reason, "code": row.code, "run": row.id}
            at, begun = row.ended_at or since, row.requested_at or row.ended_at or since
            end = End(row.id, row.job_id, row.job_name, row.outcome, row.chain_id or row.id, begun)
            found.append((end._replace(facts={**facts, "outcome": row.outcome}), at))
        skips = select(SkipRow).where(SkipRow.job_id.in_(part), SkipRow.decided_at >= since)
        for row in db.read(lambda session, query=skips: session.scalars(query).all()):  # type: ignore[misc]
            facts = {"reason": row.reason, "run": row.run_id, "outcome": Kind.SKIPPED.value}
            end = End(row.run_id, row.job_id, row.job_name, Kind.SKIPPED.value, row.chain_id or row.run_id)
            last = row.to_at
            first = row.fire_at if last is not None else None
            found.append(
                (end._replace(chain_at=row.decided_at, fire_at=first, to_at=last, facts=facts), row.decided_at)
            )
    return sorted(found, key=lambda each: (each[1], each[0].run))


def jobs(db: Database) -> Iterator[SavedJob]:
    """Every job, deleted ones too, without its versions. Raises `Unavailable`."""
    last = ""
    while True:
        query = select(JobRow).where(JobRow.id > last).order_by(JobRow.id).limit(PAGE)
        rows: Sequence[JobRow] = db.read(lambda session, query=query: session.scalars(query).all())  # type: ignore[misc]
        for row in rows:
            yield SavedJob(row.id, row.name, row.generation, row.revision, row.deleted_at)
        if len(rows) < PAGE:
            return
        last = rows[-1].id


def versions(db: Database, job: str, after: int) -> list[tuple[int, float, dict[str, object]]]:
    """(revision, saved at, document) of the saves later than revision `after`, oldest first. Raises `Unavailable`."""
    query = select(JobVersionRow).where(JobVersionRow.job_id == job, JobVersionRow.revision > after)
    rows = db.read(lambda session: session.scalars(query.order_by(JobVersionRow.revision)).all())
    return [(row.revision, row.at, row.document) for row in rows]


def _known(row: RunRow) -> KnownRun:
    return KnownRun(
        row.id, row.job_id, row.job_name, row.generation, row.revision, row.trigger, row.attempt,
        row.state == State.ENDED.value, row.outcome, row.fire_at, row.requested_at,
    )  # fmt: skip
