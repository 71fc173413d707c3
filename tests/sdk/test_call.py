"""The facts of a call, from headers, metadata and environment; senseless ones are refused, nothing secret is shown."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from crony_sdk import Call, Completion, NotACall

HEADERS = {
    "X-Crony-Run": "j01abc.1.1764288000",
    "X-Crony-Attempt": "2",
    "X-Crony-Fence": "4711",
    "X-Crony-Fire-Time": "2025-11-28T00:00:00Z",
    "X-Crony-Job": "billing%2Fclose-day%20%E6%97%A5",
    "Idempotency-Key": "j01abc.1.1764288000",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "X-Crony-Timeout": "30",
    "X-Crony-Retry-Max": "3",
    "X-Crony-Callback": "https://crony.example.org/api/v1/runs/j01abc.1.1764288000/attempts/2",
    "X-Crony-Token": "a.very-secret_token~",
    "X-Crony-Deadline": "2126-11-28T01:00:00.25+01:00",
    "X-Crony-Heartbeat": "60",
}


def test_the_facts_of_a_call() -> None:
    call = Call.from_headers(HEADERS)
    assert (call.run, call.attempt, call.fence, call.retry_max) == ("j01abc.1.1764288000", 2, 4711, 3)
    assert call.job == "billing/close-day 日" and call.idempotency_key == call.run
    assert call.fire_time == datetime(2025, 11, 28, tzinfo=timezone.utc)  # noqa: UP017
    assert call.deadline == datetime(2126, 11, 28, 0, 0, 0, 250_000, tzinfo=timezone.utc)  # noqa: UP017
    assert call.heartbeat == 60 and call.asynchronous
    assert call.answer_left is not None and 29 < call.answer_left <= 30
    assert call.report_left is not None and call.report_left > 1e9
    lower = {name.lower(): value for name, value in HEADERS.items()}
    assert Call.from_headers(lower) == call


def test_a_plain_call_has_no_callback() -> None:
    call = Call.from_headers({"X-Crony-Run": "j1.1.2", "X-Crony-Attempt": "1"})
    assert not call.asynchronous and call.fire_time is None and call.answer_left is None and call.report_left is None
    with pytest.raises(NotACall, match="async"):
        Completion(call)


def test_nothing_shows_the_token() -> None:
    call = Call.from_headers(HEADERS)
    assert call.token == "a.very-secret_token~"
    assert "secret" not in repr(call) and "secret" not in repr(Completion(call))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Crony-Run", ""),
        ("X-Crony-Run", "a/../b"),
        ("X-Crony-Run", "x" * 129),
        ("X-Crony-Attempt", "0"),
        ("X-Crony-Attempt", "-1"),
        ("X-Crony-Attempt", "1e3"),
        ("X-Crony-Attempt", "9" * 30),
        ("X-Crony-Fence", "high"),
        ("X-Crony-Fire-Time", "yesterday"),
        ("X-Crony-Fire-Time", "2025-11-28T00:00:00"),
        ("X-Crony-Timeout", "soon"),
        ("X-Crony-Timeout", "nan"),
        ("X-Crony-Timeout", "-1"),
        ("X-Crony-Heartbeat", "inf"),
        ("X-Crony-Callback", "file:///etc/passwd"),
        ("X-Crony-Callback", "https://user:password@crony/api"),
        ("X-Crony-Callback", "https://crony/api?x=1"),
        ("X-Crony-Callback", "https://crony/a b"),
        ("X-Crony-Callback", "http://crony:99999/api"),
        ("X-Crony-Callback", "https:///api"),
        ("X-Crony-Token", "two words"),
        ("X-Crony-Token", "x" * 1025),
        ("X-Crony-Deadline", "1764288000"),
    ],
)
def test_senseless_facts_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(NotACall, match=name):
        Call.from_headers({**HEADERS, name: value})


def test_a_strange_traceparent_is_dropped_and_not_refused() -> None:
    assert Call.from_headers({**HEADERS, "traceparent": "x\r\ny"}).traceparent == ""


def test_the_facts_in_a_shell_jobs_environment(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("of-the-file\n")
    environ = {
        "CRONY_RUN_ID": "j1.1.2",
        "CRONY_ATTEMPT": "1",
        "CRONY_FENCE": "7",
        "CRONY_NAME": "close-day",
        "CRONY_CALLBACK": HEADERS["X-Crony-Callback"],
        "CRONY_CALLBACK_TOKEN_FILE": str(token),
        "CRONY_CALLBACK_ACCEPT_FILE": str(tmp_path / "accept"),
        "CRONY_CALLBACK_DEADLINE": "2126-11-28T01:00:00Z",
        "CRONY_CALLBACK_HEARTBEAT": "30",
    }
    completion = Completion.from_environ(environ)
    assert completion.call.token == "of-the-file" and completion.call.heartbeat == 30
    completion.accept()
    assert (tmp_path / "accept").exists()
    token.unlink()
    with pytest.raises(NotACall, match=r"TOKEN_FILE cannot be read: No such file"):
        Completion.from_environ(environ)
    with pytest.raises(NotACall, match="CRONY_RUN_ID"):
        Call.from_environ({})


def test_the_facts_in_grpc_metadata() -> None:
    pairs: list[tuple[str, Any]] = [(name.lower(), value) for name, value in HEADERS.items()]
    context = SimpleNamespace(invocation_metadata=lambda: [*pairs, ("x-bin", b"\xff")])
    assert Completion.from_grpc(context).call == Call.from_headers(HEADERS)
