"""Figures of centres and nodes: what they count, how it travels in their records, and what it is called for Prometheus.

Neither listens on anything: their records in etcd, renewed every few seconds, carry the figures, and any web shows
them. Names are fixed and labels come from small sets, so their number is bounded whatever jobs are called.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the buckets of a distribution."""
LABELS = 24
"""Most values of one label of one figure; what is beyond them counts as `other`."""
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}")


class About(NamedTuple):
    """One figure: its name for Prometheus, what it tells, and its label (empty: none)."""

    name: str
    text: str
    label: str = ""


CENTRE_COUNTS = {
    "runs": About("crony_runs", "Runs that ended", "outcome"),
    "attempts": About("crony_attempts", "Attempts that ended; timeouts have the outcome timed_out", "outcome"),
    "retries": About("crony_retries", "Attempts beyond the first of their run that ended"),
    "skipped": About("crony_fires_skipped", "Due fires that became no run", "reason"),
    "late": About("crony_fires_late", "Fires dispatched more than a second after they were due"),
    "decisions": About("crony_decisions", "Steps of the leader; refused ones are decided anew", "verdict"),
}
CENTRE_TIMES = {
    "lag": About("crony_dispatch_lag_seconds", "From the nominal instant of a fire to its dispatch"),
    "start": About("crony_start_seconds", "From the dispatch of a run to the start of its first attempt"),
    "attempt": About("crony_attempt_seconds", "From the start of an attempt to its end, calls of services too", "kind"),
}
CENTRE_STATES = {
    "backlog": About("crony_archive_backlog", "Outcomes that the database does not have yet"),
    "undelivered": About("crony_alerts_undelivered", "Alerts that the database does not have yet"),
    "jobs": About("crony_jobs_live", "Jobs that the leaders of this centre decide"),
    "held": About("crony_dispatch_held", "Whether dispatch is held, by reason", "reason"),
    "failing": About("crony_duty_failing", "Whether a duty of a leader fails now, by duty", "duty"),
}
NODE_COUNTS = {
    "stale": About("crony_node_stale_ends", "Ends that came after somebody else had ended the attempt"),
    "given_up": About("crony_node_ends_given_up", "Ends that etcd did not take within the patience of a node"),
    "quarantined": About("crony_node_quarantined", "Messages that were set aside because they must not be executed"),
    "shed": About("crony_node_output_shed", "Attempts whose output was dropped because the spool was full"),
}
NODE_STATES = {
    "spool": About("crony_node_spool_bytes", "Output that the web does not have yet"),
    "web_away": About("crony_node_web_away", "Whether the web does not take output"),
    "running": About("crony_node_running", "Attempts under way"),
    "capacity": About("crony_node_capacity", "Attempts that run at a time"),
}


class Times(NamedTuple):
    """A distribution: how many fell into each bucket (the last has no bound), and the sum of all."""

    buckets: tuple[int, ...]
    total: float


@dataclass(slots=True)
class Figures:
    """What one process counted since its start. Any thread may count."""

    _counts: dict[str, dict[str, float]] = field(default_factory=dict)
    _times: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, label: str = "", by: float = 1) -> None:
        """So many more of one of the counts."""
        with self._lock:
            known = self._counts.setdefault(name, {})
            label = _within(known, label)
            known[label] = known.get(label, 0) + by

    def took(self, name: str, seconds: float, label: str = "") -> None:
        """One more of one of the distributions; a clock that went back counts as none."""
        with self._lock:
            known = self._times.setdefault(name, {})
            row = known.setdefault(_within(known, label), [0.0] * (len(SECONDS) + 2))
            row[bisect_left(SECONDS, seconds)] += 1
            row[-1] += max(0.0, seconds)

    def told(self, states: Mapping[str, Mapping[str, float]] | None = None) -> dict[str, Any]:
        """As it travels; `states` are how things stand now: by name and label."""
        with self._lock:
            counts = {name: dict(values) for name, values in self._counts.items()}
            times = {
                name: {label: [*map(int, row[:-1]), round(row[-1], 3)] for label, row in rows.items()}
                for name, rows in self._times.items()
            }
        return {"c": counts, "t": times, "s": {name: dict(values) for name, values in (states or {}).items()}}


def _within(known: Mapping[str, Any], label: str) -> str:
    return label if label in known or len(known) < LABELS else "other"


def numbers(told: Any, part: str, known: Mapping[str, About]) -> dict[str, dict[str, float]]:
    """Counts (`c`) or states (`s`) of a record, as far as they are known and make sense."""
    found: dict[str, dict[str, float]] = {}
    for name, about in known.items():
        for label, value in _rows(told, part, name, about):
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e18:
                found.setdefault(name, {})[label] = value
    return found


def distributions(told: Any, known: Mapping[str, About]) -> dict[str, dict[str, Times]]:
    """The distributions of a record, as far as they are known and make sense."""
    found: dict[str, dict[str, Times]] = {}
    for name, about in known.items():
        for label, row in _rows(told, "t", name, about):
            if not isinstance(row, list) or len(row) != len(SECONDS) + 2:
                continue
            if all(isinstance(item, int | float) and 0 <= item < 1e18 for item in row):
                found.setdefault(name, {})[label] = Times(tuple(int(item) for item in row[:-1]), float(row[-1]))
    return found


def _rows(told: Any, part: str, name: str, about: About) -> list[tuple[str, Any]]:
    rows = told.get(part) if isinstance(told, dict) else None
    values = rows.get(name) if isinstance(rows, dict) else None
    if not isinstance(values, dict):
        return []
    fits = (lambda label: _LABEL.fullmatch(label)) if about.label else (lambda label: label == "")
    return [(label, value) for label, value in values.items() if isinstance(label, str) and fits(label)][: LABELS + 1]
