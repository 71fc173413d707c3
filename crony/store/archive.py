"""Writing outcomes into the archive in bulk: repeating is harmless, the first outcome wins, an ended run stays ended.

A row that the database refuses is found by halving its batch and kept in `archive_rejects`, so that
one bad outcome never blocks the others.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.node import NodeFacts
from crony.domain.outcome import Kind, Outcome
from crony.domain.run import State
from crony.store import faults
from crony.store.bulk import first_wins, put
from crony.store.db import Database
from crony.store.models import ID, NAME, RUN, AttemptRow, NodeRow, RejectRow, RunRow, SkipRow
from crony.store.types import clean

log = logging.getLogger("crony.store.archive")

BATCH = 200
"""Most outcomes of one transaction."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: all of it is in the database now, `rejected` of it in `archive_rejects`."""

    archived: int
    rejected: int


def write(db: Database, outcomes: Iterable[Outcome], nodes: Iterable[NodeFacts] = ()) -> Written:
    """Store outcomes (in the order they happened) and facts of nodes; everything is committed on return.

    Raises `Unavailable` or `Unknown` when the database is away: call again with the same outcomes.
    """
    todo, rejected = list(outcomes), 0
    for start in range(0, len(todo), BATCH):
        rejected += _halve(db, todo[start : start + BATCH])
    seen = [_node(facts) for facts in nodes]
    if seen:
        db.transaction(lambda session: put(session, NodeRow, seen, _NODE_CHANGES))
    return Written(len(todo) - rejected, rejected)


def rejects(db: Database, limit: int = 50) -> list[RejectRow]:
    """The newest refused outcomes."""
    return db.read(lambda session: session.query(RejectRow).order_by(RejectRow.at.desc()).limit(limit).all())


def _halve(db: Database, batch: Sequence[Outcome]) -> int:
    """Store the batch; returns how many were refused."""
    try:
        rows = _Rows(batch)
        db.transaction(rows.put)
    except Exception as error:
        if not faults.about_data(error):
            raise
        if len(batch) == 1:
            _reject(db, batch[0], error)
            return 1
        middle = len(batch) // 2
        return _halve(db, batch[:middle]) + _halve(db, batch[middle:])
    return 0


class _Rows:
    """The rows of a batch, in a fixed order (short locks, no deadlock between two archivers)."""

    def __init__(self, batch: Sequence[Outcome]) -> None:
        attempts: dict[tuple[str, int], dict[str, Any]] = {}
        skips: dict[str, dict[str, Any]] = {}
        runs: dict[str, dict[str, Any]] = {}
        for outcome in batch:
            _fits(outcome)
            if outcome.kind == Kind.SKIPPED:
                skips.setdefault(outcome.run, _skip(outcome))
                continue
            if outcome.attempt > 0:
                attempts.setdefault((outcome.run, outcome.attempt), _attempt(outcome))
            row, earlier = _run(outcome), runs.get(outcome.run)
            if earlier is None or (earlier["state"] != State.ENDED and _later(row, earlier)):
                if earlier is not None:
                    row["attempt"] = max(earlier["attempt"], row["attempt"])
                    if earlier["started_at"] is not None:
                        row["started_at"] = earlier["started_at"]
                runs[outcome.run] = row
        self.attempts = [attempts[key] for key in sorted(attempts)]
        self.skips = [skips[key] for key in sorted(skips)]
        self.runs = [runs[key] for key in sorted(runs)]

    def put(self, session: Session) -> None:
        """Insert or update; a row that is final already stays as it is."""
        first_wins(session, AttemptRow, self.attempts)
        first_wins(session, SkipRow, self.skips)
        put(session, RunRow, self.runs, _RUN_CHANGES)


_FIXED = frozenset({"id", "job_id", "generation", "trigger_kind", "fire_at", "sort_at", "parent_id", "part", "chain_id",
                    "cause_id"})  # fmt: skip
_NEWER = "runs.state <> 'ended' AND ({state} = 'ended' OR {attempt} >= runs.attempt)"


def _run_changes() -> dict[str, str]:
    """How a stored run follows new facts: not at all once it has ended, never back to an earlier attempt."""
    names = [column.name for column in RunRow.__table__.columns if column.name not in _FIXED]
    changes = {name: f"CASE WHEN {_NEWER} THEN {{{name}}} ELSE runs.{name} END" for name in names}
    changes["started_at"] = "CASE WHEN runs.state <> 'ended' THEN COALESCE(runs.started_at, {started_at}) "
    changes["started_at"] += "ELSE runs.started_at END"
    # MySQL assigns from left to right, and later expressions see it: what the condition reads is set last.
    changes["attempt"] = f"CASE WHEN {_NEWER} AND {{attempt}} > runs.attempt THEN {{attempt}} ELSE runs.attempt END"
    for name in ("attempt", "state"):
        changes[name] = changes.pop(name)
    return changes


