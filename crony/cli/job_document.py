"""The job document behind the options of `crony job create`; the server checks it."""

from __future__ import annotations

from typing import Any

import click

from crony.cli.given import pairs
from crony.cli.job_action import action_of


def document_of(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The job document that the options describe; the server checks it."""
    document: dict[str, Any] = {"name": name}
    whens = [kind for kind in ("cron", "every", "at") if given[kind]]
    if len(whens) > 1:
        raise click.UsageError(f"--{whens[0]} and --{whens[1]} exclude each other; several schedules need a file (-f).")
    if whens:
        document["schedule"] = {whens[0]: given[whens[0]]}
    for field in ("timezone", "start", "end", "count", "jitter"):
        if given[field] is not None:
            if not whens:
                raise click.UsageError(f"--{field} belongs to a schedule: add --cron.")
            document["schedule"][field] = given[field]
    if given["after_end"]:
        if not given["every"]:
            raise click.UsageError("--after-end goes with --every.")
        document["schedule"]["after"] = "end"
    if given["dialect"]:
        if not given["cron"]:
            raise click.UsageError("--dialect goes with --cron.")
        document["schedule"]["dialect"] = given["dialect"]
    document["action"] = action_of(given)
    if params := pairs(given["params"], "-p", typed=True):
        document["params"] = params
    for field in ("description", "timeout", "pause_after", "overlap", "overlap_limit", "priority"):
        if given[field] is not None:
            document[field] = given[field]
    if given["tags"]:
        document["tags"] = list(given["tags"])
    retry = {"max": given["retries"], "delay": given["retry_delay"]}
    if any(value is not None for value in retry.values()):
        document["retry"] = {key: value for key, value in retry.items() if value is not None}
    routing = {
        "strategy": given["strategy"],
        "queue": given["queue"],
        "parts": given["parts"],
        "labels": pairs(given["labels"], "--label"),
        "node": given["node"],
    }
    if any(routing.values()):
        document["routing"] = {key: value for key, value in routing.items() if value}
    if given["paused"]:
        document["enabled"] = False
    return document
