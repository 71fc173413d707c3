"""Asking Crony for runs, from anywhere: trigger, look, wait, read the output, cancel."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from crony_sdk.contract import base_url
from crony_sdk.errors import Invalid, TimedOut, Unavailable
from crony_sdk.wire import Wire

PIECE = 4 * 1024 * 1024
"""Most bytes in one answer: output comes in pieces of 1 MiB."""


@dataclass(frozen=True)
class Run:
    """A run as Crony told it; `facts` is the whole answer (docs/reference/rest.md)."""

    id: str
    job: str
    state: str
    """requested, waiting, queued, running, accepted or ended."""
    outcome: str | None
    """succeeded, failed, timed_out, cancelled, lost, unknown or refused; None until it has ended."""
    reason: str
    result: Any
    attempt: int
    facts: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state == "ended"

    @property
    def succeeded(self) -> bool:
        """Whether it has ended well."""
        return self.outcome == "succeeded"

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Run:
        """An item of the REST API."""
        return cls(
            id=str(found["id"]),
            job=str(found.get("job_name") or found.get("job") or ""),
            state=str(found["state"]),
            outcome=found.get("outcome"),
            reason=str(found.get("reason") or ""),
            result=found.get("result"),
            attempt=int(found.get("attempt") or 0),
            facts=found,
        )


class CronyClient:
    """The REST API, as far as services need it. Safe to use from several threads, and after a fork.

    Raises `Unavailable` when Crony cannot be asked, a `Refused` by what it refuses, `Invalid` for wrong arguments.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, patience: float = 10.0, wire: Wire | None = None
    ) -> None:
        """`url` and `token` default to `CRONY_API` and `CRONY_TOKEN` (both: a token never goes to another address).

        What is safe to repeat is repeated for `patience` seconds while Crony is away.
        """
        if url is None:
            url = os.environ.get("CRONY_API", "")
            token = os.environ.get("CRONY_TOKEN", "") if token is None else token
        if not url:
            raise Invalid("url", "is missing: give the address of Crony's web, or set CRONY_API")
        self._base, self._token = base_url(url, "url"), token or ""
        self._patience, self._wire = patience, wire or Wire()

    def trigger(
        self,
        job: str,
        params: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Run:
        """Ask for a run of a job (name or id) now; the run, which may not have begun.

        The same `idempotency_key` gives the same run, however often and from wherever. Without one a fresh key makes
        our own repetitions harmless. `options`: `delay`, `at`, `priority`, `labels`, `timeout`, `retries`,
        `on_conflict`, `chain` (False: no job follows this run), as in the REST API.
        """
        body = {**options, **({"params": dict(params)} if params else {})}
        key = idempotency_key or uuid.uuid4().hex
        found = self._json("POST", f"jobs/{_segment(job, 'job')}:run", body=body, headers={"Idempotency-Key": key})
        return Run(str(found["run"]), job, "requested", None, "", None, 0, found)

    def run(self, run: str) -> Run:
        """How a run stands."""
        return Run.from_json(self._json("GET", f"runs/{_segment(run, 'run')}"))

    def runs(self, *, limit: int = 100, **filters: Any) -> Iterator[Run]:
        """Runs, newest first, at most `limit`.

        `filters`: `job`, `state`, `outcome`, `node`, `trigger`, `since`, `until` (text, or `datetime` with an offset).
        """
        given = {name: _instant(name, value) for name, value in filters.items()}
        cursor: str | None = None
        while limit > 0:
            page = self._json("GET", "runs", params={**given, "limit": min(limit, 200), "cursor": cursor})
            for item in page["items"][:limit]:
                yield Run.from_json(item)
            limit -= len(page["items"])
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                return

    def wait(self, run: str | Run, timeout: float | None = None) -> Run:
        """The run once it has ended. Raises `TimedOut` after `timeout` seconds; the run goes on.

        A Crony that is restarted meanwhile is borne for as long as there is time.
        """
        ident = run.id if isinstance(run, Run) else run
        until = None if timeout is None else time.monotonic() + timeout
        pause, state, away = 0.1, "not known yet", 0.0
        while True:
            try:
                found = self.run(ident)
                if found.ended:
                    return found
                state, away = found.state, 0.0
            except Unavailable:
                away = away or time.monotonic()
                if until is None and time.monotonic() - away > 60.0:
                    raise
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TimedOut(f"run {ident} has not ended after {timeout:g} s (state: {state}); it goes on by itself")
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.4, 2.0)

    def output(self, run: str, *, attempt: int | None = None, follow: bool = False) -> Iterator[bytes]:
        """What an attempt (default: the last one) printed, piece by piece; with `follow` until it is complete."""
        offset, pause, path = 0, 0.1, f"runs/{_segment(run, 'run')}/output"
        while True:
            answer = self._call("GET", path, params={"attempt": attempt, "offset": offset}, accept="text/plain")
            attempt = int(answer.headers.get("X-Output-Attempt") or attempt or 1)  # a later one is another text
            following = int(answer.headers.get("X-Next-Offset") or offset + len(answer.content))
            if answer.content:
                yield answer.content
                pause = 0.1
            if following == offset:
                if not follow or answer.headers.get("X-Output-State", "complete") != "open":
                    return
                time.sleep(pause)
                pause = min(pause * 1.4, 2.0)
            offset = following

    def logs(self, run: str, *, attempt: int | None = None) -> str:
        """All of the output so far, as text."""
        return b"".join(self.output(run, attempt=attempt)).decode("utf-8", "replace")

    def cancel(self, run: str) -> None:
        """Ask for a run to be stopped. Raises `Conflict` when it has ended already."""
        self._json("POST", f"runs/{_segment(run, 'run')}:cancel", body={})

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = self._call(method, path, **more)
        return answer.json() if answer.content else {}

    def _call(self, method: str, path: str, *, accept: str = "", headers: Any = None, **more: Any) -> Any:
        """Every call of ours may be repeated: reading, cancelling, and triggering with its key."""
        until, pause = time.monotonic() + self._patience, 0.2
        sent = {**({"Accept": accept} if accept else {}), **(headers or {})}
        while True:
            try:
                url = f"{self._base}/api/v1/{path}"
                return self._wire.request(method, url, token=self._token, headers=sent, limit=PIECE, **more)
            except Unavailable as error:
                pause = max(pause, error.retry_after or 0.0)
                if time.monotonic() + pause >= until:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 3.0)


def _segment(text: str, name: str) -> str:
    if not text or text in (".", ".."):
        raise Invalid(name, "is empty" if not text else f"cannot be {text!r}")
    return quote(text, safe="")


def _instant(name: str, value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise Invalid(name, "must be a datetime with an offset")
    return value.astimezone(timezone.utc).isoformat()
