"""Runs in parts in API, console and command: one line for all, its parts below it, each part as a run of its own."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from crony.cli.main import run as crony
from crony.domain.join import Join
from crony.domain.run import Wait
from crony.store import archive
from crony.web.wiring import Web
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, text_of
from tests.web.test_runs import RUN, SEALER, envelope, in_etcd, outcome


def part(number: int, kind: str = "succeeded", **changes: Any) -> Any:
    return outcome(f"{RUN}.{number}", 1, kind, parts=3, node=f"n{number}", **changes)


def ended(web: Web) -> None:
    """A run whose three parts ended, two of them in the archive."""
    archive.write(web.db, [part(0, result={"rows": 5}), part(1, "failed", reason="exit code 3", code=3)])
    in_etcd(web, part(2))
    reason = "1 of 3 parts did not succeed; failed: 1"
    whole = outcome(RUN, 0, "failed", parts=3, node="", reason=reason, result={"parts": 3, "failed": 1, "succeeded": 2})
    archive.write(web.db, [whole])


def test_a_run_in_parts_is_one_line_that_leads_to_its_parts(web: Web, api: Api, browser: Browser) -> None:
    ended(web)
    (item,) = api("GET", "runs").json()["items"]
    assert (item["id"], item["outcome"], item["parts"], item["part"], item["parent"]) == (RUN, "failed", 3, None, None)
    assert item["result"] == {"parts": 3, "failed": 1, "succeeded": 2} and item["duration"] == 2.0
    body = api("GET", f"runs/{RUN}/parts").json()
    assert (body["total"], body["next"]) == (3, None)
    told = [(each["id"], each["part"], each["parent"], each["outcome"], each["result"]) for each in body["items"]]
    assert told == [
        (f"{RUN}.0", 0, RUN, "succeeded", {"rows": 5}),
        (f"{RUN}.1", 1, RUN, "failed", None),
        (f"{RUN}.2", 2, RUN, "succeeded", None),
    ]
    page = api("GET", f"runs/{RUN}/parts?first=1&limit=1").json()
    assert [each["part"] for each in page["items"]] == [1] and page["next"] == 2
    assert [each["id"] for each in api("GET", "runs?node=n1").json()["items"]] == [f"{RUN}.1"], "a node has parts only"
    assert api("GET", "stats?hours=720").json()["outcomes"].get("failed", 0) <= 1
    refused = api("GET", f"runs/{RUN}/output")
    assert refused.status_code == 409 and f"{RUN}.0" in refused.text
    listed = browser.get("/runs").text
    assert listed.count("<tr id=") == 1 and f'href="/runs/{RUN}.1"' in listed and "3 parts" in listed
    shown = browser.get(f"/runs/{RUN}").text
    assert "exit code 3" in shown and "failed: 1" in shown and "output-card" not in shown and f"/runs/{RUN}.2" in shown
    assert "part 1 of 3" in text_of(browser.get(f"/runs/{RUN}.1").text)
    browser.client.cookies.set("crony_lang", "zh")
    chinese = text_of(browser.get(f"/runs/{RUN}").text)
    assert "3 个部分中有 1 个没有成功" in chinese and "失败：1" in chinese


def test_parts_that_live_are_shown_from_etcd(web: Web, api: Api, browser: Browser) -> None:
    whole = envelope(RUN, parts=3)
    join = (
        Join(RUN, SEALER.seal(whole.payload()).decode(), 3, time.time() - 5)
        .with_made(3)
        .with_ended({"0": "lost"}, None)
    )
    web.client.put(web.keys.run_join(RUN), join.encode())
    sealed = SEALER.seal(envelope(f"{RUN}.1", part=1, parts=3).payload()).decode()
    wait = Wait(f"{RUN}.1", sealed, 0, "no_node", time.time(), detail="cordoned: n1")
    web.client.put(web.keys.run_wait(f"{RUN}.1"), wait.encode())
    in_etcd(web, part(0, "lost"))
    body = api("GET", f"runs/{RUN}").json()
    assert (body["state"], body["parts"], body["parts_ended"], body["started_at"]) == ("running", 3, 1, None)
    assert body["reason"] == "1 of 3 parts have ended"
    found = api("GET", f"runs/{RUN}/parts").json()["items"]
    assert [(each["part"], each["state"], each["outcome"]) for each in found] == [
        (0, "ended", "lost"),
        (1, "waiting", None),
    ]
    assert [each["id"] for each in api("GET", "runs").json()["items"]] == [RUN]
    assert [each["id"] for each in api("GET", "runs?state=waiting").json()["items"]] == [f"{RUN}.1"], (
        "what waits is shown"
    )
    assert api("GET", "stats").json()["live"] == {"waiting": 1}
    page = text_of(browser.get(f"/runs/{RUN}").text)
    assert "1 of 3 have ended" in page and "Its parts are under way" in page
    assert (
        api("POST", f"runs/{RUN}:cancel").status_code == 202 and api("POST", f"runs/{RUN}.1:cancel").status_code == 202
    )


def test_the_command_shows_parts_under_their_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"id": "r", "job_name": "a", "state": "ended", "outcome": "failed", "parts": 2, "part": None}
    facts = {"job_name": "a", "state": "ended", "outcome": "lost", "parts": 2, "parent": "r"}
    parts = [{**facts, "id": f"r.{n}", "part": n, "node": f"n{n}", "result": {"rows": n}} for n in range(2)]

    def answer(handler: Any) -> None:
        path = handler.path.removeprefix("/api/v1/runs")
        pages = {
            "/r/parts?first=0": {"items": parts[:1], "next": 1},
            "/r/parts?first=1": {"items": parts[1:], "next": None},
        }
        found = pages.get(path) or (
            whole if path == "/r" else parts[1] if path == "/r.1" else {"items": [whole], "next_cursor": None}
        )
        says(200, json.dumps(found).encode())(handler)

    with serving(answer) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert crony(["run", "list"]) == 0
        plain = capsys.readouterr().out
        assert "2 parts" in plain and "r.0" not in plain
        assert crony(["run", "list", "--parts"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["r", "r.0", "r.1"]
        assert crony(["run", "get", "r"]) == 0
        table = capsys.readouterr().out
        assert "n0" in table and "n1" in table and "{'rows': 1}" in table
        assert crony(["run", "get", "r.1"]) == 0
        assert "1 (from 0) of 2, of run r" in capsys.readouterr().out
