"""Reading the archive: runs with filters and cursors, attempts, skips, counts, last runs of many jobs; pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, delete, func, or_, select, union_all
from sqlalchemy.orm import Session

from crony.domain.alert import BAD
from crony.domain.outcome import Kind
from crony.domain.run import Trigger
from crony.errors import NotFound
from crony.store import cursor as cursors
from crony.store.cursor import Paged, limit_of
from crony.store.db import Database
from crony.store.models import AttemptRow, NodeRow, OutputChunkRow, OutputRow, RejectRow, RunRow, SkipRow


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs: every field given must hold. Instants are epoch seconds; `since` inclusive, `until` exclusive."""

    job: str | None = None
    """Job id."""
    outcome: str | Sequence[str] | None = None
    state: str | None = None
    node: str | None = None
    trigger: str | None = None
    """Parts of runs are left out, the whole stands for them; but only parts have a node."""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One ended attempt."""

    n: int
    outcome: str
    final: bool
    reason: str
    detail: str
    code: int | None
    node: str
    fence: int
    started_at: float | None
    ended_at: float
    result: Any
    why: str


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as the archive knows it; `state` is ended, or waiting when an attempt ended and another may follow."""

    id: str
    job: str
    job_name: str
    generation: int
    revision: int
    trigger: str
    state: str
    outcome: str
    reason: str
    attempt: int
    code: int | None
    node: str
    fire_at: float | None
    requested_at: float | None
    started_at: float | None
    ended_at: float | None
    result: Any
    params: Any
    why: str
    idem: str
    attempts: list[AttemptView] = field(default_factory=list)
    parent: str = ""
    """The run it is a part of."""
    part: int | None = None
    parts: int = 0
    """How many parts its run has; 0: it is not split."""
    chain: str = ""
    """The run that its chain began with; empty: it began one itself."""
    cause: str = ""
    """The run whose end it follows."""

    @property
    def duration(self) -> float | None:
        """Seconds from the first start to the end."""
        return None if self.started_at is None or self.ended_at is None else max(0.0, self.ended_at - self.started_at)


def list_runs(
    db: Database, wanted: Filter = Filter(), *, limit: int | None = None, cursor: str | None = None
) -> Paged[RunView]:
    """A page of runs, newest first. Raises `Invalid` for a cursor we did not give out."""
    size = limit_of(limit)
    query = _filtered(select(RunRow), wanted)
    if cursor is not None:
        at, ident = cursors.parts("runs", cursor, int, str)
        query = query.where(cursors.before(RunRow.sort_at, RunRow.id, int(at), str(ident)))
    query = query.order_by(RunRow.sort_at.desc(), RunRow.id.desc()).limit(size + 1)
    rows = db.read(lambda session: session.scalars(query).all())
    last = rows[size - 1] if len(rows) > size else None
    after = cursors.make("runs", round(last.sort_at * 1000), last.id) if last else None
    return Paged([_view(row) for row in rows[:size]], after)


def backfilled(db: Database, job: str, generation: int, instant: int) -> list[RunView]:
    """The runs of backfills for an instant of a job, whole ones."""
    first = f"{job}.{generation}.b"  # as `ids.backfill_run_id` names them: the primary key finds them
    query = select(RunRow).where(RunRow.id >= first, RunRow.id < f"{job}.{generation}.c", RunRow.fire_at == instant)
    query = query.where(RunRow.trigger == Trigger.BACKFILL.value, RunRow.parent_id.is_(None)).limit(100)
    return [_view(row) for row in db.read(lambda session: session.scalars(query).all())]


def get(db: Database, run: str) -> RunView:
    """One run with its attempts; a skipped fire is a run that ended as skipped. Raises `NotFound`."""

    def look(session: Session) -> RunView | None:
        row = session.get(RunRow, run)
        if row is not None:
            return _view(row, _attempts(session, run))
        skip = session.get(SkipRow, run)
        return None if skip is None else _skipped(skip)

    found = db.read(look)
    if found is None:
        raise NotFound(f"There is no run {run} in the archive")
    return found


def ended(db: Database, runs: Sequence[str]) -> set[str]:
    """Those of `runs` that the archive has as ended."""
    found: set[str] = set()
    for start in range(0, len(runs), 500):
        query = select(RunRow.id).where(RunRow.id.in_(runs[start : start + 500]), RunRow.state == "ended")
        found.update(db.read(lambda session, query=query: session.scalars(query).all()))  # type: ignore[misc]
    return found


def ends(db: Database, since: float, most: int) -> list[tuple[str, str, str, bool, float]]:
    """(run, job, name of the job, failed, when) of whole runs that ended since, cancelled ones left out, newest first.

    A run that began more than a day before `since` may be missing.
    """
    bad = [kind.value for kind in BAD]
    query = (
        select(RunRow.id, RunRow.job_id, RunRow.job_name, RunRow.outcome, RunRow.ended_at)
        .where(RunRow.sort_at >= since - 86_400, RunRow.ended_at >= since, RunRow.parent_id.is_(None))
        .where(RunRow.outcome.in_([*bad, Kind.SUCCEEDED.value]))
        .order_by(RunRow.sort_at.desc())
        .limit(most)
    )
    found = db.read(lambda session: session.execute(query).all())
    return [(run, job, name, outcome in bad, at) for run, job, name, outcome, at in found if at is not None]


