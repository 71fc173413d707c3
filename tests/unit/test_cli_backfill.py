"""`crony job backfill` and `crony backfill`: what goes out, and what people read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crony.cli.main import run
from tests.unit.test_cli_api import says, serving

FOUND = {
    "id": "b1", "job": "j1", "job_name": "a\x1b[2J", "state": "running", "from": "2026-03-01T00:00:00Z",
    "to": "2026-03-04T00:00:00Z", "order": "oldest", "parallel": 2, "params": {}, "total": 72, "succeeded": 10,
    "failed": 1, "cancelled": 0, "running": 2, "left": 59, "next_at": "2026-03-01T13:00:00Z", "reason": None,
    "by": "li", "stopped_by": None, "requested_at": "2026-03-05T00:00:00Z", "ended_at": None, "created": True,
}  # fmt: skip


def asked(monkeypatch: pytest.MonkeyPatch, answer: Any, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command against a server that answers so; its exit code and what it was asked."""
    seen: dict[str, Any] = {}

    def reply(handler: Any) -> None:
        length = int(handler.headers.get("content-length") or 0)
        seen.update(path=handler.path, body=json.loads(handler.rfile.read(length)) if length else None)
        says(200, json.dumps(answer).encode())(handler)

    with serving(reply) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        monkeypatch.setenv("TZ", "UTC")
        code = run(list(words))
    return code, seen


PERIOD = ("--from", "2026-03-01", "--to", "2026-03-04T00:00:00Z")


def test_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--parallel", "2", "-p", "day:=1", "--idempotency-key", "k")
    code, seen = asked(monkeypatch, FOUND, "job", "backfill", "team/a", *PERIOD, *more)
    assert code == 0 and seen["path"] == "/api/v1/jobs/team%2Fa:backfill"
    assert seen["body"]["from"].startswith("2026-03-01T00:00:00") and seen["body"]["to"] == "2026-03-04T00:00:00+00:00"
    del seen["body"]["from"], seen["body"]["to"]
    assert seen["body"] == {
        "dry_run": False,
        "parallel": 2,
        "order": "oldest",
        "params": {"day": 1},
        "idempotency_key": "k",
    }
    said = capsys.readouterr()
    assert said.out == "b1\n" and "72 instants" in said.err and "crony backfill get b1" in said.err


def test_a_preview(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"count": 102, "instants": ["2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z"], "more": 100}
    code, seen = asked(monkeypatch, answer, "job", "backfill", "a", *PERIOD, "--dry-run")
    said = capsys.readouterr()
    assert code == 0 and seen["body"]["dry_run"] is True
    assert len(said.out.splitlines()) == 2 and "100 more" in said.err and "nothing was started" in said.err


def test_progress_and_a_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, seen = asked(monkeypatch, FOUND, "backfill", "get", "b1")
    out = capsys.readouterr().out
    assert code == 0 and seen["path"] == "/api/v1/backfills/b1"
    assert "10 of 72" in out and "oldest first, 2 at a time" in out and "\x1b" not in out and "stopped by" not in out
    code, seen = asked(monkeypatch, {"items": [FOUND], "next_cursor": None}, "backfill", "list", "--job", "team/a")
    assert code == 0 and seen["path"] == "/api/v1/backfills?job=team%2Fa"
    assert "b1" in capsys.readouterr().out


def test_it_is_stopped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, seen = asked(monkeypatch, FOUND, "backfill", "cancel", "b1", "--running")
    assert code == 0 and (seen["path"], seen["body"]) == ("/api/v1/backfills/b1:cancel", {"running": True})
    assert "59 of 72 will not start" in capsys.readouterr().out


def test_the_period_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["job", "backfill", "a", "--from", "2026-03-01"]) == 2
