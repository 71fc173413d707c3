"""Calendars over the API, in the console and at the command line: made, used, edited, kept while in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crony.cli.main import run
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, document, text_of

WORKDAYS = {"weekdays": ["mon", "tue", "wed", "thu", "fri"], "exclude": ["2040-01-03"]}
DAILY = {"cron": "0 8 * * *", "calendars": {"include": ["workdays"]}}


def test_a_calendar_over_the_api(api: Api, api_as: Callable[[str], Api]) -> None:
    assert api_as("operator")("PUT", "calendars/workdays", json=WORKDAYS).status_code == 403
    missing = api("POST", "jobs", json=document("a", schedule=DAILY)).json()
    assert missing["field"] == "schedule.calendars" and "names workdays" in missing["detail"]
    made = api("PUT", "calendars/workdays", json=WORKDAYS)
    assert (made.status_code, made.headers["etag"], made.json()["waiting"]) == (200, '"1"', [])
    job = api("POST", "jobs", json=document("a", schedule=DAILY)).json()
    assert job["next_fire_at"] and job["live_revision"] == 1
    shown = api("GET", "jobs/a/fires?n=2&after=2040-01-02T00:00:00Z").json()
    assert [fire["local"][:10] for fire in shown["fires"]] == ["2040-01-02", "2040-01-04"]
    assert shown["words"] == "at 08:00 every day (UTC), in workdays"
    assert api("PUT", "calendars/workdays", json=WORKDAYS, headers={"if-match": '"7"'}).status_code == 412
    edit = api("PUT", "calendars/workdays", json=WORKDAYS | {"exclude": []}, headers={"if-match": '"1"'})
    assert edit.json()["jobs"] == ["a"] and api("GET", "jobs/a").json()["live_revision"] == 2
    assert [item["revision"] for item in api("GET", "calendars/workdays/versions").json()["items"]] == [2, 1]
    assert [item["name"] for item in api_as("viewer")("GET", "calendars").json()["items"]] == ["workdays"]
    kept = api("DELETE", "calendars/workdays")
    assert kept.status_code == 409 and "name it: a" in str(kept.json())
    assert api("DELETE", "jobs/a").status_code == 204 and api("DELETE", "calendars/workdays").status_code == 204
    assert api("GET", "calendars/workdays").status_code == api("DELETE", "calendars/workdays").status_code == 404
    assert api("PUT", "calendars/other", json=WORKDAYS | {"name": "workdays"}).json()["field"] == "name"


def test_a_calendar_in_the_console(browser: Browser, browser_as: Callable[[str], Browser], api: Api) -> None:
    assert "No calendars" in text_of(browser.get("/calendars").text)
    text = "name: workdays\nweekdays: [mon, tue, wed, thu, fri]\nexclude: [2040-01-03]\n"
    bad = browser.post("/calendars/new", {"text": text, "revision": "0"})
    assert bad.status_code == 422 and "put it into quotes" in text_of(bad.text) and "2040-01-03" in bad.text
    text = text.replace("2040-01-03", '"2040-01-03"')
    made = browser.post("/calendars/new", {"text": text, "revision": "0"})
    assert made.status_code == 303 and made.headers["location"] == "/calendars/workdays?done=calendar"
    assert browser.post("/calendars/new", {"text": text, "revision": "0"}).status_code == 409, "the name is taken"
    assert api("POST", "jobs", json=document("night/load", schedule=DAILY)).status_code == 201
    page = browser.get("/calendars/workdays").text
    assert "night/load" in page and "2040-01-03" in page and "/calendars/workdays/delete" not in page
    assert "in workdays" in text_of(browser.get("/jobs").text)
    edited = browser.post("/calendars/workdays", {"text": text.replace("mon, ", ""), "revision": "1"})
    assert edited.status_code == 303 and api("GET", "jobs/night%2Fload").json()["live_revision"] == 2
    assert browser.post("/calendars/workdays", {"text": text, "revision": "1"}).status_code == 409
    renamed = browser.post("/calendars/workdays", {"text": text.replace("workdays", "days"), "revision": "2"})
    assert renamed.status_code == 422
    assert browser.post("/calendars/workdays/delete").status_code == 409
    viewer = browser_as("viewer")
    assert "<textarea" not in viewer.get("/calendars/workdays").text and viewer.get("/calendars/new").status_code == 403
    browser.client.cookies.set("crony_lang", "zh")
    assert "仅在 workdays 内" in text_of(browser.get("/jobs").text) and "日历" in browser.get("/calendars").text


def test_a_calendar_at_the_command_line(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(handler: Any) -> None:
        size = int(handler.headers.get("content-length") or 0)
        kind = {"content-type": "application/json"} if size else {}
        path = handler.path.removeprefix("/api/v1/")
        found = api(handler.command, path, content=handler.rfile.read(size), headers=kind)
        says(found.status_code, found.content)(handler)

    with serving(answer) as server:
        monkeypatch.setenv("CRONY_API", server.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert run(["calendar", "list"]) == 0
        assert capsys.readouterr() == ("", "no calendars\n")
        example = Path(__file__).parents[2] / "examples" / "cn-workdays.yaml"
        assert run(["calendar", "apply", "-f", str(example)]) == 0
        assert "saved cn-workdays as revision 1" in capsys.readouterr().out
        moved = {"cron": "0 9 1 * *", "timezone": "Asia/Shanghai",
                 "calendars": {"include": ["cn-workdays"], "closed": "previous"}}  # fmt: skip
        fires = api("POST", "schedule:explain?n=1&lang=zh&after=2026-09-15T00:00:00Z", json={"schedule": moved}).json()
        assert fires["fires"][0]["local"] == "2026-09-30T09:00:00+08:00"
        assert fires["words"]["zh"] == "每月 1 日，09:00 (Asia/Shanghai)，仅在 cn-workdays 内，休息日提前到上一个开放日"
        assert fires["fires"][0]["marks"] == [{"kind": "moved", "words": "由休息日 2026-10-01 移到此时"}]
        file = tmp_path / "calendars.yaml"
        file.write_text("name: freeze\ninclude: [2040-01-03]\n---\nname: b\nweekdays: [sat]\n", encoding="utf-8")
        assert run(["calendar", "apply", "-f", str(file)]) == 0
        assert "saved freeze as revision 1; 0 jobs keep to it" in capsys.readouterr().out
        assert run(["calendar", "show", "freeze"]) == 0 and "2040-01-03" in capsys.readouterr().out
        assert run(["calendar", "list"]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
            "NAME",
            "b",
            "cn-workdays",
            "freeze",
        ]
        assert run(["calendar", "delete", "b"]) == 0 and run(["calendar", "show", "b"]) == 3
