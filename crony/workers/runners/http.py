"""HTTP jobs: one request, one answer, with a deadline for the whole of it and a cap on what is read.

Whether the request was sent decides what a lost answer means: not sent is `failed`, sent is `unknown` (the service may
have done it). No redirects, no proxies or credentials from the environment, a fresh connection for each attempt.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from crony.domain.outcome import Kind
from crony.workers import calling
from crony.workers.attempt import ACCEPTED, Attempt, Verdict

BODY_LIMIT = 1024 * 1024
"""Most bytes of an answer that are read, after decompression."""
RESULT_LIMIT = 1024
"""A JSON answer of at most this many bytes is kept as the run's result."""
CONNECT_PATIENCE = 10.0
ACCEPTED_STATUS = 202
"""The service has the work and will say later how it went, if the job waits for that."""
_HAS_BODY = frozenset({"POST", "PUT", "PATCH"})


class _Wire:
    """The connection of one attempt, as seen by who may have to break it off."""

    def __init__(self) -> None:
        self.sent = False
        self._socket: socket.socket | None = None

    def hold(self, sock: socket.socket | None) -> None:
        """This is the socket now."""
        self._socket = sock

    def abort(self) -> None:
        """Break it off, from another thread: whoever reads or writes gets an error."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


_current = threading.local()


class _Watched:
    """Makes a urllib3 connection tell the thread's wire about its socket, and when the request goes out."""

    sock: socket.socket | None

    def connect(self) -> None:
        """As of urllib3."""
        super().connect()  # type: ignore[misc]
        _current.wire.hold(self.sock)

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        _current.wire.hold(sock)
        return sock

    def send(self, data: Any) -> None:
        """As of http.client."""
        if self.sock is None:
            self.connect()
        _current.wire.sent = True
        super().send(data)  # type: ignore[misc]


class _Plain(_Watched, HTTPConnection):
    pass


class _Secure(_Watched, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As of requests, with connections that can be broken off."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


def run(attempt: Attempt) -> Verdict:
    """Send the request; the verdict by its status, by the deadline, or by a cancel, whichever comes first."""
    wire, stirred, answers = _Wire(), threading.Event(), []

    def work() -> None:
        _current.wire = wire
        try:
            answers.append(_exchange(attempt, wire))
        finally:
            stirred.set()

    context = copy_context()
    thread = threading.Thread(target=lambda: context.run(work), name="crony-http", daemon=True)
    attempt.on_cancel(stirred.set)
    thread.start()
    stirred.wait(attempt.left)
    attempt.on_cancel(None)
    if answers:
        return answers[0]
    sent = "; it was sent, the service may have done it" if wire.sent else "; it was not sent"
    wire.abort()
    thread.join(0.5)
    if attempt.cancelled:
        return Verdict(Kind.CANCELLED, f"cancelled during the request{sent}")
    return Verdict(Kind.TIMED_OUT, f"no complete answer within {attempt.envelope.timeout:g} s{sent}")


def _exchange(attempt: Attempt, wire: _Wire) -> Verdict:
    action, began = attempt.envelope.action, time.monotonic()
    method = str(action.get("method") or "GET").upper()
    expected = action.get("expect_status")
    verify = bool(action.get("verify_tls", True))
    with requests.Session() as session, _quiet(verify):
        session.trust_env = False
        session.mount("http://", _Adapter())
        session.mount("https://", _Adapter())
        try:
            request = requests.Request(
                method, str(action["url"]), headers=_headers(attempt), **_content(attempt, method)
            )
            prepared = session.prepare_request(request)
            prepared.headers.update(_signature(attempt, prepared))
            answer = session.send(
                prepared,
                allow_redirects=False,
                verify=verify,
                stream=True,
                timeout=(min(CONNECT_PATIENCE, attempt.left + 0.1), attempt.left + 0.1),
            )
            body, cut = _read(answer)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError, KeyError) as error:
            told = _told(error)
            attempt.output.text(f"{method} {action.get('url')}: {told}")
            if wire.sent:
                return Verdict(Kind.UNKNOWN, f"the answer was lost after sending: {told}")
            return Verdict(Kind.FAILED, f"the request could not be sent: {told}")
    took = time.monotonic() - began
    attempt.output.text(f"HTTP {answer.status_code} {answer.reason} ({len(body)} bytes in {took:.3f} s)")
    attempt.output.write(body)
    if cut:
        attempt.output.text(f"\n[crony: answer cut here, more than {BODY_LIMIT} bytes]")
    if answer.status_code == ACCEPTED_STATUS and attempt.callback is not None:
        return ACCEPTED
    good = answer.status_code in _numbers(expected) if expected else 200 <= answer.status_code < 300
    if good:
        return Verdict(Kind.SUCCEEDED, code=answer.status_code, result=None if cut else _result(answer, body))
    wanted = f"expected {', '.join(map(str, _numbers(expected)))}" if expected else "expected 2xx"
    return Verdict(
        Kind.FAILED, f"the service answered {answer.status_code} {answer.reason}, {wanted}", answer.status_code
    )


def _headers(attempt: Attempt) -> dict[str, str]:
    headers = {"User-Agent": "crony", "Accept": "*/*"}
    own = calling.headers(attempt)
    reserved = {name.lower() for name in own}
    given = attempt.envelope.action.get("headers") or {}
    headers.update({str(name): str(value) for name, value in given.items() if str(name).lower() not in reserved})
    return headers | own


def _signature(attempt: Attempt, prepared: requests.PreparedRequest) -> dict[str, str]:
    """Over the request as it will be sent."""
    process, body = attempt.process, prepared.body or b""
    return calling.signature(
        process.settings.call_secrets,
        str(prepared.method),
        prepared.path_url,
        prepared.headers,
        body.encode() if isinstance(body, str) else body,
        now=process.now(),
    )


def _content(attempt: Attempt, method: str) -> dict[str, Any]:
    """Body and query. Parameters are added to a JSON object, are it when there is no body, else the query."""
    action, params = attempt.envelope.action, attempt.envelope.params
    document = action.get("json")
    if action.get("body") is not None:
        return {"data": str(action["body"]).encode(), "params": params}
    if isinstance(document, dict):
        return {"json": {**document, **params}}
    if document is not None:
        return {"json": document, "params": params}
    if params and method in _HAS_BODY:
        return {"json": params}
    return {"params": params}


def _read(answer: requests.Response) -> tuple[bytes, bool]:
    body = bytearray()
    for chunk in answer.iter_content(65536):
        body += chunk
        if len(body) > BODY_LIMIT:
            answer.close()
            return bytes(body[:BODY_LIMIT]), True
    return bytes(body), False


def _result(answer: requests.Response, body: bytes) -> Any:
    if len(body) > RESULT_LIMIT or "json" not in answer.headers.get("Content-Type", ""):
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def _numbers(expected: Any) -> list[int]:
    return [int(status) for status in (expected if isinstance(expected, (list, tuple)) else [expected])]


def _told(error: BaseException) -> str:
    """The innermost cause in a few words; requests wraps it several times."""
    seen: BaseException = error
    for _ in range(6):
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in getattr(seen, "args", ()) if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        seen = inner
    text = getattr(seen, "strerror", None) or str(seen).rpartition("object at 0x")[2].partition(">: ")[2] or str(seen)
    return f"{type(seen).__name__}: {text}"[:300]


@contextlib.contextmanager
def _quiet(verify: bool) -> Iterator[None]:
    if verify:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        yield
