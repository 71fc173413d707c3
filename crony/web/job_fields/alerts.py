"""Whom a job's alerts go to: as the rules say, or for each event these channels and addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from crony.domain.alerting import LIMITS, OF_JOBS
from crony.errors import Invalid
from crony.web.job_fields.reading import names

DEFAULTS = {"alerts_by": "rules"} | {f"alerts_{name}": "" for name in (*OF_JOBS, *LIMITS.values())}
PATHS: tuple[tuple[str, str], ...] = ()
_BETWEEN = "[,，\\s]+"


def document(values: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """The `alerts` of a job: one entry for all events that go to the same; None: the rules decide."""
    return _entries(values) if values["alerts_by"] == "own" else None


def fields(alerts: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    """The fields of a job's `alerts`."""
    if alerts is None:
        return {}
    told = meaning(alerts) or {}
    limits = {f"alerts_{name}": told[name] for name in LIMITS.values()}
    return {"alerts_by": "own"} | {f"alerts_{event}": ", ".join(told[event]) for event in OF_JOBS} | limits


def meaning(alerts: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Whom each event is told to, and its limit, however it was written."""
    if alerts is None:
        return None
    found: dict[str, dict[str, None]] = {event: {} for event in OF_JOBS}
    for entry in alerts:
        for event in entry["on"]:
            found[event] |= dict.fromkeys(entry["to"])
    limits = {name: next((entry[name] for entry in alerts if entry.get(name)), "") for name in LIMITS.values()}
    return {event: list(to) for event, to in found.items()} | limits


def field_of(path: str, values: Mapping[str, str]) -> str:
    """The field of an error at `path`: its limit, or the first event of its entry."""
    entry = re.match(r"alerts\[(\d+)\]", path)
    name = path.rpartition(".")[2]
    if name in LIMITS.values():
        return f"alerts_{name}"
    if entry is None:
        return "alerts_by" if path.startswith("alerts") else ""
    entries = _entries(values)
    index = int(entry[1])
    return f"alerts_{entries[index]['on'][0]}" if index < len(entries) else "alerts_by"


def _entries(values: Mapping[str, str]) -> list[dict[str, Any]]:
    by_whom: dict[tuple[str, ...], list[str]] = {}
    for event, name in LIMITS.items():
        if values[f"alerts_{name}"].strip() and not values[f"alerts_{event}"].strip():
            raise Invalid(f"alerts_{event}", "is empty", hint="name channels or e-mail addresses")
    for event in OF_JOBS:
        to = tuple(dict.fromkeys(names(values, f"alerts_{event}", _BETWEEN)))
        if to:
            by_whom.setdefault(to, []).append(event)
    return [{"on": on, **_limits(values, on), "to": list(to)} for to, on in by_whom.items()]


def _limits(values: Mapping[str, str], on: Sequence[str]) -> dict[str, str]:
    limits = {name: values[f"alerts_{name}"].strip() for event, name in LIMITS.items() if event in on}
    return {name: limit for name, limit in limits.items() if limit}
