"""An alert: something a person must know. It lies in etcd until the database has it, so that it is never lost."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from crony.domain.outcome import Kind
from crony.domain.record import Record, UnknownRecord
from crony.domain.shards import Part

MOST_UNDELIVERED = 10_000
"""Most alerts kept in etcd for a database that is away; further ones are counted in one alert of their own."""
ID_LIMIT = 160
"""Most characters of an alert id: the longest run id and its kind fit."""

BAD = frozenset({Kind.FAILED, Kind.TIMED_OUT, Kind.LOST, Kind.UNKNOWN, Kind.REFUSED})
"""Outcomes that, when nothing follows them, are a failure. Skipped and cancelled ones are not."""
_KIND = re.compile(rb'"kind":"([a-z_]*)"')


class AlertKind(StrEnum):
    """What an alert is about."""

    RUN_FAILED = "run_failed"
    RUN_HELD = "run_held"  # its node was lost, and it waits for a person to decide what follows
    JOB_PAUSED = "job_paused"  # its leader paused it, as it asked for after so many failures
    JOB_HELD = "job_held"  # it cannot be fired, and why; its zone is gone, say
    NODE_LOST = "node_lost"
    LEADER_CHANGED = "leader_changed"
    TZDATA = "tzdata"  # the centres decide by different time zone data
    QUEUE_AGE = "queue_age"  # a run that could begin, and that nobody has begun for long
    NOT_KEPT = "not_kept"  # more alerts than etcd keeps for a database that is away; `times` says how many
    RECOVERED = "recovered"  # the first run of a job that succeeded after one that failed
    LATE = "late"  # a run began, or has not begun, longer after its nominal instant than its job lets pass
    MISSED = "missed"  # fires that became no run
    TOO_LONG = "too_long"  # a run is under way for longer than its job lets pass
    FAILURE_RATE = "failure_rate"  # more of the runs fail than a rule lets pass
    TEST = "test"  # somebody wants to see an alert arrive
    UNREADABLE = "unreadable"  # an alert that this version cannot read; `reason` holds its text


@dataclass(frozen=True, slots=True)
class Alert(Record):
    """`alert/<id>`. The id follows from what happened, so that telling it again is the same alert."""

    id: str
    kind: str
    at: float
    """When it happened, epoch seconds."""
    job: str = ""
    name: str = ""
    """Name of the job."""
    run: str = ""
    attempt: int = 0
    outcome: str = ""
    node: str = ""
    reason: str = ""
    times: int = 1
    """How many alerts it stands for."""
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Destination -> {state, at, said}: to whom it was sent, or why not; empty until that is over."""

    def sentence(self) -> str:
        """One line for logs and terminals."""
        because = f": {self.reason}" if self.reason else ""
        match self.kind:
            case AlertKind.RUN_FAILED:
                what = "failed" if self.outcome in ("", Kind.FAILED) else f"ended as {self.outcome.replace('_', ' ')}"
                return f"run {self.run} of job {self.name or self.job} {what}{because}"
            case AlertKind.RUN_HELD:
                return f"run {self.run} of job {self.name or self.job} waits for a person to decide{because}"
            case AlertKind.JOB_PAUSED:
                return f"job {self.name or self.job} is paused{because}"
            case AlertKind.JOB_HELD:
                return f"job {self.name or self.job} does not fire{because}"
            case AlertKind.TZDATA:
                return f"the centres use different time zone data{because}"
            case AlertKind.NODE_LOST:
                return f"node {self.node} is lost{because}"
            case AlertKind.LEADER_CHANGED:
                return f"another centre leads{because}"
            case AlertKind.QUEUE_AGE:
                return f"run {self.run} of job {self.name or self.job} has not begun{because}"
            case AlertKind.RECOVERED:
                return f"job {self.name or self.job} works again{because}"
            case AlertKind.LATE:
                return f"run {self.run} of job {self.name or self.job} is late{because}"
            case AlertKind.MISSED:
                return f"job {self.name or self.job} did not run{because}"
            case AlertKind.TOO_LONG:
                return f"run {self.run} of job {self.name or self.job} takes long{because}"
            case AlertKind.FAILURE_RATE:
                return f"many runs of {self.name} fail{because}"
            case AlertKind.TEST:
                return f"a test{because}"
            case AlertKind.NOT_KEPT:
                return f"{self.times} alerts were not kept{because}"
        return f"{self.kind}{because}"


