"""A Crony for the tests of a service: it calls, and takes the reports, as the contract says. Nothing else is real.

with FakePlatform() as crony:
    attempt = crony.call(service, "close-day", {"region": "cn"})
    assert attempt.wait().outcome == "succeeded"
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from crony_sdk import contract, signing
from crony_sdk.errors import TimedOut
from crony_sdk.service import Request, Response, Service

SECRET = "a-secret-for-tests-and-nothing-else"
"""The call secret of a `FakePlatform` that is given none."""
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "heartbeat": {},
    "progress": {"percent": (int, float, type(None)), "message": (str, type(None))},
    "log": {"text": (str,), "stream": (str,), "offset": (int,)},
    "complete": {"result": (object,)},
    "fail": {"reason": (str,), "code": (int, type(None)), "final": (bool,)},
}


@dataclass
class Attempt:
    """One attempt: what the service was told, what it answered, and what it has reported since."""

    run: str
    n: int
    headers: dict[str, str] = field(repr=False)
    response: Response | None = None
    state: str = "running"
    outcome: str | None = None
    cancel: bool = False
    result: Any = None
    reason: str = ""
    code: int | None = None
    final: bool = False
    percent: float | None = None
    message: str | None = None
    output: bytes = field(default=b"", repr=False)
    heartbeats: int = 0
    said: tuple[str, Any] | None = field(default=None, repr=False)
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    @property
    def status(self) -> int:
        """The status of the service's answer to the call."""
        assert self.response is not None, "it has not answered"
        return self.response.status

    @property
    def ended(self) -> bool:
        """Whether there is an outcome."""
        return self.state == "ended"

    def wait(self, timeout: float = 60.0) -> Attempt:
        """Until it has ended. Raises `TimedOut`."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.ended, timeout):
                raise TimedOut(f"the attempt has not ended after {timeout:g} s")
        return self

    def end(self, outcome: str, *, cancel: bool = False) -> None:
        """Decide it from the platform's side: `timed_out`, `cancelled`, `lost`."""
        with self.changed:
            if not self.ended:
                self.state, self.outcome, self.cancel = "ended", outcome, cancel or outcome != "succeeded"
                self.changed.notify_all()

    def standing(self) -> dict[str, Any]:
        """As the platform answers a report."""
        return {"state": self.state, "outcome": self.outcome, "cancel": self.cancel}


