"""HTTP jobs: a request to an address that was checked, an answer, a deadline for all of it, a cap on what is read.

Whether the request was sent decides what a lost answer means: not sent is `failed`, sent is `unknown` (the service may
have done it). No proxies and no credentials from the environment.
"""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from typing import Any

import urllib3.exceptions
from urllib3.response import BaseHTTPResponse

from crony.domain.outcome import Kind
from crony.domain.template import Unfilled
from crony.errors import Invalid, Unavailable
from crony.workers.attempt import ACCEPTED, Attempt, Verdict
from crony.workers.reach import Unreachable, addresses
from crony.workers.runners import http_answer
from crony.workers.runners.http_answer import BODY_LIMIT
from crony.workers.runners.http_request import NotFollowed, Request, build, redirected
from crony.workers.runners.http_wire import IDLE, LONGEST_IDLE, Broken, Connection, Connections, Wire, tls_of
from crony.workers.services import NoInstance, first_that_is_there

ACCEPTED_STATUS = 202
"""The service has the work and will say later how it went, if the job waits for that."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOST = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)


def run(attempt: Attempt) -> Verdict:
    """Send the request; the verdict by its answer, by the deadline, or by a cancel, whichever comes first."""
    wire = Wire()
    alarm = attempt.process.alarms.after(attempt.left, wire.abort)
    try:
        attempt.on_cancel(wire.abort)
        return _judged(attempt, wire)
    finally:
        alarm.cancel()
        attempt.on_cancel(None)


class _NotSent(Exception):
    """The request provably did not leave; what that means unless somebody else can take it."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


def _judged(attempt: Attempt, wire: Wire) -> Verdict:
    action = attempt.envelope.action
    try:
        if "service" not in action:
            return _called(attempt, wire)
        return first_that_is_there(
            attempt.process,
            str(action["service"]),
            ("http", "https"),
            lambda there: _called(attempt, wire, f"{there.protocol}://{there.address}"),
            _NotSent,
        )
    except _NotSent as error:
        return error.verdict
    except (NoInstance, Unavailable) as error:
        return Verdict(Kind.FAILED, f"the request was not sent: {error}")


def _called(attempt: Attempt, wire: Wire, origin: str = "") -> Verdict:
    began = time.monotonic()
    try:
        request = build(attempt, origin)
    except (Unfilled, Invalid) as error:
        return Verdict(Kind.FAILED, f"the request could not be made: {error}")
    try:
        answer = _followed(attempt, wire, request)
        if wire.aborted:
            return _broken_off(attempt, wire)
    except Broken:
        return _broken_off(attempt, wire)
    except Unreachable as error:
        attempt.output.text(f"{request.method} {request.shown}: {error}")
        if wire.sent:
            return Verdict(Kind.FAILED, f"after a redirect, the request was not sent: {error}")
        raise _NotSent(Verdict(Kind.FAILED, f"the request was not sent: {error}")) from None
    except _LOST as error:
        if wire.aborted:
            return _broken_off(attempt, wire)
        told = _told(error)
        attempt.output.text(f"{request.method} {request.shown}: {told}")
        if wire.sent:
            return Verdict(Kind.UNKNOWN, f"the answer was lost after sending: {told}")
        raise _NotSent(Verdict(Kind.FAILED, f"the request could not be sent: {told}")) from None
    return _verdict(attempt, answer, time.monotonic() - began)


def _broken_off(attempt: Attempt, wire: Wire) -> Verdict:
    sent = "; it was sent, the service may have done it" if wire.sent else "; it was not sent"
    if attempt.cancelled:
        return Verdict(Kind.CANCELLED, f"cancelled during the request{sent}")
    return Verdict(Kind.TIMED_OUT, f"no complete answer within {attempt.envelope.timeout:g} s{sent}")


@dataclass(frozen=True)
class _Answer:
    head: BaseHTTPResponse
    body: bytes
    cut: bool
    stayed: str = ""
    """Why a redirect was not followed."""


