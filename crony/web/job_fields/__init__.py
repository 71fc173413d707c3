"""The job form: between the fields people fill in and the document. One module for each part of the form.

What a form cannot say is edited as a document: `fields` gives None rather than losing any of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from crony.domain.job import Job, parse
from crony.errors import Invalid
from crony.web.job_fields import alerts, chain, grpc, http, python, rules, shell, when, where
from crony.web.job_fields.reading import flag, given, names

KINDS = {"shell": shell, "http": http, "grpc": grpc, "python": python}
"""The module of each kind of action."""

DEFAULTS: dict[str, str] = {
    "name": "", "description": "", "enabled": "1", "paused_until": "", "tags": "", "owner": "",
    **when.DEFAULTS, **chain.DEFAULTS, "action_kind": "shell", **shell.DEFAULTS, **http.DEFAULTS, **grpc.DEFAULTS,
    **python.DEFAULTS, **rules.DEFAULTS, **where.DEFAULTS, **alerts.DEFAULTS,
}  # fmt: skip
"""Every field with its value in an empty form."""

FLAGS = ("enabled", *http.FLAGS, *grpc.FLAGS, *rules.FLAGS)
"""Check boxes: absent from a form that was sent means off."""

AREAS = frozenset(
    {
        "description", "several", "after_jobs", "after_results", "command", "script", "env", "stdin", "headers", "body",
        "expect_contains", "rpc_request", "rpc_metadata", "args", "kwargs", "params", "secrets",
    }
)  # fmt: skip
"""Fields of several lines; a browser takes line breaks out of all others."""

_PATHS = ((r"(name|description|enabled|paused_until|tags|owner)\b.*", r"\1"),)


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The document that a filled-in form means. Raises `Invalid` naming the form's field."""
    made: dict[str, Any] = {"name": values["name"], "enabled": values["enabled"] == "1"}
    made |= {key: values[key] for key in ("description", "owner") if values[key].strip()}
    if tags := names(values, "tags", "[,，]"):
        made["tags"] = tags
    made |= given(values, ("paused_until",))
    made["action"] = KINDS.get(values["action_kind"], shell).document(values)
    made["routing"] = where.document(values)
    sections = {
        "schedule": when.document(values), "after": chain.document(values), "alerts": alerts.document(values),
    }  # fmt: skip
    return made | rules.document(values) | {name: told for name, told in sections.items() if told is not None}


def schedule(values: Mapping[str, str]) -> Any:
    """The `schedule` section that a form means; None: by hand only. Raises `Invalid`."""
    return when.document(values)


def fields(stored: Mapping[str, Any]) -> dict[str, str] | None:
    """The form's fields for a stored document; None when the form cannot say all that it says."""
    job = parse(stored)
    full = job.document()
    values = DEFAULTS | _own(full) | when.fields(job) | chain.fields(job.after) | rules.fields(job, full)
    values |= {"action_kind": full["action"]["kind"]} | KINDS[full["action"]["kind"]].fields(full["action"])
    values |= where.fields(full["routing"]) | alerts.fields(full["alerts"])
    if not all(_stays(name, text) for name, text in values.items()):
        return None
    try:
        same = _meaning(parse(document(values))) == _meaning(job)
    except Invalid:
        return None
    return values if same else None


def field_of(error: Invalid, values: Mapping[str, str]) -> str:
    """The form field an error of the document belongs to; empty: none, it is said above the form."""
    if error.field in DEFAULTS:
        return error.field
    if error.field.startswith("alerts"):
        return alerts.field_of(error.field, values)
    action = KINDS.get(values.get("action_kind", ""), shell)
    for paths, inside in ((when.PATHS, when.field_of), (chain.PATHS, chain.field_of)):
        found = _found(paths, error.field)
        if found:
            return inside(found, values)
    return _found((*action.PATHS, *rules.PATHS, *where.PATHS, *_PATHS), error.field)


def _found(paths: tuple[tuple[str, str], ...], path: str) -> str:
    for pattern, field in paths:
        match = re.fullmatch(pattern, path)
        if match:
            name = match.expand(field)
            return name if name in DEFAULTS else ""
    return ""


def _own(full: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": full["name"], "description": full["description"], "owner": full["owner"],
        "enabled": flag(full["enabled"]), "paused_until": full["paused_until"] or "", "tags": ", ".join(full["tags"]),
    }  # fmt: skip


def _stays(name: str, text: str) -> bool:
    """Whether a browser sends a text back as it was given."""
    return "\r" not in text and (name in AREAS or "\n" not in text)


def _meaning(job: Job) -> dict[str, Any]:
    full = job.document()
    return full | {"alerts": alerts.meaning(full["alerts"])}
