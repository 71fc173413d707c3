"""When a job is due: one schedule in fields, or several as they stand in the document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crony.domain.job import Job
from crony.errors import Invalid
from crony.web import documents
from crony.web.job_fields.reading import given, names, whole

DEFAULTS = {
    "schedule_kind": "cron", "cron": "0 2 * * *", "dialect": "cron", "every": "5m", "counted_from": "", "anchor": "",
    "at": "", "timezone": "UTC", "dst": "", "start": "", "end": "", "count": "", "jitter": "",
    "calendars_include": "", "calendars_exclude": "", "closed": "skip", "several": "",
}  # fmt: skip
PATHS = (
    (r"schedule\.calendars\.(include|exclude)\b.*", r"calendars_\1"),
    (r"schedule\.calendars\.closed", "closed"),
    (r"schedule\.calendars.*", "calendars_include"),
    (r"schedule\.after", "counted_from"),
    (r"schedule\.(cron|dialect|every|anchor|at|timezone|dst|start|end|count|jitter)", r"\1"),
    (r"schedule.*", "schedule_kind"),
)
_KINDS = ("cron", "every", "at")
_WINDOW = ("start", "end", "jitter")


def field_of(name: str, values: Mapping[str, str]) -> str:
    """Where an error of the schedule stands: a field that its kind shows."""
    kind = values.get("schedule_kind", "")
    if kind == "several":
        return kind
    return kind if name in ("schedule_kind", *_KINDS) and kind in _KINDS else name


def document(values: Mapping[str, str]) -> Any:
    """The `schedule` of a job; None: by hand only. Raises `Invalid`."""
    kind = values["schedule_kind"]
    if kind == "none":
        return None
    if kind == "several":
        return _several(values)
    if kind not in _KINDS:
        raise Invalid("schedule_kind", "is not one of the choices")
    made: dict[str, Any] = {kind: values[kind].strip()} | given(values, ("timezone",))
    if kind == "at":
        return made
    made |= given(values, _WINDOW)
    if values["count"].strip():
        made["count"] = whole(values, "count")
    if kind == "every":
        made |= given(values, ("anchor",))
        if values["counted_from"]:
            made["after"] = values["counted_from"]
    else:
        made |= given(values, ("dst",))
        if values["dialect"] not in ("", "cron"):
            made["dialect"] = values["dialect"]
    parts = {part: names(values, f"calendars_{part}") for part in ("include", "exclude")}
    named: dict[str, Any] = {part: found for part, found in parts.items() if found}
    if named and values["closed"] not in ("", "skip"):
        named["closed"] = values["closed"]
    return {**made, "calendars": named} if named else made


def fields(job: Job) -> dict[str, str]:
    """The fields of a job's schedule."""
    when = job.schedule_document()
    if isinstance(when, list):
        return {"schedule_kind": "several", "several": documents.write(when)}
    if when is None:
        return {"schedule_kind": "none"}
    kind = job.schedules[0].kind
    found = {name: str(when[name]) for name in ("dst", "dialect", "anchor", "count", *_WINDOW) if name in when}
    calendars = when.get("calendars", {})
    for part in ("include", "exclude"):
        found[f"calendars_{part}"] = ", ".join(str(item) for item in calendars.get(part, ()))
    found["counted_from"] = when.get("after", "")
    found["closed"] = calendars.get("closed", "skip")
    return found | {"schedule_kind": kind, kind: job.schedules[0].text, "timezone": when["timezone"]}


def _several(values: Mapping[str, str]) -> list[Any]:
    try:
        found = documents.read_yaml(values["several"])
    except Invalid as error:
        raise Invalid("several", error.problem.replace("the document ", "")) from None
    if not isinstance(found, list) or not found:
        raise Invalid("several", "must be a list of schedules", hint='write - {cron: "30 1 * * *", timezone: UTC}')
    return found
