"""What `crony job create` lets a job do: the options of its action, as a document."""

from __future__ import annotations

import shlex
from typing import Any

import click

from crony.cli.documents import read_text
from crony.cli.given import pairs
from crony.domain.check import load_json
from crony.errors import Invalid


def action_of(given: dict[str, Any]) -> dict[str, Any]:
    """The action that the options of `crony job create` describe. Raises `click.UsageError`, `Invalid`."""
    kinds = [kind for kind in ("shell", "command", "http", "grpc", "task") if given[kind]]
    if len(kinds) != 1:
        raise click.UsageError("Say what to run: exactly one of --shell, --command, --http, --grpc, --python.")
    if kinds[0] not in ("http", "grpc") and (given["method"] or given["headers"] or given["body"]):
        raise click.UsageError("--method, --header and --body belong to --http.")
    if kinds[0] == "shell":
        return {"kind": "shell", "script": given["shell"]}
    if kinds[0] == "command":
        try:
            return {"kind": "shell", "command": shlex.split(given["command"])}
        except ValueError as error:
            raise Invalid("--command", str(error).lower()) from None
    if kinds[0] == "task":
        return {"kind": "python", "task": given["task"]}
    headers = pairs(given["headers"], "--header", separator=":")
    body = read_text(given["body"][1:]) if (given["body"] or "").startswith("@") else given["body"]
    if kinds[0] == "grpc":
        return _grpc(given, headers, body)
    action: dict[str, Any] = {"kind": "http", "method": given["method"] or "GET", "url": given["http"]}
    if headers:
        action["headers"] = headers
    if body:
        action["body"] = body
    return action


def _grpc(given: dict[str, Any], metadata: Any, body: str | None) -> dict[str, Any]:
    if given["method"]:
        raise click.UsageError("--method belongs to --http; write --grpc HOST:PORT/package.Service/Method.")
    where, _, what = given["grpc"].partition("/")
    if not where or not what:
        hint = "write billing.internal:50051/billing.v1.Ledger/CloseDay, or billing/close-day"
        raise Invalid("--grpc", "does not say where and what", hint=hint)
    action: dict[str, Any] = {"kind": "grpc", "address" if ":" in where else "service": where}
    action["method" if "/" in what else "handler"] = what
    if metadata:
        action["metadata"] = metadata
    if body:
        try:
            action["request"] = load_json(body)
        except Invalid as error:
            raise Invalid("--body", error.problem, hint=error.hint) from None
    return action
