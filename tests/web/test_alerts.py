"""Alerts as people and programs see them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from crony.domain.alert import Alert, leader_changed, node_lost, not_kept, queue_age
from crony.domain.shards import Part
from crony.errors import Unavailable
from crony.store import alerts
from crony.web.pages.alerts import KINDS
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, document, text_of

JOB = "j1m81s8xkj3qm4nka4921"
RUN = f"{JOB}.1.1795300000"

TOLD = {"ops": {"state": "sent", "at": 1795300004.0, "said": "0 success"}}


def put(web: Web, *more: Alert) -> None:
    why = "still running after 5 s; its processes were ended"
    name = "night/<b>load</b>"
    failed = Alert(
        f"run_failed.{RUN}", "run_failed", 1795300003.0, JOB, name, RUN, 2, "timed_out", "node-1", why, told=TOLD
    )
    others = [node_lost("i1", "node-2", 1795300002.0), leader_changed(Part(0, 1), 9, "c2", "c1", 1795300001.0)]
    alerts.write(web.db, [failed, *others, not_kept(9, 12, 1795300000.0), *more])


def test_the_list_has_everything_newest_first(web: Web, api_as: Callable[[str], Api]) -> None:
    put(web)
    api = api_as("viewer")
    body = api("GET", "alerts").json()
    assert [item["kind"] for item in body["items"]] == ["run_failed", "node_lost", "leader_changed", "not_kept"]
    assert body["next_cursor"] is None
    first = body["items"][0]
    assert first == {
        "id": f"run_failed.{RUN}", "kind": "run_failed", "at": "2026-11-21T22:26:43+00:00", "job": JOB,
        "job_name": "night/<b>load</b>", "run": RUN, "attempt": 2, "outcome": "timed_out", "node": "node-1",
        "reason": "still running after 5 s; its processes were ended", "times": 1,
        "told": [{"to": "ops", "state": "sent", "at": "2026-11-21T22:26:44+00:00", "said": "0 success"}],
    }  # fmt: skip
    assert body["items"][2]["reason"] == "c2 leads now, before it c1 did" and body["items"][2]["node"] is None
    assert body["items"][3]["times"] == 12


def test_filters_and_pages(web: Web, api: Api) -> None:
    view = web.catalog.create(document("team/report"), "test")
    put(web, *(Alert(f"run_failed.r{n}", "run_failed", float(n), view.id, "team/report", f"r{n}") for n in range(5)))

    def ids(query: str) -> list[str]:
        return [item["id"].split(".")[1] for item in api("GET", f"alerts?{query}").json()["items"]]

    assert ids("job=team%2Freport&limit=2") == ["r4", "r3"]
    assert ids(f"job={view.id}&since=1970-01-01T00:00:02Z&until=1970-01-01T00:00:04Z") == ["r3", "r2"]
    assert ids("kind=node_lost") == ["i1"] and ids("node=node-2") == ["i1"] and ids("node=nobody") == []
    walked: list[str] = []
    cursor = ""
    while True:
        body = api("GET", f"alerts?limit=4{cursor}").json()
        walked += [item["id"] for item in body["items"]]
        if body["next_cursor"] is None:
            break
        cursor = f"&cursor={body['next_cursor']}"
    assert len(walked) == len(set(walked)) == 9


@pytest.mark.parametrize(
    "query", ["kind=nonsense", "x=1", "limit=0", "limit=201", "cursor=x", "since=yesterday", "job="]
)
def test_wrong_questions_are_refused_or_empty(web: Web, api: Api, query: str) -> None:
    answer = api("GET", f"alerts?{query}")
    if query == "job=":
        assert answer.status_code == 200 and answer.json()["items"] == []
    else:
        assert answer.status_code == 422 and answer.json()["detail"]


def test_nothing_without_credentials(anonymous: Any, api_as: Callable[[str], Api]) -> None:
    assert anonymous.get("/api/v1/alerts").status_code == 401
    assert anonymous.get("/alerts").status_code in (302, 303, 401)
    assert api_as("node")("GET", "alerts").status_code == 403


def test_the_page_says_it_in_both_languages_and_escapes(web: Web, browser_as: Callable[[str], Browser]) -> None:
    browser = browser_as("viewer")
    assert "No alerts" in text_of(browser.get("/alerts").text)
    put(web)
    html = browser.get("/alerts").text
    text = text_of(html)
    assert "<b>load" not in html and "night/&lt;b&gt;load" in html and f'href="/runs/{RUN}"' in html
    for words in ("run failed", "timed out", "attempt 2", "node lost", "node-2", "c2 leads now", "12 alerts were only"):
        assert words in text, words
    assert re.search(r'<a href="/alerts" class="crony-link active" aria-current="page">Alerts</a>', html)
    browser.client.cookies.set("crony_lang", "zh")
    text = text_of(browser.get("/alerts").text)
    waits = queue_age("r9", JOB, "slow/one", 0.0, 900.0, "no node fits; no node is alive", "")
    alerts.write(web.db, [waits])
    assert "久未开始" in (text := text_of(browser.get("/alerts").text)) and "没有存活的节点" in text
    counted = ("另有 12 条告警", "等待数据库的告警超过 10000 条；")
    whole = ("现由 c2 领导，此前为 c1", "超过 5 秒仍未结束；进程已被结束", *counted)
    for words in ("告警", "运行失败", "超时", "节点失联", "主节点", *whole):
        assert words in text, words
    assert "its processes" not in text


def test_the_page_filters_and_pages(web: Web, browser: Browser) -> None:
    put(web, *(Alert(f"run_failed.r{n}", "run_failed", float(n), "j", "many", f"r{n}") for n in range(60)))
    page = browser.get("/alerts").text
    older = re.search(r'href="(/alerts\?cursor=[^"]+)" rel="next"', page)
    assert older is not None
    assert browser.get(older[1]).text.count('<tr id="alert-') == 14
    html = browser.get("/alerts?kind=node_lost").text
    assert html.count('<tr id="alert-') == 1 and '<option value="node_lost" selected>' in html
    assert "No alert fits this filter" in browser.get("/alerts?node=nobody").text
    assert browser.get("/alerts?kind=nonsense").status_code == 422
    for kind in KINDS:
        assert browser.get(f"/alerts?kind={kind}").status_code == 200


def test_with_the_database_away_it_says_so(
    web: Web, browser: Browser, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("The database cannot be used now")

    monkeypatch.setattr("crony.web.pages.alerts.list_alerts", away)
    monkeypatch.setattr("crony.web.api.alerts.alerts.list_alerts", away)
    answer = browser.get("/alerts")
    assert answer.status_code == 200 and "The database" in text_of(answer.text) and "No alerts" not in answer.text
    assert api("GET", "alerts").status_code == 503
