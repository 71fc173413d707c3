"""The SDK's gRPC server, called by a node's own runner: what comes in, what goes back, cancels, signatures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crony.domain.callback import Token
from crony.domain.outcome import Kind
from crony.workers.attempt import ACCEPTED, Verdict
from crony.workers.calling import Callback
from crony.workers.process import Process
from crony.workers.runners import grpc
from tests.helpers import attempts
from tests.helpers.attempts import Aside
from tests.helpers.grpc_server import GrpcServer, sdk_server
from tests.helpers.wait import until

SECRET = "a-secret-of-32-characters-or-more"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    with sdk_server(tmp_path_factory.mktemp("sdk"), SECRET) as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path) -> Process:
    return attempts.process(tmp_path, call_secrets=(SECRET,))


def action(there: GrpcServer, handler: str, **request: object) -> dict:
    return {"kind": "grpc", "address": there.address, "handler": handler, "request": request, "tls": None}


def run(parts: Process, told: dict, **changes: object) -> Verdict:
    return grpc.run(attempts.attempt(parts, told, run=f"j1.1.{time.time_ns()}", **changes))


def marks(there: GrpcServer) -> list[list[str]]:
    return [line.split() for line in there.journal.read_text().splitlines()] if there.journal.exists() else []


def test_done_and_what_the_handler_is_told(parts: Process, there: GrpcServer) -> None:
    verdict = run(parts, action(there, "close day 日", limit=5), params={"region": "cn 日"}, attempt=3)
    result = verdict.result
    assert (verdict.kind, verdict.code) == (Kind.SUCCEEDED, 0)
    assert (result["params"], result["attempt"], result["job"]) == ({"limit": 5, "region": "cn 日"}, 3, "tests/job")


@pytest.mark.parametrize(
    ("handler", "request_", "verdict"),
    [
        ("breaks", {"final": False}, Verdict(Kind.FAILED, "there are no rates", 17)),
        ("breaks", {"final": True}, Verdict(Kind.FAILED, "there are no rates", 17, final=True)),
        ("raises", {}, Verdict(Kind.FAILED, "ValueError: no luck")),
        ("nobody", {}, Verdict(Kind.FAILED, "the service answered NOT_FOUND: there is no handler 'nobody' here", 5)),
    ],
)
def test_failed(parts: Process, there: GrpcServer, handler: str, request_: dict, verdict: Verdict) -> None:
    assert run(parts, action(there, handler, **request_)) == verdict


def test_the_same_attempt_twice_is_done_once(parts: Process, there: GrpcServer) -> None:
    told = action(there, "close day 日")
    first, second = (grpc.run(attempts.attempt(parts, told, run="j1.1.twice")) for _ in range(2))
    assert first == second and marks(there).count(["j1.1.twice", "1", "called"]) == 1


@pytest.mark.parametrize("secret", ["", "another-secret-of-32-characters-000"])
def test_a_call_that_is_not_signed_by_us_is_refused(tmp_path: Path, there: GrpcServer, secret: str) -> None:
    before = len(marks(there))
    parts = attempts.process(tmp_path, call_secrets=(secret,) if secret else ())
    verdict = run(parts, action(there, "close day 日"))
    assert (verdict.kind, verdict.code) == (Kind.FAILED, 16) and "UNAUTHENTICATED" in verdict.reason
    assert len(marks(there)) == before


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_work_hears_of_a_cancel_and_of_the_end_of_its_time(parts: Process, there: GrpcServer, how: str) -> None:
    run_id, seconds = f"j1.1.{how}", 20.0 if how == "cancel" else 1.0
    target = attempts.attempt(parts, action(there, "slow"), run=run_id, timeout=seconds)
    aside = Aside(grpc.run, target)
    until(lambda: [run_id, "1", "begun"] in marks(there), what="it begins")
    began = time.monotonic()
    if how == "cancel":
        target.cancel()
    verdict = aside.join(40)
    assert verdict.kind is (Kind.CANCELLED if how == "cancel" else Kind.TIMED_OUT)
    assert time.monotonic() - began < 3
    until(lambda: [run_id, "1", "cancelled"] in marks(there), what="the work hears of it")


def test_accepted_and_cancelled_by_its_attempt(parts: Process, there: GrpcServer) -> None:
    target = attempts.attempt(parts, action(there, "long", gate="never"), run="j1.1.later", deadline=600.0)
    assert run(parts, action(there, "long", gate="never")).reason.startswith("the service answered INVALID_ARGUMENT")
    token = Token.new("run.n1", target.held.place).under(77)
    target.callback = Callback.of(target.envelope, token, api="http://127.0.0.1:9", now=time.time())
    assert grpc.run(target) is ACCEPTED
    until(lambda: ["j1.1.later", "1", "begun"] in marks(there), what="it goes on in the background")
    assert ["j1.1.later", "1", "cancelled"] not in marks(there), "the end of the call is not the end of the work"
