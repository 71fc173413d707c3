"""The `python` action: a Celery task and what it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crony.web.job_fields.reading import parsed, written

DEFAULTS = {"task": "", "args": "", "kwargs": ""}
PATHS = ((r"action\.(task|args|kwargs)\b.*", r"\1"),)


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The action. Raises `Invalid`."""
    made: dict[str, Any] = {"kind": "python", "task": values["task"].strip()}
    for name, kind in (("args", list), ("kwargs", dict)):
        if values[name].strip():
            made[name] = parsed(values, name, kind)
    return made


def fields(action: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an action."""
    return {"task": action["task"]} | {name: written(action[name], empty="") for name in ("args", "kwargs")}
