"""The client of the REST API, against a server that answers as a test wants; a live Crony is in tests/acceptance."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from crony_sdk import CronyClient, Invalid, NotFound, TimedOut, Unauthorized, Unavailable

from tests.helpers.service import Asked, Service, service

Answer = tuple[int, dict[str, str], bytes]
TOKEN = "crony_of_the_tests"


def says(body: Any, status: int = 200, **headers: str) -> Answer:
    kind = "application/json" if status < 400 else "application/problem+json"
    return status, {"Content-Type": kind, **headers}, json.dumps(body).encode()


def serving(*answers: Answer | Callable[[Asked], Answer]) -> AbstractContextManager[Service]:
    """The answers in turn, the last one again and again."""
    left = list(answers)

    def answer(asked: Asked) -> Answer:
        found = left.pop(0) if len(left) > 1 else left[0]
        return found(asked) if callable(found) else found

    return service(answer)


def test_triggering_is_repeated_with_one_key_until_it_is_answered() -> None:
    with serving(
        (502, {}, b""), says({"detail": "etcd is away"}, 503), says({"run": "r1", "created": True}, 202)
    ) as web:
        run = CronyClient(web.url + "/", TOKEN).trigger("billing/close day", {"region": "cn"}, priority=3)
        assert (run.id, run.state, run.facts["created"]) == ("r1", "requested", True)
        assert {asked.path for asked in web.asked} == {"/api/v1/jobs/billing%2Fclose%20day:run"}
        assert len({asked.headers["idempotency-key"] for asked in web.asked}) == 1 and len(web.asked) == 3
        assert json.loads(web.asked[0].body) == {"params": {"region": "cn"}, "priority": 3}
        assert web.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        CronyClient(web.url).trigger("x", idempotency_key="mine")
        assert web.asked[-1].headers["idempotency-key"] == "mine" and "authorization" not in web.asked[-1].headers


def test_refusals_are_told_apart_and_hold_no_token() -> None:
    with serving(says({"detail": "There is no job x"}, 404), says({"detail": "not signed in"}, 401)) as web:
        client = CronyClient(web.url, TOKEN)
        with pytest.raises(NotFound, match="There is no job x") as missing:
            client.trigger("x")
        with pytest.raises(Unauthorized) as refused:
            client.run("r1")
        assert TOKEN not in str(missing.value) + str(refused.value) + repr(client)
        assert len(web.asked) == 2, "a refusal is not repeated"


def test_a_server_that_is_away_is_told_after_a_while() -> None:
    with pytest.raises(Unavailable, match="Connection refused"):
        CronyClient("http://127.0.0.1:1", patience=0.1).run("r1")


def test_runs_are_paged_to_the_limit() -> None:
    def page(asked: Asked) -> Answer:
        query = parse_qs(urlsplit(asked.path).query)
        start = int(query.get("cursor", ["0"])[0])
        items = [{"id": f"r{n}", "state": "ended", "outcome": "failed"} for n in range(start, start + 3)]
        return says({"items": items, "next_cursor": str(start + 3)})

    with serving(page) as web:
        since = datetime(2026, 11, 28, 8, tzinfo=timezone(timedelta(hours=8)))
        runs = list(CronyClient(web.url).runs(limit=7, job="x", since=since))
        assert [run.id for run in runs] == [f"r{n}" for n in range(7)] and not runs[0].succeeded
        assert parse_qs(urlsplit(web.asked[0].path).query)["since"] == ["2026-11-28T00:00:00+00:00"]
        with pytest.raises(Invalid, match="since"):
            list(CronyClient(web.url).runs(since=datetime(2026, 11, 28)))


def test_waiting_bears_a_restart_and_ends_in_time() -> None:
    running = says({"id": "r1", "state": "accepted"})
    ended = says({"id": "r1", "state": "ended", "outcome": "succeeded", "result": {"n": 1}, "job_name": "x"})
    with serving(running, says({}, 503), running, ended) as web:
        found = CronyClient(web.url, patience=0).wait("r1", timeout=30)
        assert found.succeeded and found.result == {"n": 1} and found.job == "x"
    with serving(running) as web, pytest.raises(TimedOut, match=r"after 0\.3 s \(state: accepted\)"):
        CronyClient(web.url).wait("r1", timeout=0.3)


def test_output_is_read_and_followed_piece_by_piece() -> None:
    text, grown = "one\ntwo 日\n".encode(), [0]

    def answer(asked: Asked) -> Answer:
        grown[0] += 3
        offset = int(parse_qs(urlsplit(asked.path).query)["offset"][0])
        piece = text[offset : min(grown[0], offset + 5)]
        complete = offset + len(piece) == len(text)
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Next-Offset": str(offset + len(piece))}
        return 200, {**headers, "X-Output-State": "complete" if complete else "open", "X-Output-Attempt": "2"}, piece

    with serving(answer) as web:
        assert b"".join(CronyClient(web.url).output("r1", follow=True)) == text
        assert "attempt=2" in web.asked[-1].path, "the attempt that was begun with"
        assert CronyClient(web.url).logs("r1") == text.decode()


def test_where_crony_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRONY_TOKEN", TOKEN)
    monkeypatch.delenv("CRONY_API", raising=False)
    with pytest.raises(Invalid, match="CRONY_API"):
        CronyClient()
    with serving(says({"id": "r1", "state": "queued"})) as web:
        CronyClient(web.url).run("r1")
        assert "authorization" not in web.asked[-1].headers, "our token does not go to an address given in code"
        monkeypatch.setenv("CRONY_API", web.url)
        CronyClient().run("r1")
        assert web.asked[-1].headers["authorization"] == f"Bearer {TOKEN}"
        CronyClient().cancel("r1")
        assert web.asked[-1].path == "/api/v1/runs/r1:cancel"
    for wrong in ("crony.example.org", "ftp://x", "http://user:pass@host", "http://host/?x=1", "http://", "http://h:0"):
        with pytest.raises(Invalid, match="url") as caught:
            CronyClient(wrong)
        assert "pass" not in str(caught.value)
    for wrong in ("", ".", ".."):
        with pytest.raises(Invalid, match="job"):
            CronyClient("http://h").trigger(wrong)
