"""Backfills as people ask for them: previewed, begun once, followed and stopped, by API, command and console."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from crony.domain.backfill import Backfill
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, document, text_of

FROM, TO = "2026-03-01T00:00:00+08:00", "2026-03-04T00:00:00+08:00"
PERIOD = {"from": FROM, "to": TO}


@pytest.fixture(autouse=True)
def job(api: Api) -> dict[str, Any]:
    """A job due at 01:30 each day in Shanghai."""
    return dict(api("POST", "jobs", json=document("night/load")).json())


def stored(web: Web) -> list[Backfill]:
    return [Backfill.read(kv.value) for kv in web.client.list(web.keys.backfill("")).kvs]


def test_a_preview_says_what_would_run_and_stores_nothing(web: Web, api: Api) -> None:
    answer = api("POST", "jobs/night%2Fload:backfill", json={**PERIOD, "dry_run": True, "order": "newest"})
    assert answer.status_code == 200
    days = ["2026-02-28T17:30:00+00:00", "2026-03-01T17:30:00+00:00", "2026-03-02T17:30:00+00:00"]
    assert answer.json() == {"count": 3, "instants": days[::-1], "more": 0} and not stored(web)
    long = api("POST", "jobs/night%2Fload:backfill", json={"from": "2025-03-01T00:00:00Z", "to": TO, "dry_run": True})
    assert (long.json()["count"], len(long.json()["instants"]), long.json()["more"]) == (367, 100, 267)


def test_it_is_asked_for_once_followed_and_stopped(web: Web, api: Api, job: dict[str, Any]) -> None:
    body = {**PERIOD, "parallel": 2, "params": {"day": 1}, "chain": False}
    made = api("POST", "jobs/night%2Fload:backfill", json=body, headers={"idempotency-key": "march"})
    assert made.status_code == 202 and made.json()["created"] is True
    found = made.json()
    assert made.headers["location"] == f"/api/v1/backfills/{found['id']}"
    again = api("POST", "jobs/night%2Fload:backfill", json={**body, "idempotency_key": "march"})
    assert again.json() == {**found, "created": False} and len(stored(web)) == 1
    other = api("POST", "jobs/night%2Fload:backfill", json={**body, "parallel": 3, "idempotency_key": "march"})
    assert other.status_code == 409
    (record,) = stored(web)
    assert record.no_chain and found["chain"] is False
    assert (record.job, record.total, record.parallel, record.params) == (job["id"], 3, 2, {"day": 1})
    assert record.by == "token:admin"
    moved = record.without(record.next(2)).told("failed")
    web.client.put(web.keys.backfill(record.id), moved.encode())
    shown = api("GET", f"backfills/{record.id}").json()
    assert shown.items() >= {
        "state": "running", "total": 3, "succeeded": 0, "failed": 1, "running": 1, "left": 1,
        "next_at": "2026-03-02T17:30:00+00:00", "from": "2026-02-28T16:00:00+00:00",
    }.items()  # fmt: skip
    assert [each["id"] for each in api("GET", "backfills?job=night%2Fload").json()["items"]] == [record.id]
    assert api("POST", f"backfills/{record.id}:cancel").json()["state"] == "stopping"
    assert stored(web)[0].stop == "rest"
    assert api("POST", f"backfills/{record.id}:cancel", json={"running": True}).json()["stopped_by"] == "token:admin"
    assert stored(web)[0].stop == "all"
    web.client.put(web.keys.backfill(record.id), replace(moved, ended_at=time.time()).encode())
    assert api("POST", f"backfills/{record.id}:cancel").status_code == 409
    assert api("GET", "backfills/b1").status_code == 404
    actions = {entry["action"] for entry in api("GET", "audit").json()["items"]}
    assert {"job.backfill", "backfill.cancel"} <= actions


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"from": FROM}, "to"),
        ({"from": "yesterday", "to": TO}, "from"),
        ({"from": TO, "to": FROM}, "to"),
        ({"from": FROM, "to": "2999-01-01T00:00:00Z"}, "to"),
        ({**PERIOD, "parallel": 0}, "parallel"),
        ({**PERIOD, "parallel": 51}, "parallel"),
        ({**PERIOD, "order": "random"}, "order"),
        ({**PERIOD, "speed": 9}, "speed"),
        ({**PERIOD, "params": {"x": "y" * 40000}}, "params"),
        ({"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T01:00:00Z"}, "from"),
    ],
)
def test_bad_input_names_its_field(web: Web, api: Api, body: dict[str, Any], field: str) -> None:
    answer = api("POST", "jobs/night%2Fload:backfill", json=body)
    assert answer.status_code == 422 and answer.json()["field"].startswith(field), answer.text
    assert not stored(web)


def test_who_may(api_as: Callable[[str], Api]) -> None:
    viewer = api_as("viewer")
    assert viewer("POST", "jobs/night%2Fload:backfill", json=PERIOD).status_code == 403
    assert viewer("GET", "backfills").status_code == 200
    assert viewer("POST", "backfills/b1:cancel").status_code == 403
    assert api_as("operator")("POST", "jobs/night%2Fload:backfill", json=PERIOD).status_code == 202


def test_the_console_previews_begins_once_and_stops(web: Web, browser: Browser, job: dict[str, Any]) -> None:
    tab = f"/jobs/{job['id']}?tab=backfill"
    assert "Run a period again" in browser.get(tab).text and "Run them" not in browser.get(tab).text
    asked = "&start=2026-03-01+00:00:00&end=2026-03-04+00:00:00&parallel=2&order=oldest"
    page = browser.get(tab + asked).text
    assert "3 instants would run" in page and "2026-03-01 01:30:00 +08:00" in page and not stored(web)
    fields = dict(re.findall(r'<input type="hidden" name="(start|end|parallel|order|key)" value="([^"]*)"', page))
    fields = {name: value.replace("&#43;", "+") for name, value in fields.items()}
    for _ in range(2):
        answer = browser.post(f"/jobs/{job['id']}/backfill", fields)
        assert answer.status_code == 303 and "done=backfill" in answer.headers["location"]
    (record,) = stored(web)
    assert (record.total, record.parallel, record.by) == (3, 2, "admin")
    assert "0 of 3 done" in text_of(browser.get(tab).text)
    assert browser.post(f"/backfills/{record.id}/cancel", {"running": "1"}).status_code == 303
    assert stored(web)[0].stop == "all"
    browser.client.cookies.set("crony_lang", "zh")
    page = text_of(browser.get(tab).text)
    assert "共 3 个，完成 0" in page and "正在停止" in page
    assert "不是时间" in text_of(browser.get(tab + "&start=soon&end=now&parallel=1&order=oldest").text)


def test_a_viewer_sees_progress_and_no_buttons(
    web: Web, api: Api, browser_as: Callable[[str], Browser], job: dict[str, Any]
) -> None:
    api("POST", "jobs/night%2Fload:backfill", json=PERIOD)
    page = browser_as("viewer").get(f"/jobs/{job['id']}?tab=backfill").text
    assert "0 of 3 done" in text_of(page) and "/cancel" not in page and "Run a period again" not in page
