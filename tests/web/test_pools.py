"""Pools over the API, in the console and at the command line: made, used, seen, and who waits for what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crony.cli.main import run
from crony.domain import ids
from crony.domain.pool import Slot
from crony.domain.run import Claim, Envelope, Wait
from crony.domain.signing import Sealer
from crony.transport_etcd.message import task_message
from crony.web.wiring import Web
from tests.helpers.node import PRIVATE
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, document, text_of


class Runs:
    """Runs as a leader puts them, without one."""

    def __init__(self, web: Web) -> None:
        self.client, self.keys, self.sealer = web.client, web.keys, Sealer(PRIVATE)
        self._live = web.live

    def envelope(self, name: str, **facts: Any) -> Envelope:
        told = {"pools": ["reports"], "requested_at": 1.9e9, **facts}
        return Envelope(ids.fresh_run_id("j1", 1), "j1", name, 1, 1, 1, "run.n1", "i1", "manual", {}, **told)

    def running(self, name: str, number: int) -> str:
        told = self.envelope(name, slots=[f"reports/{number}"])
        place = ids.place(0, number, told.run)
        value = task_message("crony.run", f"{told.run}:1", [self.sealer.seal(told.payload()).decode()], {})
        self.client.put(self.keys.message("run.n1", place), value)
        self.client.put(self.keys.claim("run.n1", place), Claim("i1", node="n1", at=1.9e9).encode())
        self.client.put(self.keys.slot("reports", number), Slot(told.run, "run.n1", place).encode())
        self._live.forget()
        return told.run

    def waiting(self, name: str, reason: str, since: float, detail: str = "", **facts: Any) -> str:
        told = self.envelope(name, **facts)
        wait = Wait(told.run, self.sealer.seal(told.payload()).decode(), 0, reason, since, detail=detail)
        self.client.put(self.keys.run_wait(told.run), wait.encode())
        self._live.forget()
        return told.run


@pytest.fixture
def runs(web: Web) -> Runs:
    return Runs(web)


def test_a_pool_over_the_api(api: Api, api_as: Callable[[str], Api], runs: Runs) -> None:
    assert api_as("operator")("PUT", "pools/reports", json={"limit": 2}).status_code == 403
    missing = api("POST", "jobs", json=document("a", limits=["pool:reports"])).json()
    assert missing["field"] == "limits[0]" and "names the pool reports" in missing["detail"]
    made = api("PUT", "pools/reports", json={"limit": 2})
    assert (made.status_code, made.headers["etag"], made.json()["live"]) == (200, '"1"', True)
    assert api("POST", "jobs", json=document("a", limits=["pool:reports"])).status_code == 201
    assert api("PUT", "pools/reports", json={"limit": 2}, headers={"if-match": '"7"'}).status_code == 412
    assert (
        api("PUT", "pools/reports", json={"limit": 1, "description": "x"}, headers={"if-match": '"1"'}).status_code
        == 200
    )
    holder = runs.running("a", 0)
    old, urgent = runs.waiting("b", "pool", 10.0), runs.waiting("c", "pool", 20.0, priority=3)
    runs.waiting("d", "no_node", 30.0)
    (item,) = api_as("viewer")("GET", "pools").json()["items"]
    assert (item["held"], item["waiting"], item["limit"], item["jobs"]) == (1, 2, 1, ["a"])
    found = api("GET", "pools/reports").json()
    assert [(h["slot"], h["run"], h["job_name"], h["state"], h["node"]) for h in found["holders"]] == [
        (0, holder, "a", "running", "n1")
    ]
    assert [(w["run"], w["priority"], w["pools"]) for w in found["line"]] == [
        (urgent, 3, ["reports"]),
        (old, 0, ["reports"]),
    ]
    assert [v["revision"] for v in api("GET", "pools/reports/versions").json()["items"]] == [2, 1]
    kept = api("DELETE", "pools/reports")
    assert kept.status_code == 409 and "name it: a" in str(kept.json())
    assert api("DELETE", "jobs/a").status_code == 204 and api("DELETE", "pools/reports").status_code == 204
    assert api("GET", "pools/reports").status_code == api("DELETE", "pools/reports").status_code == 404
    assert api("PUT", "pools/other", json={"limit": 1, "name": "reports"}).json()["field"] == "name"
    assert api("PUT", "pools/other", json={"limit": 5000}).json()["field"] == "limit"


def test_pools_and_waits_in_the_console(
    browser: Browser, browser_as: Callable[[str], Browser], api: Api, runs: Runs
) -> None:
    assert "No pools" in text_of(browser.get("/pools").text)
    bad = browser.post("/pools/new", {"name": "reports", "limit": "many", "revision": "0"})
    assert bad.status_code == 422 and "must be a whole number" in text_of(bad.text)
    made = browser.post("/pools/new", {"name": "reports", "limit": "2", "revision": "0", "description": "slow"})
    assert made.status_code == 303 and made.headers["location"] == "/pools/reports?done=pool"
    assert browser.post("/pools/new", {"name": "reports", "limit": "2", "revision": "0"}).status_code == 409
    assert api("POST", "jobs", json=document("night/load", limits=["pool:reports"])).status_code == 201
    holder, first = runs.running("night/load", 1), runs.waiting("night/load", "pool", 10.0, pools=["reports", "db"])
    held = runs.waiting("by/hand", "hold", 30.0, "its node was lost")
    page = browser.get("/pools/reports").text
    assert holder in page and first in page and "/pools/db" in page and "/pools/reports/delete" not in page
    every = text_of(browser.get("/pools").text)
    assert "1 of 2" in every and "On hold: a person decides" in every and "by/hand" in every
    assert "A pool of its job has no free slot" in text_of(browser.get(f"/runs/{first}").text)
    assert f"/runs/{held}/release" in browser.get(f"/runs/{held}").text
    assert f"/runs/{first}/release" not in browser.get(f"/runs/{first}").text
    assert browser.post(f"/runs/{first}/release", {}).status_code == 409
    assert browser.post(f"/runs/{held}/release", {}).headers["location"] == f"/runs/{held}?done=released"
    viewer = browser_as("viewer")
    assert 'name="limit"' not in viewer.get("/pools/reports").text
    assert viewer.post("/pools/reports", {"limit": "9", "revision": "1"}).status_code == 403
    assert browser.post("/pools/reports", {"limit": "5", "revision": "1"}).status_code == 303
    assert browser.post("/pools/reports", {"limit": "6", "revision": "1"}).status_code == 409
    assert browser.post("/pools/reports/delete", {}).status_code == 409
    browser.client.cookies.set("crony_lang", "zh")
    assert "并发池" in browser.get("/pools").text and "挂起：由人决定" in browser.get("/pools").text


def test_the_job_form_names_pools(browser: Browser, api: Api) -> None:
    api("PUT", "pools/reports", json={"limit": 2})
    fields = {"name": "a", "command": "date", "schedule_kind": "none", "limits": "reports, nothing"}
    refused = browser.post("/jobs/new", fields)
    assert refused.status_code == 422 and "names the pool nothing, which there is not" in text_of(refused.text)
    assert browser.post("/jobs/new", {**fields, "limits": "reports"}).status_code == 303
    job = api("GET", "jobs/a").json()
    assert job["document"]["limits"] == ["pool:reports"]
    assert 'value="reports"' in browser.get(f"/jobs/{job['id']}/edit").text
    assert "/pools/reports" in browser.get(f"/jobs/{job['id']}").text


def test_pools_at_the_command_line(
    api: Api, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(handler: Any) -> None:
        size = int(handler.headers.get("content-length") or 0)
        kind = {"content-type": "application/json"} if size else {}
        path = handler.path.removeprefix("/api/v1/")
        found = api(handler.command, path, content=handler.rfile.read(size), headers=kind)
        says(found.status_code, found.content)(handler)

    def out(*command: str) -> str:
        assert run(list(command)) == 0
        return capsys.readouterr().out

    with serving(answer) as server:
        monkeypatch.setenv("CRONY_API", server.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert run(["pool", "list"]) == 0 and capsys.readouterr() == ("", "no pools\n")
        said = out("pool", "set", "reports", "--limit", "2", "--description", "slow")
        assert said == "saved reports as revision 1: 2 at a time\n"
        assert out("pool", "set", "reports", "--limit", "1") == "saved reports as revision 2: 1 at a time\n"
        holder, first = runs.running("a", 0), runs.waiting("b", "pool", 10.0)
        assert out("pool", "list").splitlines()[1].split()[:4] == ["reports", "1", "1", "1"]
        shown = out("pool", "get", "reports")
        assert "slow" in shown and shown.index(holder) < shown.index(first)
        assert run(["pool", "set", "reports", "--limit", "5000"]) == 2
        assert run(["pool", "set", "No!", "--limit", "5"]) == 2
        assert out("pool", "delete", "reports") == "deleted reports\n" and run(["pool", "get", "reports"]) == 3