def _followed(attempt: Attempt, wire: Wire, request: Request) -> _Answer:
    """The answer in the end, after as many redirects as the job allows."""
    hops = int(attempt.envelope.action.get("redirects") or 0)
    while True:
        connection, key = _exchange(attempt, wire, request)
        try:
            head: BaseHTTPResponse = connection.getresponse()
            stayed = ""
            if head.status in _REDIRECTS and attempt.envelope.action.get("redirects"):
                try:
                    if not hops:
                        raise NotFollowed("there were more than the job allows")
                    request, hops = redirected(attempt, request, head.status, head.headers), hops - 1
                    attempt.output.text(f"HTTP {head.status}: on to {request.shown}")
                    connection.scrap()  # without reading a body that nobody wants
                    continue
                except NotFollowed as error:
                    stayed = f"the redirect was not followed: {error}"
            body, cut = http_answer.read(head)
        except BaseException:
            connection.scrap()
            raise
        keep = 0.0 if cut or connection.sock is None else http_answer.keeps_for(head.headers, IDLE, LONGEST_IDLE)
        if keep > 0 and wire.release():
            _connections(attempt).keep(key, connection, keep)
        else:
            connection.scrap()
        return _Answer(head, body, cut, stayed)


def _connections(attempt: Attempt) -> Connections:
    return attempt.process.own("http", Connections)


def _exchange(attempt: Attempt, wire: Wire, request: Request) -> tuple[Connection, Any]:
    """Send it: over a kept connection, or a new one. The connection, and the key to keep it by."""
    action, connections = attempt.envelope.action, _connections(attempt)
    folder = attempt.process.settings.tls_dir
    cert = str(action.get("client_cert") or "") if request.credentials else ""
    tls = tls_of(folder, bool(action.get("verify_tls", True)), str(action.get("ca") or ""), cert)
    found = addresses(request.host, attempt.process.targets, wire.wait)
    secure = (request.host, tls.stamp) if request.scheme == "https" else None
    key = (request.scheme, found[0], request.port, secure)
    before = wire.sent
    # A kept connection may end at the very moment it is used: not for what must not be in doubt.
    fresh = attempt.envelope.delivery == "at_most_once"
    connection = None if fresh else connections.take(key, wire)
    if connection is not None:
        try:
            _send(connection, request, attempt.left)
            return connection, key
        except OSError:
            connection.scrap()
            if wire.aborted or wire.sent != before:
                raise
    connection = connections.open(wire, request.scheme, request.host, found, request.port, tls, attempt.left)
    try:
        _send(connection, request, attempt.left)
    except BaseException:
        connection.scrap()
        raise
    return connection, (request.scheme, connection.host, request.port, secure)


def _send(connection: Connection, request: Request, left: float) -> None:
    if connection.sock is not None:
        connection.sock.settimeout(left + 0.1)
    connection.request(
        request.method, request.target, body=request.body, headers=request.headers, preload_content=False
    )


def _verdict(attempt: Attempt, answer: _Answer, took: float) -> Verdict:
    head, body, action = answer.head, answer.body, attempt.envelope.action
    attempt.output.text(f"HTTP {head.status} {head.reason} ({len(body)} bytes in {took:.3f} s)")
    attempt.output.write(body)
    if answer.cut:
        attempt.output.text(f"\n[crony: answer cut here, more than {BODY_LIMIT} bytes]")
    if head.status == ACCEPTED_STATUS and attempt.callback is not None:
        return ACCEPTED
    expected = [int(status) for status in action.get("expect_status") or ()]
    good = head.status in expected if expected else 200 <= head.status < 300
    if not good:
        wanted = f"expected {', '.join(map(str, expected))}" if expected else "expected 2xx"
        pause = http_answer.pause_of(head.headers, attempt.process.now() if "retry-after" in head.headers else 0.0)
        reason = f"the service answered {head.status} {_line(head.reason)}, {wanted}"
        if answer.stayed:
            reason += f"; {answer.stayed}"
        reason += http_answer.pause_in_words(pause, attempt.envelope.retry)
        return Verdict(Kind.FAILED, reason, head.status, retry_after=pause)
    if action.get("expect_body"):
        reason = http_answer.unexpected(action["expect_body"], head, body, answer.cut)
        if reason:
            return Verdict(Kind.FAILED, reason, head.status)
    return Verdict(Kind.SUCCEEDED, code=head.status, result=None if answer.cut else http_answer.result_of(head, body))


def _line(text: str | None) -> str:
    return "".join(char if char.isprintable() else "?" for char in (text or "")[:80])


def _told(error: BaseException) -> str:
    """The innermost cause in a few words; urllib3 wraps it."""
    seen: BaseException = error
    for _ in range(6):
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in getattr(seen, "args", ()) if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        seen = inner
    text = getattr(seen, "strerror", None) or str(seen).rpartition("object at 0x")[2].partition(">: ")[2] or str(seen)
    return " ".join(f"{type(seen).__name__}: {text}"[:300].split())