def attempts(db: Database, run: str) -> list[AttemptView]:
    """The ended attempts of a run, in order; empty when the archive knows none."""
    return db.read(lambda session: _attempts(session, run))


def parts(db: Database, run: str, first: int, limit: int) -> list[RunView]:
    """The parts of a run that the archive knows, of `limit` from number `first` on, in order."""
    query = select(RunRow).where(RunRow.parent_id == run, RunRow.part >= first, RunRow.part < first + limit)
    return [_view(row) for row in db.read(lambda session: session.scalars(query.order_by(RunRow.part)).all())]


def in_chain(db: Database, chain: str, limit: int) -> list[RunView]:
    """What the archive knows of a chain: its first `limit` runs, and as many records of jobs that did not run."""

    def look(session: Session) -> list[RunView]:
        of = or_(RunRow.chain_id == chain, RunRow.id == chain)
        rows = session.scalars(select(RunRow).where(of).order_by(RunRow.sort_at, RunRow.id).limit(limit))
        found = [_view(row) for row in rows if row.parent_id is None]
        missed = or_(SkipRow.chain_id == chain, SkipRow.run_id == chain)
        skips = session.scalars(select(SkipRow).where(missed).order_by(SkipRow.decided_at, SkipRow.run_id).limit(limit))
        return found + [_skipped(row) for row in skips]

    return db.read(look)


def first_parts(db: Database, runs: Sequence[str], most: int) -> list[RunView]:
    """The parts numbered below `most` of each of these runs."""
    query = select(RunRow).where(RunRow.parent_id.in_(list(runs)), RunRow.part < most)
    return [_view(row) for row in db.read(lambda session: session.scalars(query).all())]


def last_runs(db: Database, jobs: Sequence[str], n: int = 1) -> dict[str, list[RunView]]:
    """The last `n` runs of each job, newest first, in one query; jobs without runs are left out."""
    found: dict[str, list[RunView]] = {}
    names = list(dict.fromkeys(jobs))
    for start in range(0, len(names), 100):  # SQLite takes at most 500 parts of a union
        parts = [
            select(
                select(RunRow.id)
                .where(RunRow.job_id == job, RunRow.parent_id.is_(None))
                .order_by(RunRow.sort_at.desc(), RunRow.id.desc())
                .limit(n)
                .subquery()
            )
            for job in names[start : start + 100]
        ]
        ids = union_all(*parts).subquery()
        query = select(RunRow).join(ids, ids.c.id == RunRow.id).order_by(RunRow.sort_at.desc(), RunRow.id.desc())
        for row in db.read(lambda session, query=query: session.scalars(query).all()):  # type: ignore[misc]
            found.setdefault(row.job_id, []).append(_view(row))
    return found


def counts(db: Database, *, since: float, until: float | None = None, job: str | None = None) -> dict[str, int]:
    """Runs that ended, by outcome, and skipped fires, in a span of time. What goes on still is known by etcd."""

    def look(session: Session) -> dict[str, int]:
        totals_of: Any = select(RunRow.outcome, func.count())
        query = _filtered(totals_of, Filter(job=job, since=since, until=until, state="ended"))
        totals: dict[str, int] = {str(name): int(n) for name, n in session.execute(query.group_by(RunRow.outcome))}
        skips = select(func.coalesce(func.sum(SkipRow.count), 0)).where(SkipRow.decided_at >= since)
        if until is not None:
            skips = skips.where(SkipRow.decided_at < until)
        if job is not None:
            skips = skips.where(SkipRow.job_id == job)
        skipped = int(session.scalar(skips) or 0)
        return totals | ({"skipped": skipped} if skipped else {})

    return db.read(look)


def series(
    db: Database, *, since: float, until: float, step: float, job: str | None = None
) -> list[tuple[float, dict[str, int]]]:
    """Counts of ended runs by outcome in steps of `step` seconds: (start, {outcome: number}), every step present."""
    begin, width = round(since * 1000), max(1, round(step * 1000))
    raw = func.floor((cursors.milliseconds(RunRow.sort_at) - begin) / width)
    query = _filtered(
        select(raw, RunRow.outcome, func.count()), Filter(job=job, since=since, until=until, state="ended")
    )
    query = query.group_by(raw, RunRow.outcome)
    steps: list[tuple[float, dict[str, int]]] = []
    at = since
    while at < until and len(steps) < 2000:
        steps.append((at, {}))
        at += step
    for index, outcome, number in db.read(lambda session: session.execute(query).all()):
        if 0 <= int(index) < len(steps):
            steps[int(index)][1][outcome] = int(number)
    return steps


