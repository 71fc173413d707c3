"""Runs that are late or take too long, and fires that became no run: what their alerts say, and which outcomes are one.

How late and how long a run may be its job says (`alerts`), once each; the envelope carries what concerns its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from crony.domain.alert import Alert, AlertKind, checked
from crony.domain.alerting import Rule
from crony.domain.durations import format_duration
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.record import UnknownRecord
from crony.domain.run import Trigger

MISSED = frozenset({SkipReason.OVERLAP, SkipReason.MISFIRE, SkipReason.ERROR, SkipReason.RESTORED, SkipReason.NO_NODE})
"""Why a fire became no run though it was due: what is paused, deleted or follows another job is not."""
_SAID = {
    SkipReason.OVERLAP: "another run was under way", SkipReason.MISFIRE: "it was decided too late",
    SkipReason.ERROR: "it could not be decided", SkipReason.RESTORED: "etcd was restored from a backup",
    SkipReason.NO_NODE: "no node fitted",
}  # fmt: skip
_LATE, _SKIPPED = b'"late":', b'"kind":"skipped"'


def late_id(run: str) -> str:
    """Id of the alert that a run is late: it is told once."""
    return f"{AlertKind.LATE}.{run}"


def too_long_id(run: str) -> str:
    """Id of the alert that a run takes too long."""
    return f"{AlertKind.TOO_LONG}.{run}"


def late(run: str, job: str, name: str, *, fire_at: float, began_at: float | None, at: float, node: str = "") -> Alert:
    """A run began (None: it has not begun at `at`) too long after its nominal instant. Raises TypeError."""
    how = format_duration(max(0, round((at if began_at is None else began_at) - fire_at)))
    said = f"began {how} later" if began_at is not None else f"has not begun {how} later"
    return checked(
        {
            "id": late_id(run), "kind": AlertKind.LATE.value, "at": at, "job": job, "name": name, "run": run,
            "node": node, "reason": f"it was due at {_moment(fire_at)} and {said}",
        }
    )  # fmt: skip


def too_long(run: str, job: str, name: str, *, since: float, limit: float, at: float, node: str = "") -> Alert:
    """An attempt of a run is under way since `since`, which is longer than `limit`. Raises TypeError."""
    return checked(
        {
            "id": too_long_id(run), "kind": AlertKind.TOO_LONG.value, "at": at, "job": job, "name": name, "run": run,
            "node": node,
            "reason": f"it is under way since {_moment(since)}, for more than {format_duration(limit)}",
        }
    )  # fmt: skip


def late_end(run: str, value: bytes) -> Alert | None:
    """The alert that an outcome of `run` calls for because its first attempt began late; else None."""
    if _LATE not in value:
        return None
    try:
        told = Outcome.read(value)
        if told.attempt != 1 or not told.late or told.fire_at is None or told.started_at is None:
            return None
        if told.started_at - told.fire_at <= told.late:
            return None
        return late(
            run, told.job, told.name, fire_at=told.fire_at, began_at=told.started_at, at=told.ended_at, node=told.node
        )
    except (UnknownRecord, ValueError, TypeError, OverflowError):
        return None


def missed(run: str, value: bytes, rules: Iterable[Rule]) -> Alert | None:
    """The alert that an outcome of `run` calls for because its fire became no run: where its job, or one of the
    `rules` for a job that says nothing, asks for it; else None."""
    if _SKIPPED not in value:
        return None
    try:
        told = Outcome.read(value)
        reason = SkipReason(told.reason)
        if told.kind != Kind.SKIPPED or told.trigger != Trigger.SCHEDULE or reason not in MISSED:
            return None
        asked = any("missed" in rule.on and rule.covers(told.name) for rule in rules)
        if told.missed == "no" or (told.missed != "yes" and not asked):
            return None
        due = f"it was due at {_moment(told.fire_at or 0.0)}"
        if told.count > 1:
            due = f"it was due {told.count} times from {_moment(told.fire_at or 0.0)} to {_moment(told.to_at or 0.0)}"
        why = f"{_SAID[reason]}; {told.detail}" if told.detail else _SAID[reason]
        return checked(
            {
                "id": f"{AlertKind.MISSED}.{run}", "kind": AlertKind.MISSED.value, "at": told.ended_at, "job": told.job,
                "name": told.name, "run": run, "outcome": told.kind, "reason": f"{due}; {why}",
            }
        )  # fmt: skip
    except (UnknownRecord, ValueError, TypeError, OverflowError):
        return None


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
