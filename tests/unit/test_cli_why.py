"""`crony job why`: the moment goes out with an offset, the sentence comes back in the terminal's language."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from crony.cli.api import spoken
from crony.cli.main import run
from tests.unit.test_cli_api import says, serving

FOUND = {"job": "j1", "job_name": "a", "at": "2026-12-01T01:00:00Z", "verdict": "not_due", "run": None, "skip": None,
         "revision": 2, "sentence": "It was not due\x1b[2J.", "fire_before": "2026-12-01T00:30:00Z",
         "fire_after": None}  # fmt: skip


@pytest.mark.parametrize("at", ["2026-12-01T09:00:00+08:00", "2026-12-01T01:00:00Z", "2026-12-01 01:00"])
def test_asked_and_answered(at: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {}

    def answer(handler: Any) -> None:
        asked.update(path=handler.path, language=handler.headers["Accept-Language"])
        says(200, json.dumps(FOUND).encode())(handler)

    with serving(answer) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
        monkeypatch.setenv("TZ", "UTC")
        assert run(["job", "why", "team/a", "--at", at]) == 0
    parts = urlsplit(asked["path"])
    (sent,) = parse_qs(parts.query)["at"]
    assert parts.path == "/api/v1/jobs/team%2Fa/why" and asked["language"] == "zh"
    moment = datetime.fromisoformat(sent)
    assert moment.utcoffset() is not None and moment.replace(tzinfo=None) == datetime.fromisoformat(at[:19])
    out = capsys.readouterr().out
    assert "It was not due\\x1b[2J.\n" in out and "not_due" in out and "fire before" in out and "fire after" not in out


def test_the_terminals_language() -> None:
    assert spoken({"LANG": "zh_CN.UTF-8"}) == "zh" and spoken({}) == "en"
    assert spoken({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}) == "en" and spoken({"LC_ALL": "", "LANG": "zh"}) == "zh"
