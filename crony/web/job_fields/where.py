"""Where a job may run, and how its node is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crony.web.job_fields.reading import COMMAS, given, names, pairs, whole

DEFAULTS = {
    "strategy": "weighted", "labels": "", "node": "", "exclude": "", "route_key": "", "queue": "", "parts": "",
}  # fmt: skip
PATHS = ((r"routing\.key", "route_key"), (r"routing\.(strategy|labels|node|exclude|queue|parts)\b.*", r"\1"))


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The `routing` of a job. Raises `Invalid`."""
    made: dict[str, Any] = {"strategy": values["strategy"]} | given(values, ("node",))
    if values["strategy"] == "hash":
        made |= given(values, ("key",), "route_")
    if values["strategy"] == "any":
        made |= given(values, ("queue",))
    if values["labels"].strip():
        made["labels"] = pairs(values, "labels", "=", COMMAS)
    if exclude := names(values, "exclude"):
        made["exclude"] = exclude
    if values["parts"].strip() and values["strategy"] != "broadcast":
        made["parts"] = whole(values, "parts")
    return made


def fields(routing: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a job's routing."""
    return {name: str(routing[name] or "") for name in ("strategy", "node", "queue", "parts")} | {
        "route_key": routing["key"] or "",
        "labels": ", ".join(f"{key}={value}" for key, value in routing["labels"].items()),
        "exclude": ", ".join(routing["exclude"]),
    }