class FakePlatform:
    """Calls services and takes their reports at a real address of this machine."""

    def __init__(self, *, secret: str | None = SECRET, port: int = 0) -> None:
        """`secret` None: calls are not signed."""
        self.secret = secret
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self.reports: list[tuple[str, int, str, Any]] = []
        """(run, attempt, verb, body) of every report that came with the right token."""
        self.lose_answers = 0
        """So many of the next reports are carried out, and their answers lost."""
        self.unavailable = False
        """Answer 503 to everything."""
        self.takes_text = True
        """False: answer 503 to `log`, as when its database is away."""
        self._lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self._port = port
        self.up()

    def __enter__(self) -> FakePlatform:
        """Itself; it is up already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Goes down."""
        self.down()

    @property
    def url(self) -> str:
        """The address of its web."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def is_down(self) -> bool:
        """Whether it is away."""
        return self._server is None

    def up(self) -> None:
        """Answer, at the same address as before a `down`."""
        if self._server is None:
            self._server = _listen(self, self._port)
            self._port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Be away: connections are refused."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    # -- calling ---------------------------------------------------------------------------------

    def attempt(
        self, *, run: str | None = None, n: int = 1, later: bool = True, deadline: float = 60.0, heartbeat: float = 3.0,
        job: str = "test", retry_max: int = 0, timeout: float = 30.0,
    ) -> Attempt:  # fmt: skip
        """An attempt that nobody has been called for: its `headers` are those of a call, without signature.

        `later`: it may be answered by callback, within `deadline` seconds and with a sign of life every `heartbeat`.
        """
        run = run or f"j{secrets.token_hex(6)}.1.m{secrets.token_hex(6)}"
        headers = {
            contract.RUN: run,
            contract.ATTEMPT: str(n),
            contract.FENCE: str(1000 + n),
            contract.JOB: quote(job, safe=""),
            contract.FIRE_TIME: datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            contract.IDEMPOTENCY_KEY: run,
            contract.TRACEPARENT: f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            contract.TIMEOUT: f"{timeout:g}",
            contract.RETRY_MAX: str(retry_max),
        }
        if later:
            until = datetime.now(timezone.utc) + timedelta(seconds=deadline)
            headers[contract.CALLBACK] = f"{self.url}/api/v1/runs/{run}/attempts/{n}"
            headers[contract.TOKEN] = secrets.token_urlsafe(32)
            headers[contract.DEADLINE] = until.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            headers[contract.HEARTBEAT] = f"{heartbeat:g}"
        made = Attempt(run, n, headers)
        with self._lock:
            self.attempts[run, n] = made
        return made

    def call(
        self, service: Service | str, name: str, params: dict[str, Any] | None = None, *, method: str = "POST",
        attempt: Attempt | None = None, **options: Any,
    ) -> Attempt:  # fmt: skip
        """Call a handler of a `Service` here, or of one at an address (with its prefix). `options` as of `attempt`.

        A status other than 202 ends the attempt, as the platform would.
        """
        made = attempt or self.attempt(job=name, **options)
        body = json.dumps(params or {}).encode()
        base = "" if isinstance(service, Service) else service.rstrip("/")
        target = f"{urlsplit(base).path}/{quote(name)}"
        headers = {**made.headers, "Content-Type": "application/json", **self.signature(made, method, target, body)}
        if isinstance(service, Service):
            made.response = service.answer(Request(method, target, name, headers, body))
        else:
            url = f"{base.partition('://')[0]}://{urlsplit(base).netloc}{target}"
            answer = requests.request(method, url, data=body, headers=headers, timeout=60, allow_redirects=False)
            made.response = Response(answer.status_code, answer.content, answer.headers)
        if made.status != 202:
            good = 200 <= made.status < 300
            if good and not made.ended and "json" in made.response.headers.get("Content-Type", ""):
                made.result = json.loads(made.response.body)
            made.end("succeeded" if good else "failed")
        return made

    def signature(self, attempt: Attempt, method: str, target: str, body: bytes) -> dict[str, str]:
        """The headers that sign a call; none without a secret."""
        if self.secret is None:
            return {}
        now = int(time.time())
        made = signing.sign(
            self.secret,
            method=method,
            target=target,
            run=attempt.run,
            attempt=attempt.n,
            fence=int(attempt.headers[contract.FENCE]),
            callback=attempt.headers.get(contract.CALLBACK, ""),
            body=body,
            timestamp=now,
        )
        return {contract.TIMESTAMP: str(now), contract.SIGNATURE: made}

    # -- taking reports --------------------------------------------------------------------------

    def take(self, path: str, token: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON for one report."""
        if self.unavailable:
            return _problem(503, "etcd is away", retry_after=True)
        found = re.fullmatch(r"/api/v1/runs/([^/]+)/attempts/(\d+):(\w+)", path)
        attempt = self.attempts.get((found[1], int(found[2]))) if found else None
        if found is None or attempt is None or found[3] not in _FIELDS:
            return _problem(404, "no such attempt")
        if not hmac.compare_digest(attempt.headers.get(contract.TOKEN, secrets.token_hex()), token):
            return _problem(401, "not the token of this attempt")
        if len(content) > contract.BODY_LIMIT:
            return _problem(413, "the body is too large")
        try:
            body = json.loads(content)
        except ValueError:
            return _problem(400, "the body is no JSON")
        wrong = _wrong(found[3], body)
        if wrong:
            return _problem(422, f"{wrong} is wrong", field=wrong)
        if found[3] == "log" and not self.takes_text:
            return _problem(503, "the database is away", retry_after=True)
        with self._lock:
            self.reports.append((attempt.run, attempt.n, found[3], body))
        with attempt.changed:
            answer = self._apply(attempt, found[3], body)
            attempt.changed.notify_all()
        return answer

    def _apply(self, attempt: Attempt, verb: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if verb in ("complete", "fail"):
            if attempt.ended and attempt.said != (verb, body):
                latest = max(n for run, n in self.attempts if run == attempt.run)
                return _problem(409, f"it has ended as {attempt.outcome}", outcome=attempt.outcome, attempt=latest)
            if not attempt.ended:
                attempt.state, attempt.said = "ended", (verb, body)
                attempt.outcome = "succeeded" if verb == "complete" else "failed"
                attempt.result, attempt.reason = body.get("result"), body.get("reason", "")
                attempt.code, attempt.final = body.get("code"), body.get("final", False)
            return 200, attempt.standing()
        if not attempt.ended:
            if verb == "log":
                text, at = body["text"].encode(), body.get("offset")
                attempt.output += text if at is None else text[max(0, len(attempt.output) - at) :]
                return 200, {**attempt.standing(), "have": len(attempt.output)}
            attempt.heartbeats += 1
            attempt.percent = body.get("percent", attempt.percent)
            attempt.message = body.get("message", attempt.message)
        return 200, attempt.standing()

    def answer_is_lost(self) -> bool:
        """Whether the answer that is due now shall be lost."""
        with self._lock:
            if self.lose_answers <= 0:
                return False
            self.lose_answers -= 1
            return True


def _wrong(verb: str, body: Any) -> str:
    if not isinstance(body, dict):
        return "body"
    known = _FIELDS[verb]
    for name, value in body.items():
        if name not in known or not isinstance(value, known[name]) or (name == "code" and isinstance(value, bool)):
            return str(name)
    if verb == "fail" and not body.get("reason"):
        return "reason"
    if verb == "log" and (len(body.get("text", "").encode()) > contract.TEXT_LIMIT or "text" not in body):
        return "text"
    if verb == "log" and body.get("stream", "stdout") not in ("stdout", "stderr"):
        return "stream"
    percent = body.get("percent")
    return "percent" if percent is not None and not 0 <= percent <= 100 else ""


def _problem(status: int, detail: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return status, {"type": "about:blank", "title": detail, "status": status, "detail": detail, **more}


def _listen(platform: FakePlatform, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            if platform.is_down:
                self.close_connection = True
                return
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "").partition("Bearer ")[2]
            status, body = platform.take(self.path, token, content)
            if platform.answer_is_lost():
                self.close_connection = True
                return
            answer = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(answer)))
            if body.get("retry_after"):
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 128

    return Server(("127.0.0.1", port), Handler)