_RUN_CHANGES = _run_changes()
_NODE_CHANGES = {column.name: f"{{{column.name}}}" for column in NodeRow.__table__.columns if column.name != "name"}


def _fits(outcome: Outcome) -> None:
    """Facts that may not be cut. Raises ValueError."""
    for name, value, most in (("run", outcome.run, RUN), ("job", outcome.job, ID), ("kind", outcome.kind, 20)):
        if not isinstance(value, str) or not 0 < len(value) <= most or clean(value) != value:
            raise ValueError(f"{name} is not an id")
    for name, value in (("chain", outcome.chain), ("cause", outcome.cause)):
        if not isinstance(value, str) or len(value) > RUN or clean(value) != value:
            raise ValueError(f"{name} is not a run id")
    for number in (outcome.attempt, outcome.generation, outcome.revision):
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError("attempt, generation and revision must be whole numbers")
    for known in (outcome.code, outcome.fence, outcome.to_at, outcome.count, outcome.parts):
        if known is not None and (isinstance(known, bool) or not isinstance(known, int)):
            raise ValueError("code, fence, to_at, count and parts must be whole numbers")
    for moment in (outcome.ended_at, outcome.started_at, outcome.requested_at, outcome.fire_at):
        if moment is not None and (isinstance(moment, bool) or not isinstance(moment, int | float)):
            raise ValueError("times must be numbers")


def _later(row: dict[str, Any], earlier: dict[str, Any]) -> bool:
    return bool(row["state"] == State.ENDED or row["attempt"] >= earlier["attempt"])


def _attempt(outcome: Outcome) -> dict[str, Any]:
    return {
        "run_id": outcome.run,
        "n": outcome.attempt,
        "outcome": outcome.kind,
        "final": bool(outcome.final),
        "reason": outcome.reason,
        "detail": outcome.detail,
        "code": outcome.code,
        "node": outcome.node,
        "incarnation": outcome.incarnation,
        "fence": outcome.fence,
        "started_at": outcome.started_at,
        "ended_at": outcome.ended_at,
        "result": outcome.result,
        "why": outcome.why,
        "secret": outcome.secret,
        "report": outcome.report,
    }


def _run(outcome: Outcome) -> dict[str, Any]:
    asked = outcome.requested_at or None
    part = ids.part_of(outcome.run)
    return {
        "id": outcome.run,
        "job_id": outcome.job,
        "job_name": outcome.name,
        "generation": outcome.generation,
        "revision": outcome.revision,
        "trigger_kind": str(outcome.trigger)[:20],
        "state": State.ENDED.value if outcome.final else State.WAITING.value,
        "outcome": outcome.kind,
        "reason": outcome.reason or outcome.detail,
        "attempt": outcome.attempt,
        "code": outcome.code,
        "node": outcome.node,
        "fire_at": outcome.fire_at,
        "requested_at": asked,
        "started_at": outcome.started_at,
        "ended_at": outcome.ended_at if outcome.final else None,
        "sort_at": asked or outcome.fire_at or outcome.started_at or outcome.ended_at,
        "result": outcome.result,
        "params": outcome.params,
        "why": outcome.why,
        "idem": outcome.idem,
        "parent_id": ids.whole(outcome.run) if part is not None else None,
        "part": part,
        "parts": outcome.parts or None,
        "chain_id": outcome.chain or None,
        "cause_id": outcome.cause or None,
        "no_chain": outcome.no_chain is True,
    }


def _skip(outcome: Outcome) -> dict[str, Any]:
    return {
        "run_id": outcome.run,
        "job_id": outcome.job,
        "job_name": outcome.name,
        "generation": outcome.generation,
        "revision": outcome.revision,
        "trigger_kind": str(outcome.trigger)[:20],
        "reason": outcome.reason,
        "detail": outcome.detail,
        "fire_at": outcome.fire_at,
        "to_at": outcome.to_at,
        "fires": outcome.count,
        "decided_at": outcome.ended_at,
        "chain_id": outcome.chain or None,
        "cause_id": outcome.cause or None,
    }


def _node(facts: NodeFacts) -> dict[str, Any]:
    return {
        "name": clean(facts.name, NAME),
        "incarnation": facts.incarnation,
        "hostname": facts.hostname,
        "version": facts.version,
        "capacity": facts.capacity,
        "labels": facts.labels,
        "kinds": facts.kinds,
        "started_at": facts.started_at,
        "seen_at": facts.seen_at,
    }


def _reject(db: Database, outcome: Outcome, error: Exception) -> None:
    record = clean(repr(outcome.payload()), 60_000)
    row = {
        "id": hashlib.sha256(record.encode()).hexdigest(),
        "run_id": str(outcome.run),
        "error": faults.sentence(error),
        "record": record,
        "at": SYSTEM.wall(),
    }
    log.error(
        "outcome of run %s was refused by the database and is kept in archive_rejects: %s", outcome.run, row["error"]
    )
    db.transaction(lambda session: first_wins(session, RejectRow, [row]))
