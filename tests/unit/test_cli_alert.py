"""`crony alert list`: a table for people, the API's objects for programs."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from crony.cli.main import run
from tests.unit.test_cli_api import says, serving

ROW = {"id": "run_failed.r1", "kind": "run_failed", "at": "2026-11-22T10:00:00Z", "job": "j1", "job_name": "night/load",
       "run": "r1", "attempt": 1, "outcome": "failed", "node": "n1", "times": 1,
       "reason": "exit code 3\x1b[31m"}  # fmt: skip


def listed(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and what the server was asked."""
    asked: dict[str, Any] = {}

    def answer(handler: Any) -> None:
        asked.update(parse_qs(urlsplit(handler.path).query), path=urlsplit(handler.path).path)
        says(200, json.dumps({"items": rows, "next_cursor": None}).encode())(handler)

    with serving(answer) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        return run(["alert", "list", *options]), asked


def test_a_table_with_what_happened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    more = {**ROW, "kind": "not_kept", "times": 12, "job_name": None, "job": None, "run": None, "node": None}
    code, asked = listed(monkeypatch, [ROW, more], "--kind", "run_failed", "--job", "night/load", "--node", "n1")
    out = capsys.readouterr().out
    assert code == 0 and asked["path"] == "/api/v1/alerts"
    assert (asked["kind"], asked["job"], asked["node"]) == (["run_failed"], ["night/load"], ["n1"])
    head, first, second = out.splitlines()
    assert head.split() == ["AT", "KIND", "JOB", "RUN", "NODE", "SENT", "TO", "REASON"]
    assert "night/load" in first and "exit code 3\\x1b[31m" in first and "12 alerts: " in second


def test_json_is_the_apis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(monkeypatch, [ROW], "-o", "json")[0] == 0
    assert json.loads(capsys.readouterr().out) == [ROW]


def test_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(monkeypatch, [])[0] == 0
    assert capsys.readouterr() == ("", "no alerts\n")


@pytest.mark.parametrize(("state", "code"), [("sent", 0), ("given_up", 1)])
def test_a_test_waits_for_what_became_of_it(
    state: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    told = [{"to": "ops", "state": state, "at": "2026-11-22T10:00:00Z", "said": "0 success\x1b[31m"}]

    def answer(handler: Any) -> None:
        handler.rfile.read(int(handler.headers.get("content-length") or 0))
        asked.append(f"{handler.command} {handler.path}")
        row = {**ROW, "kind": "test", "id": "test.a", "told": told if len(asked) > 2 else []}
        body = {"id": "test.a"} if handler.command == "POST" else {"items": [row], "next_cursor": None}
        says(200, json.dumps(body).encode())(handler)

    with serving(answer) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        try:
            ended: Any = run(["alert", "test", "--to", "ops"])
        except SystemExit as error:
            ended = error.code
    assert ended == code
    out = capsys.readouterr().out
    assert asked[0] == "POST /api/v1/alerts:test" and len(asked) == 3
    assert f"ops: {state.replace('_', ' ')}: 0 success" in out and "\x1b" not in out