def run_failed(run: str, value: bytes) -> Alert | None:
    """The alert that an outcome of `run` calls for: its final failure, or its being put on hold; else None.

    An outcome that nobody can read calls for none: the archiver says so.
    """
    # The first `"kind":` of a record of ours is its own. Most outcomes are good, and reading one costs more than this.
    kind = _KIND.search(value)
    if kind is not None and kind[1] == b"succeeded":
        return None
    try:
        told = json.loads(value)
        held = bool(told.get("held")) and not told["final"]
        if not (told["final"] or held) or told["kind"] not in BAD:
            return None
        what = AlertKind.RUN_HELD if held else AlertKind.RUN_FAILED
        return checked(
            {
                "id": f"{what}.{run}" + (f".{told['attempt']}" if held else ""),
                "kind": what.value,
                "at": told["ended_at"],
                "job": told["job"],
                "name": told["name"],
                "run": run,
                "attempt": told["attempt"],
                "outcome": told["kind"],
                "node": told.get("node", ""),
                "reason": told.get("reason") or told.get("detail") or "",
            }
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def job_paused(job: str, name: str, run: str, outcome: str, why: str, at: float) -> Alert:
    """The leader paused a job because of how `run` ended."""
    return checked(
        {
            "id": f"{AlertKind.JOB_PAUSED}.{run}",
            "kind": AlertKind.JOB_PAUSED.value,
            "at": at,
            "job": job,
            "name": name,
            "run": run,
            "outcome": outcome,
            "reason": why,
        }
    )


def job_held(job: str, name: str, revision: int, seen: int, at: float, why: str) -> Alert:
    """The leader cannot fire a job. `seen`: revision of its cursor then, so that each time is an alert of its own."""
    return checked(
        {
            "id": f"{AlertKind.JOB_HELD}.{job}.{revision}.{seen}",
            "kind": AlertKind.JOB_HELD.value,
            "at": at,
            "job": job,
            "name": name,
            "reason": why,
        }
    )


def tzdata_differs(centres: Mapping[str, str], at: float) -> Alert:
    """Centres, by name, decide by these releases of the time zone data."""
    releases = ", ".join(sorted(set(centres.values())))
    said = "; ".join(f"{name}: {release}" for name, release in sorted(centres.items()))
    ident = hashlib.sha256(releases.encode()).hexdigest()[:16]
    return checked({"id": f"{AlertKind.TZDATA}.{ident}", "kind": AlertKind.TZDATA.value, "at": at, "reason": said})


def node_lost(incarnation: str, node: str, at: float) -> Alert:
    """A node's session is gone, and nobody had asked it to stop."""
    return Alert(
        f"{AlertKind.NODE_LOST}.{incarnation}",
        AlertKind.NODE_LOST.value,
        at,
        node=node,
        reason="its session ended without a stop or a drain",
    )


def leader_changed(part: Part, term: int, centre: str, before: str, at: float) -> Alert:
    """Another centre than before leads a shard."""
    leads = "leads" if part.of == 1 else f"leads shard {part.number}"
    return Alert(
        f"{AlertKind.LEADER_CHANGED}.{part.number}.{term}",
        AlertKind.LEADER_CHANGED.value,
        at,
        reason=f"{centre} {leads} now, before it {before} did",
    )


def queue_age(run: str, job: str, name: str, since: float, at: float, why: str, node: str) -> Alert:
    """A run waits since `since`, because `why`."""
    minutes = max(1, round((at - since) / 60))
    return checked(
        {
            "id": f"{AlertKind.QUEUE_AGE}.{run}",
            "kind": AlertKind.QUEUE_AGE.value,
            "at": at,
            "job": job,
            "name": name,
            "run": run,
            "node": node,
            "reason": f"it has waited for {minutes} min; {why}",
        }
    )


def recovered(run: str, value: bytes) -> Alert | None:
    """The alert that a run of a job succeeded whose last one had failed; None: `value` is not its final success."""
    try:
        told = json.loads(value)
        if told["kind"] != Kind.SUCCEEDED or not told["final"]:
            return None
        return checked(
            {
                "id": f"{AlertKind.RECOVERED}.{run}",
                "kind": AlertKind.RECOVERED.value,
                "at": told["ended_at"],
                "job": told["job"],
                "name": told["name"],
                "run": run,
                "attempt": told["attempt"],
                "outcome": told["kind"],
                "node": told.get("node", ""),
            }
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def failure_rate(rule: str, job: str, name: str, failed: int, ended: int, window: str, at: float) -> Alert:
    """Too many runs failed, as a rule says; of one job, or (`job` empty) of all that the rule covers."""
    ident = hashlib.sha256(f"{rule}/{job}/{at}".encode()).hexdigest()[:24]
    return checked(
        {
            "id": f"{AlertKind.FAILURE_RATE}.{ident}",
            "kind": AlertKind.FAILURE_RATE.value,
            "at": at,
            "job": job,
            "name": name,
            "reason": f"{failed} of {ended} runs failed within {window} ({100 * failed // ended} %), says rule {rule}",
        }
    )


def test(ident: str, who: str, at: float) -> Alert:
    """Somebody wants to see an alert arrive."""
    return Alert(f"{AlertKind.TEST}.{ident}", AlertKind.TEST.value, at, reason=f"asked for by {who}")


def not_kept(term: int, times: int, at: float) -> Alert:
    """So many alerts of this term found no room."""
    return Alert(
        f"{AlertKind.NOT_KEPT}.{term}",
        AlertKind.NOT_KEPT.value,
        at,
        reason=f"more than {MOST_UNDELIVERED} waited for the database; their runs are listed as failed",
        times=times,
    )


def read(ident: str, value: bytes | Mapping[str, Any], now: float) -> Alert:
    """The alert under `alert/<ident>`, fit for a database; one that cannot be read becomes an alert about that."""
    try:
        told = Alert.read(value)
        return checked({**told.payload(), "id": ident})
    except (UnknownRecord, ValueError, TypeError):
        text = value[:600].decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
        return Alert(_ident(ident), AlertKind.UNREADABLE.value, now, reason=text)


def checked(told: Mapping[str, Any]) -> Alert:
    """The alert of these fields, its texts cut, its numbers such as a database holds. Raises TypeError, ValueError."""
    values: dict[str, Any] = {}
    for each in fields(Alert):
        value = told.get(each.name, each.default)
        if each.name == "told":
            value = _results(told.get("told"))
        elif each.name == "at":
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise TypeError("at is not a time")
            value = min(max(float(value), 0.0), 1e11)
        elif each.name in ("attempt", "times"):
            if type(value) is not int:
                raise TypeError(f"{each.name} is not a number")
            value = min(max(value, 0), 2**31 - 1)
        elif not isinstance(value, str):
            raise TypeError(f"{each.name} is not text")
        elif each.name == "reason" and len(value) > 600:
            value = value[:599] + "…"
        values[each.name] = value
    return Alert(**values | {"id": _ident(values["id"]), "kind": values["kind"][:20]})


def _results(value: Any) -> dict[str, dict[str, Any]]:
    """What became of an alert at its destinations; what is none of ours is left out."""
    if not isinstance(value, dict):
        return {}
    return {
        str(name)[:320]: {"state": str(each["state"])[:20], "at": float(each["at"]), "said": str(each["said"])[:300]}
        for name, each in list(value.items())[:50]
        if isinstance(each, dict) and {"state", "at", "said"} <= each.keys() and isinstance(each["at"], int | float)
    }


def _ident(text: str) -> str:
    """`text`, or a digest of one that is longer than a row's id."""
    if len(text) <= ID_LIMIT:
        return text
    return "long." + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
