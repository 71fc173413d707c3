"""The stop switch: turned by operators, seen by everybody, on every page, in readiness, figures and audit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crony.cli.main import run
from crony.store import audit
from crony.web.wiring import Web
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, text_of


def test_a_stop_is_said_everywhere_and_taken_back(web: Web, api: Api, browser: Browser) -> None:
    assert api("GET", "control").json() == {"stop": False, "by": None, "reason": None, "at": None}
    assert "Stopped" not in text_of(browser.get("/jobs").text)
    found = api("PUT", "control", json={"stop": True, "reason": "migration <b>"}).json()
    assert found["stop"] and found["by"] and found["at"] and found["reason"] == "migration <b>"
    for page in ("/jobs", "/runs", "/nodes", "/queues", "/alerts", "/account"):
        html = browser.get(page).text
        assert "Stopped: no job is started" in text_of(html) and found["by"] in html, page
        assert "migration &lt;b&gt;" in html
    assert "整个平台不再启动任何作业" in browser.get("/jobs", headers={"accept-language": "zh"}).text
    ready = browser.get("/readyz?verbose=1")
    assert ready.status_code == 200 and f"dispatch: stopped by {found['by']}" in ready.text
    assert "crony_stopped 1.0" in api.client.get("/metrics", headers=api.headers).text
    assert browser.post("/control", {"stop": "0"}).headers["location"] == "/nodes?done=going"
    assert not api("GET", "control").json()["stop"] and "Stopped" not in text_of(browser.get("/jobs").text)
    assert browser.post("/control", {"stop": "1"}).headers["location"] == "/nodes?done=stopped"
    told = [(entry.action, entry.detail["reason"]) for entry in audit.list_entries(web.db, kind="control").items]
    assert told == [("control.stop", ""), ("control.go", ""), ("control.stop", "migration <b>")]


def test_a_record_nobody_can_read_is_a_stop_as_it_is_for_the_leader(web: Web, api: Api) -> None:
    for value in (b"nonsense", b'{"v": 99}', b"[]"):
        web.client.put(web.keys.control, value)
        web.live.forget()
        assert api("GET", "control").json()["stop"], value
    assert api("PUT", "control", json={"stop": False}).json()["stop"] is False


@pytest.mark.parametrize("body", [{}, {"stop": "yes"}, {"stop": True, "reason": "x" * 201}, {"stop": True, "x": 1}])
def test_what_makes_no_sense_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert api("PUT", "control", json=body).status_code == 422 and not api("GET", "control").json()["stop"]


@pytest.mark.parametrize(("words", "stop"), [(["stop", "--reason", "why"], True), (["go"], False)])
def test_the_command(monkeypatch: pytest.MonkeyPatch, words: list[str], stop: bool) -> None:
    asked: list[Any] = []

    def answer(handler: Any) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        asked.append((handler.command, handler.path, body))
        says(200, json.dumps({"stop": stop}).encode())(handler)

    with serving(answer) as made:
        monkeypatch.setenv("CRONY_API", made.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert run(words) == 0
    assert asked == [("PUT", "/api/v1/control", {"stop": stop, "reason": "why" if stop else ""})]
