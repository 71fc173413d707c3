"""Handlers: each attempt is done once, every end is reported, nobody gets in without a signature."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from crony_sdk import Context, Failed, Handlers, Invalid, Retry, Service
from crony_sdk.outbox import Outbox
from crony_sdk.service import Request
from crony_sdk.spool import Directory
from crony_sdk.testing import SECRET, Attempt, FakePlatform

from tests.helpers.wait import until, within


@contextmanager
def serving(handler: Handlers, **options: Any) -> Iterator[Service]:
    service = Service(handlers=handler, **{"secrets": [SECRET], **options})
    try:
        yield service
    finally:
        service.close(5)
        if isinstance(options.get("spool"), Path):
            service.outbox.close(0)


def told(attempt: Attempt) -> str:
    assert attempt.response is not None
    assert attempt.response.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(attempt.response.body)
    assert problem["status"] == attempt.status
    return str(problem["detail"])


def test_a_plain_handler_answers_with_its_result(crony: FakePlatform, handler: Handlers) -> None:
    seen: list[Context] = []

    @handler("billing/close-day")
    def close_day(context: Context) -> dict[str, str]:
        seen.append(context)
        return {"closed": context.params["region"]}

    with serving(handler) as service:
        attempt = crony.call(service, "billing/close-day", {"region": "cn"}, later=False, timeout=20)
        assert (attempt.status, attempt.outcome, attempt.result) == (200, "succeeded", {"closed": "cn"})
        assert seen[0].call.job == "billing/close-day" and 19 < (seen[0].left or 0) <= 20
        seen[0].progress(50)  # shown nowhere, and no error
        seen[0].log("to our own log")
        assert not seen[0].cancelled
    assert close_day(Context(seen[0].call, {"region": "us"})) == {"closed": "us"}, "it is still a function"


def test_how_a_plain_handler_fails(crony: FakePlatform, handler: Handlers, caplog: pytest.LogCaptureFixture) -> None:
    @handler("odd")
    def odd(context: Context) -> Any:
        if context.params.get("meant"):
            raise Failed("no rates today")
        if context.params.get("strange"):
            return object()
        return 1 / 0

    with serving(handler) as service:
        assert told(crony.call(service, "odd", {"meant": 1}, later=False)) == "no rates today"
        assert "Traceback" not in caplog.text
        attempt = crony.call(service, "odd", later=False)
        assert attempt.status == 500 and told(attempt) == "ZeroDivisionError: division by zero"
        assert "Traceback" in caplog.text
        assert "result: cannot be written as JSON" in told(crony.call(service, "odd", {"strange": 1}, later=False))


def test_a_final_failure_of_a_plain_handler_is_final_where_it_can_be_said(
    crony: FakePlatform, handler: Handlers
) -> None:
    @handler("odd")
    def odd(context: Context) -> None:
        raise Failed("never again", code=9, final=True)

    with serving(handler) as service:
        attempt = crony.call(service, "odd")
        assert (attempt.status, attempt.outcome, attempt.final, attempt.code) == (500, "failed", True, 9)


def test_background_work_is_accepted_alive_and_reported(crony: FakePlatform, handler: Handlers, tmp_path: Path) -> None:
    go = threading.Event()

    @handler("long", background=True)
    def long(context: Context) -> dict[str, int]:
        context.progress(10, "begun")
        context.log("a line")
        assert go.wait(150)
        assert context.left is not None and 30 < context.left <= 60
        return {"n": context.params["n"]}

    with serving(handler, spool=tmp_path / "spool") as service:
        attempts = [crony.call(service, "long", {"n": n}, heartbeat=0.6) for n in range(3)]
        assert [attempt.status for attempt in attempts] == [202] * 3
        until(lambda: all(attempt.heartbeats >= 2 and attempt.output == b"a line\n" for attempt in attempts))
        go.set()
        assert [attempt.wait().result for attempt in attempts] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert attempts[0].message == "begun"


def test_how_background_work_fails(crony: FakePlatform, handler: Handlers) -> None:
    @handler("odd", background=True)
    def odd(context: Context) -> Any:
        how = context.params["how"]
        if how == "meant":
            raise Failed("no rates", code=3, final=True)
        return {"strange": {1, 2}, "large": "x" * 300_000}[how] if how in ("strange", "large") else 1 / 0

    with serving(handler) as service:
        ends = {
            how: crony.call(service, "odd", {"how": how}).wait() for how in ("meant", "strange", "large", "unmeant")
        }
    assert {end.outcome for end in ends.values()} == {"failed"}
    assert (ends["meant"].reason, ends["meant"].code, ends["meant"].final) == ("no rates", 3, True)
    assert "cannot be written as JSON" in ends["strange"].reason
    assert "262144" in ends["large"].reason and ends["large"].final
    assert ends["unmeant"].reason == "ZeroDivisionError: division by zero" and not ends["unmeant"].final


def test_the_same_attempt_is_done_once(crony: FakePlatform, handler: Handlers) -> None:
    go, done = threading.Event(), []

    @handler("plain")
    def plain(context: Context) -> int:
        done.append(context.call.attempt)
        assert go.wait(150)
        return len(done)

    @handler("long", background=True)
    def long(context: Context) -> int:
        return plain(context)

    with serving(handler) as service:
        twins = [crony.attempt(later=False)] * 4
        calls = [threading.Thread(target=crony.call, args=(service, "plain"), kwargs={"attempt": a}) for a in twins]
        for call in calls:
            call.start()
        until(lambda: done)
        go.set()
        for call in calls:
            call.join()
        again = crony.call(service, "plain", attempt=twins[0])
        assert (again.status, again.response and again.response.body, done) == (200, b"1", [1])
        go.clear()
        later = crony.attempt()
        for fence in range(2000, 2003):  # a copy with another fence starts nothing: the signature does not cover it
            later.headers["X-Crony-Fence"] = str(fence)
            assert crony.call(service, "long", attempt=later).status == 202
        until(lambda: len(done) > 1)
        go.set()
        later.wait()
        assert crony.call(service, "long", attempt=later).status == 202 and done == [1, 1]


def test_a_success_whose_answer_was_lost_is_not_done_again(
    crony: FakePlatform, handler: Handlers, tmp_path: Path
) -> None:
    done = []

    @handler("plain")
    def plain(context: Context) -> dict[str, int]:
        done.append(context.call.attempt)
        return {"by": context.call.attempt}

    @handler("long", background=True)
    def long(context: Context) -> dict[str, int]:
        return plain(context)

    with serving(handler, spool=tmp_path / "spool") as service:
        for name in ("plain", "long"):
            first = crony.call(service, name)
            first.wait()
            crony.call(service, name, run=first.run, n=2).wait()
            assert crony.attempts[first.run, 2].result == {"by": 1}
    with serving(handler, spool=tmp_path / "spool") as service:  # after a restart, or another worker process
        assert crony.call(service, "long", run=first.run, n=3).wait().result == {"by": 1}
    assert done == [1, 1]
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "spool/done").iterdir()} == {"0o600"}


def test_a_failure_is_tried_again_and_an_old_attempt_is_refused(crony: FakePlatform, handler: Handlers) -> None:
    @handler("odd")
    def odd(context: Context) -> str:
        if context.call.attempt == 1:
            raise Failed("not yet")
        return "ok"

    with serving(handler) as service:
        first = crony.call(service, "odd", later=False)
        assert told(crony.call(service, "odd", attempt=first)) == "not yet", "the same attempt gets the same answer"
        assert crony.call(service, "odd", run=first.run, n=2, later=False).result == "ok"
        assert crony.call(service, "odd", attempt=first).status == 409


def test_a_later_attempt_stops_the_earlier_one(crony: FakePlatform, handler: Handlers) -> None:
    began = threading.Semaphore(0)

    @handler("long", background=True)
    def long(context: Context) -> int:
        began.release()
        if context.call.attempt == 1:
            assert context.wait_cancelled(30)
            context.check()
        return context.call.attempt

    with serving(handler) as service:
        first = crony.call(service, "long")
        assert began.acquire(timeout=60)
        first.end("timed_out")
        assert crony.call(service, "long", run=first.run, n=2).wait().result == 2


def test_a_cancel_reaches_the_handler(crony: FakePlatform, handler: Handlers) -> None:
    ended = threading.Event()

    @handler("long", background=True)
    def long(context: Context) -> None:
        assert context.wait_cancelled(30) and context.cancelled
        ended.set()
        context.check()

    with serving(handler) as service:
        attempt = crony.call(service, "long", heartbeat=0.3)
        attempt.end("cancelled", cancel=True)
        assert ended.wait(10)


def test_too_much_is_refused_for_now(crony: FakePlatform, handler: Handlers) -> None:
    go = threading.Event()

    @handler("long", background=True)
    def long(context: Context) -> None:
        assert go.wait(150)

    with serving(handler, threads=2, queue=1) as service:
        taken = [crony.call(service, "long") for _ in range(3)]
        assert [attempt.status for attempt in taken] == [202] * 3
        refused = crony.call(service, "long")
        assert refused.status == 503 and refused.response and refused.response.headers["Retry-After"] == "5"
        go.set()
        for attempt in taken:
            attempt.wait()
        again = crony.call(service, "long", run=refused.run)
        assert again.status == 202 and again.wait().outcome == "succeeded"


def test_a_service_that_stops_leaves_nobody_waiting(crony: FakePlatform, handler: Handlers, tmp_path: Path) -> None:
    began, go = threading.Semaphore(0), threading.Event()

    @handler("long", background=True)
    def long(context: Context) -> str:
        began.release()
        go.wait(30 if context.params["stubborn"] else 0)
        return "done"

    with serving(handler, threads=1, spool=tmp_path / "spool") as service:
        stuck = crony.call(service, "long", {"stubborn": True})
        waiting = crony.call(service, "long", {"stubborn": False})
        assert began.acquire(timeout=60)
        with within(3, "stopping"):
            service.close(0.3)
        for attempt in (stuck, waiting):
            assert (attempt.wait().outcome, attempt.final) == ("failed", False)
            assert "stopped before it was done" in attempt.reason
        assert crony.call(service, "long", {"stubborn": False}).status == 503
        go.set()


def test_retries_inside_the_service(crony: FakePlatform, handler: Handlers) -> None:
    tries: list[str] = []

    @handler("odd", background=True, retry=Retry(delay=0.01))
    def odd(context: Context) -> int:
        tries.append(context.call.run)
        if len(tries) < context.params["works_after"]:
            raise ConnectionError("no rates")
        return len(tries)

    with serving(handler) as service:
        assert crony.call(service, "odd", {"works_after": 3}, retry_max=5).wait().result == 3
        tries.clear()
        attempt = crony.call(service, "odd", {"works_after": 100}, retry_max=2).wait()
        assert (attempt.reason, attempt.final) == ("ConnectionError: no rates (after 3 tries)", True)
        assert len(tries) == 3


# -- who gets in -------------------------------------------------------------------------------------


def test_nothing_is_done_without_the_right_signature(crony: FakePlatform, handler: Handlers) -> None:
    done = []

    @handler("x")
    def x(context: Context) -> None:
        done.append(context)

    with serving(handler, secrets=["another-secret-of-32-characters-.."]) as service:
        assert crony.call(service, "x").status == 401
    with serving(handler) as service:
        crony.secret = None
        assert "not signed" in told(crony.call(service, "x"))
        crony.secret = SECRET
        attempt = crony.attempt()
        body, target = b'{"amount": 1}', "/x"
        headers = {**attempt.headers, **crony.signature(attempt, "POST", target, body)}
        for changed in (
            Request("POST", target, "x", headers, b'{"amount": 2}'),
            Request("GET", target, "x", headers, body),
            Request("POST", "/x?region=us", "x", headers, body),
            Request("POST", target, "x", {**headers, "X-Crony-Run": "j1.1.m2"}, body),
            Request("POST", target, "x", {**headers, "X-Crony-Attempt": "2"}, body),
        ):
            assert service.answer(changed).status == 401
        assert not done
        assert service.answer(Request("POST", target, "x", headers, body)).status == 200
    with serving(handler, unsigned=True, secrets=None) as service:
        crony.secret = None
        assert crony.call(service, "x").status == 200


def test_a_service_without_secrets_says_so(handler: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRONY_CALL_SECRETS", raising=False)
    with pytest.raises(Invalid, match="CRONY_CALL_SECRETS"):
        Service(handlers=handler)
    with pytest.raises(Invalid, match="unsigned"):
        Service(handlers=handler, secrets=[SECRET], unsigned=True)
    with pytest.raises(Invalid, match="platform"):
        Service(handlers=handler, secrets=[SECRET], platform="crony")


def test_reports_go_to_our_own_platform_only(crony: FakePlatform, handler: Handlers) -> None:
    handler("x")(lambda context: None)
    with serving(handler, platform="https://crony.example.org/") as service:
        for host, status in (("crony.example.org", 200), ("crony.example.org.evil", 403), ("evil", 403)):
            attempt = crony.attempt()
            attempt.headers["X-Crony-Callback"] = f"https://{host}/api/v1/runs/{attempt.run}/attempts/1"
            assert crony.call(service, "x", attempt=attempt).status == status


def test_a_path_that_a_proxy_shortened_is_signed_as_it_was_sent(crony: FakePlatform, handler: Handlers) -> None:
    handler("x")(lambda context: None)
    attempt = crony.attempt()
    headers = {**attempt.headers, **crony.signature(attempt, "POST", "/outside/x", b"")}
    with serving(handler, behind="/outside") as service:
        assert service.answer(Request("POST", "/x", "x", headers)).status == 200
    with serving(handler) as service:
        assert service.answer(Request("POST", "/x", "x", headers)).status == 401


def test_what_is_wrong_with_a_call_is_said(
    crony: FakePlatform, handler: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    handler("long", background=True)(lambda context: None)
    handler("x")(lambda context: context.params)
    with serving(handler, max_body=1000, unsigned=True, secrets=None) as service:

        def answer(name: str, body: bytes = b"", target: str = "/x", **headers: str) -> tuple[int, bytes]:
            given = {"X-Crony-Run": "j1.1." + name, "X-Crony-Attempt": "1", "Content-Type": "application/json"}
            response = service.answer(Request("POST", target, name, {**given, **headers}, body))
            return response.status, response.body

        assert answer("unknown")[0] == 404
        assert answer("x", b"x" * 1001)[0] == 413
        assert answer("x", b"{")[0] == 400
        assert answer("x", b"\xff")[0] == 400
        assert b"async" in answer("long")[1]
        assert answer("x", **{"X-Crony-Run": ""}) == (
            400,
            b'{"type":"about:blank","title":"Bad Request","status":400,'
            b'"detail":"X-Crony-Run is missing: this is no call by Crony"}',
        )
        assert answer("x", target="/x?region=%E6%97%A5") == (200, '{"region":"日"}'.encode())
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["", "/x", "x/", "x" * 256])
def test_names_that_cannot_be_called_are_refused(handler: Handlers, name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        handler(name)


def test_what_cannot_be_a_handler_is_refused(handler: Handlers) -> None:
    handler("x")(lambda context: None)
    with pytest.raises(Invalid, match="already"):
        handler("x")

    async def coroutine(context: Context) -> None: ...

    with pytest.raises(Invalid, match="plain functions"):
        handler("y")(coroutine)


def test_reports_of_a_service_survive_it(
    crony: FakePlatform, handler: Handlers, outbox: Outbox, successor: Outbox
) -> None:
    handler("long", background=True)(lambda context: "safe")
    assert isinstance(outbox.store, Directory)
    with serving(handler, spool=outbox) as service:
        crony.down()
        attempt = crony.call(service, "long")
        until(lambda: list(outbox.store.path.glob("*.json")))  # type: ignore[attr-defined]
    outbox.close(0)
    crony.up()
    successor.start()
    assert attempt.wait(150).result == "safe"
