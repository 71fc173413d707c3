"""Waiting for a run, and reading what it prints while it prints it."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, segment
from crony.errors import Invalid, TimedOut, Unavailable

UNSUCCESSFUL = 6
"""Exit code: the run ended, and not well."""


def wait_for(api: Api, run: str, *, patience: float | None = None) -> dict[str, Any]:
    """The run once it has ended. Asks more seldom as time passes (0.1 s to 2 s) and bears a server that restarts.
    Raises `TimedOut` after `patience` seconds."""
    if patience is not None and not 0 <= patience <= 10**9:
        raise Invalid("--timeout", "must be a number of seconds, 0 or more")
    until = None if patience is None else time.monotonic() + patience
    pause, away = 0.1, 0
    state = "unknown"
    while True:
        try:
            found: dict[str, Any] = api.get(f"runs/{segment(run)}")
            away, state = 0, found["state"]
            if state == "ended":
                return found
        except Unavailable:
            away += 1
            if away > 5:
                raise
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise TimedOut(f"run {run} has not ended after {patience:g} s (it is {state})", hint="it goes on by itself")
        time.sleep(pause if left is None else min(pause, left))
        pause = min(pause * 1.3, 2.0)


def follow_run(api: Api, run: str, *, form: str, patience: float | None = None) -> int:
    """Wait for a run and say how it ended; the exit code."""
    try:
        found = wait_for(api, run, patience=patience)
    except KeyboardInterrupt:
        show.hint(f"stopped waiting; the run goes on: crony run wait {run}")
        return 130
    if form == "json":
        show.data(found)
    else:
        click.echo(f"{found['id']}  {show.colour(show.plain(found['outcome']))}")
        if found.get("reason"):
            show.hint(f"  {show.plain(found['reason'])}")
    return 0 if found["outcome"] == "succeeded" else UNSUCCESSFUL


def copy_output(
    api: Api, run: str, *, attempt: int | None, follow: bool, raw: bool, stream: str | None = None, times: bool = False
) -> None:
    """Write what an attempt printed to standard output; with `follow`, until the attempt's output is complete.

    `stream`: only what came by this one. `times`: each line with its time and stream.
    """
    query = {"attempt": attempt, "stream": stream}
    if not follow and not times:
        return _copy(api, run, raw, query)
    writer = _Lines(raw=raw) if times else None
    for told in _followed(api, run, query) if follow else _there(api, run, query):
        data = base64.b64decode(told["base64"]) if "base64" in told else told["text"].encode()
        if writer is None:
            _write(data, raw=raw)
        else:
            writer.write(data, told.get("stream", ""), told.get("at"))
    if writer is not None:
        writer.end()
    return None


def _copy(api: Api, run: str, raw: bool, query: dict[str, Any]) -> None:
    """What there is, as it is."""
    offset = 0
    while True:
        body, headers = api.text(f"runs/{segment(run)}/output", offset=offset, **query)
        following = int(headers.get("X-Next-Offset") or offset + len(body))
        if body:
            _write(body, raw=raw)
        if following == offset or headers.get("X-Output-State") == "removed":
            return _say_whether_whole(headers.get("X-Output-State", "complete"))
        offset = following


def _there(api: Api, run: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What there is, piece by piece."""
    offset = 0
    while True:
        body, headers = api.text(f"runs/{segment(run)}/output", offset=offset, times="true", **query)
        yield from map(json.loads, body.splitlines())
        following = int(headers["X-Next-Offset"])
        if following == offset or headers.get("X-Output-State") == "removed":
            return _say_whether_whole(headers["X-Output-State"])
        offset = following


def _followed(api: Api, run: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Piece by piece as it comes, over lines that break and webs that restart."""
    last, failures = "", 0
    while True:
        try:
            for event, data, place in api.events(f"runs/{segment(run)}/output", last=last, **query, follow="true"):
                told = json.loads(data)
                failures, last = 0, place or last
                query["attempt"] = told.get("attempt", query["attempt"])
                if event == "end":
                    return _say_whether_whole(told["state"])
                yield told
        except Unavailable:
            failures += 1
            if failures > 10:
                raise
        time.sleep(min(0.2 * (1 + failures), 2.0))


def _say_whether_whole(state: str) -> None:
    if state == "truncated":
        show.hint("(the output is longer than is kept; the rest is missing)")
    elif state == "removed":
        show.hint("(the output is kept no longer: its job says for how many days)")


class _Lines:
    """Writes lines with the time and the stream of their beginnings."""

    def __init__(self, *, raw: bool) -> None:
        self._raw = raw
        self._stream: str | None = None
        """Of the line under way; None: none is."""

    def write(self, data: bytes, stream: str, at: str | None) -> None:
        """A piece of one stream; a line of another one that is under way is ended first."""
        if self._stream not in (None, stream):
            self.end()
        moment = show.moment(at, exact=True) if at else "-"
        for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
            head = f"{moment} {stream or '-':<6} ".encode() if self._stream is None else b""
            _write(head + line, raw=self._raw)
            self._stream = None if line.endswith(b"\n") else stream

    def end(self) -> None:
        """Nothing follows."""
        if self._stream is not None:
            _write(b"\n", raw=self._raw)
            self._stream = None


def _write(body: bytes, *, raw: bool) -> None:
    """Bytes as they are into a pipe or file; at a terminal, escape sequences other than colours are only shown."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is not None and (raw or not sys.stdout.isatty()):
        sys.stdout.flush()
        binary.write(body)
        binary.flush()
        return
    click.echo(show.harmless(body.decode("utf-8", "replace")), nl=False)