def nodes(db: Database) -> list[NodeRow]:
    """Every node the archive has seen, by name."""
    return list(db.read(lambda session: session.scalars(select(NodeRow).order_by(NodeRow.name)).all()))


def prune(db: Database, older_than: float, *, batch: int = 500) -> Mapping[str, int]:
    """Delete runs, their output, skips and rejects from before this instant, in short transactions; what went."""
    gone = {"runs": 0, "skips": 0, "outputs": 0, "rejects": 0}
    while True:
        old = select(RunRow.id).where(RunRow.sort_at < older_than).order_by(RunRow.sort_at, RunRow.id).limit(batch)
        ids = db.read(lambda session, old=old: list(session.scalars(old)))  # type: ignore[misc]
        if not ids:
            break
        db.transaction(lambda session, ids=ids: _forget(session, ids))  # type: ignore[misc]
        gone["runs"] += len(ids)
    stray = select(OutputRow.run_id).where(OutputRow.updated_at < older_than).distinct().limit(batch)
    while ids := db.read(lambda session: list(session.scalars(stray))):
        db.transaction(lambda session, ids=ids: _forget(session, ids, _OUTPUT))  # type: ignore[misc]
        gone["outputs"] += len(ids)
    skips = select(SkipRow.run_id).where(SkipRow.decided_at < older_than).limit(batch)
    while ids := db.read(lambda session: list(session.scalars(skips))):
        db.transaction(lambda session, ids=ids: session.execute(delete(SkipRow).where(SkipRow.run_id.in_(ids))))  # type: ignore[misc]
        gone["skips"] += len(ids)
    bad = select(RejectRow.id).where(RejectRow.at < older_than).limit(batch)
    while ids := db.read(lambda session: list(session.scalars(bad))):
        db.transaction(lambda session, ids=ids: session.execute(delete(RejectRow).where(RejectRow.id.in_(ids))))  # type: ignore[misc]
        gone["rejects"] += len(ids)
    return gone


_OUTPUT = (OutputChunkRow.run_id, OutputRow.run_id)


def _forget(session: Session, runs: list[str], where: Sequence[Any] = (*_OUTPUT, AttemptRow.run_id, RunRow.id)) -> None:
    for column in where:
        session.execute(delete(column.class_).where(column.in_(runs)))


def _filtered(query: Select[Any], wanted: Filter) -> Select[Any]:
    if wanted.job is not None:
        query = query.where(RunRow.job_id == wanted.job)
    if wanted.outcome is not None:
        kinds = [wanted.outcome] if isinstance(wanted.outcome, str) else list(wanted.outcome)
        query = query.where(RunRow.outcome.in_(kinds), RunRow.state == "ended")
    if wanted.state is not None:
        query = query.where(RunRow.state == wanted.state)
    if wanted.node is not None:
        query = query.where(RunRow.node == wanted.node)
    if wanted.trigger is not None:
        query = query.where(RunRow.trigger == wanted.trigger)
    if wanted.node is None:
        query = query.where(RunRow.parent_id.is_(None))
    if wanted.since is not None:
        query = query.where(RunRow.sort_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(RunRow.sort_at < wanted.until)
    return query


def reported(db: Database, run: str, attempt: int) -> tuple[str, str, str] | None:
    """Outcome of an ended attempt, hash of its callee's secret, hash of the report that ended it; None: not here."""
    row = db.read(lambda session: session.get(AttemptRow, (run, attempt)))
    return None if row is None else (row.outcome, row.secret, row.report)


def _attempts(session: Session, run: str) -> list[AttemptView]:
    rows = session.scalars(select(AttemptRow).where(AttemptRow.run_id == run).order_by(AttemptRow.n))
    return [
        AttemptView(
            row.n, row.outcome, row.final, row.reason, row.detail, row.code, row.node, row.fence,
            row.started_at, row.ended_at, row.result, row.why,
        )
        for row in rows
    ]  # fmt: skip


def _view(row: RunRow, tries: list[AttemptView] | None = None) -> RunView:
    return RunView(
        row.id, row.job_id, row.job_name, row.generation, row.revision, row.trigger, row.state, row.outcome, row.reason,
        row.attempt, row.code, row.node, row.fire_at, row.requested_at, row.started_at, row.ended_at, row.result,
        row.params, row.why, row.idem, tries or [], row.parent_id or "", row.part, row.parts or 0,
        row.chain_id or "", row.cause_id or "",
    )  # fmt: skip


def _skipped(row: SkipRow) -> RunView:
    reason = f"{row.reason}: {row.detail}" if row.detail else row.reason
    return RunView(
        row.run_id, row.job_id, row.job_name, row.generation, row.revision, row.trigger, "ended", "skipped", reason,
        0, None, "", row.fire_at, None, None, row.decided_at, None, None, "", "", chain=row.chain_id or "",
        cause=row.cause_id or "",
    )  # fmt: skip
