"""What a job does: http, grpc, shell or python. Checked here, once, before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from crony.domain.check import choice, fields, listing, texts
from crony.domain.grpc_action import parse_grpc
from crony.domain.http_action import parse_http
from crony.domain.shell_action import parse_shell
from crony.errors import Invalid

KINDS = ("http", "grpc", "shell", "python")
_TASK = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}(?:\.[A-Za-z_][A-Za-z0-9_]{0,99}){1,12}")


def parse_action(value: Any, field: str = "action", *, params: Collection[str] = ()) -> dict[str, Any]:
    """The action as a plain dict with defaults filled in. `value` is plain data, `params` the names of the job's
    parameters. Raises `Invalid` naming the field.
    """
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping", hint='write {kind: shell, command: ["date"]}')
    if "kind" not in value:
        raise Invalid(f"{field}.kind", "is missing", hint=f"write one of {', '.join(KINDS)}")
    kind = choice(value["kind"], f"{field}.kind", KINDS)
    if kind == "http":
        return parse_http(value, field, params)
    if kind == "grpc":
        return parse_grpc(value, field, params)
    return {"shell": parse_shell, "python": _python}[kind](value, field)


def _python(value: Any, field: str) -> dict[str, Any]:
    given = fields(value, field, ("kind", "task", "args", "kwargs"))
    if "task" not in given:
        raise Invalid(f"{field}.task", "is missing", hint="write the dotted name of a Celery task")
    task = texts(given["task"], f"{field}.task", most=255)
    if not _TASK.fullmatch(task):
        raise Invalid(f"{field}.task", "is not a dotted task name", hint="write it as package.module.task")
    if task == "crony.run":
        raise Invalid(f"{field}.task", "is Crony's own task", hint="name a task of yours")
    kwargs = given.get("kwargs")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise Invalid(f"{field}.kwargs", "must be a mapping", hint="write {name: value}")
    args = given.get("args")
    return {
        "kind": "python",
        "task": task,
        "args": [] if args is None else listing(args, f"{field}.args", 100),
        "kwargs": dict(kwargs or {}),
    }
