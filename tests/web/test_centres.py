"""Who leads what, and how many shards there are: in the API, on the pages, in readiness, figures and the command."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crony.cli.main import run
from crony.domain.shards import CentreFacts
from crony.lifecycle.shards import look
from crony.store import audit
from crony.web.wiring import Web
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, text_of


def lead(web: Web, shard: int, name: str, centre: str) -> None:
    """A leader's key."""
    record = {"name": name, "centre": centre, "nonce": "secret"}
    web.client.put(web.keys.leader(shard), json.dumps(record).encode())


def test_who_leads_is_said_everywhere(web: Web, api: Api, browser: Browser) -> None:
    page = text_of(browser.get("/nodes").text)
    assert "No scheduling centre leads" in page
    one = CentreFacts("one", host="h1", pid=7, version="1", since_at=1e9, at=1e9, skew=0.2)
    slow = CentreFacts("slow", at=1e9, skew=-31.0, able=False, why="its wall clock is -31.0 s off from etcd's")
    web.client.put(web.keys.centre("i1"), one.encode())
    web.client.put(web.keys.centre("i2"), slow.encode())
    web.client.put(web.keys.centre("i3"), b"nonsense")
    lead(web, 0, "one", "i1")
    web.live.forget()
    found = api("GET", "centres").json()
    assert found["shards"] == 1 and found["leaders"][0]["centre"] == "one" and found["leaders"][0]["term"] > 0
    assert [(row["name"], row["leads"], row["able"]) for row in found["items"]] == [
        ("one", [0], True),
        ("slow", [], False),
    ]
    assert "The centre one leads" in text_of(browser.get("/nodes").text)
    assert api("GET", "stats").json()["leader"] == {"name": "one", "term": found["leaders"][0]["term"]}
    assert api("PUT", "shards", json={"count": 3}).json()["shards"] == 3
    lead(web, 2, "one", "i1")
    web.live.forget()
    page = text_of(browser.get("/nodes").text)
    assert "Nobody leads shard 1: its jobs do not fire now." in page and "0, 2" in page and "-31.0 s" in page
    assert "分片 1 无人领导" in text_of(browser.get("/nodes", headers={"accept-language": "zh"}).text)
    ready = browser.get("/readyz?verbose=1").text
    assert "shard 0: one\nshard 1: nobody leads\nshard 2: one\ncentre slow: does not lead, its wall clock" in ready
    assert api("GET", "stats").json()["shards_vacant"] == [1]
    figures = api.client.get("/metrics", headers=api.headers).text
    assert "crony_leader 0.0" in figures and 'crony_shards_led{centre="one"} 2.0' in figures
    assert "crony_shards 3.0" in figures and 'crony_centre_clock_skew_seconds{centre="slow"} -31.0' in figures
    lead(web, 1, "one", "i1")
    web.live.forget()
    assert "All 3 shards have a leader." in text_of(browser.get("/nodes").text)
    web.client.put(web.keys.shards, b'{"count": 0}')
    web.live.forget()
    assert api("GET", "centres").json()["shards"] is None
    assert "their number cannot be read" in browser.get("/readyz?verbose=1").text
    assert browser.get("/nodes").status_code == 200


def test_a_leader_that_holds_dispatch_says_so_everywhere(web: Web, api: Api, browser: Browser) -> None:
    held = {"s": {"held": {"clock": 1, "room": 1}}}
    for name, centre in (("one", "i1"), ("two", "i2")):
        facts = CentreFacts(name, skew=31.0, figures=held, untrusted={"j1": "of another job"})
        web.client.put(web.keys.centre(centre), facts.encode())
    lead(web, 0, "one", "i1")
    web.live.forget()
    rows = {row["name"]: row for row in api("GET", "centres").json()["items"]}
    assert (rows["one"]["holds"], rows["two"]["holds"]) == (["clock", "room"], []), "who does not lead holds nothing"
    assert rows["one"]["untrusted"] == {"j1": "of another job"}
    page = text_of(browser.get("/nodes").text)
    assert page.count("one leads and holds dispatch") == 2 and "+31.0 s" in page and "etcd is nearly full" in page
    chinese = text_of(browser.get("/nodes", headers={"accept-language": "zh"}).text)
    assert "调度中心 one 暂停派发：其系统时钟" in chinese and "etcd 空间将满" in chinese
    assert "dispatch: Centre one leads and holds dispatch: its wall clock" in browser.get("/readyz?verbose=1").text


def test_resharding_is_one_write_by_an_administrator(web: Web, api: Api) -> None:
    for body in ({}, {"count": 0}, {"count": 65}, {"count": "4"}, {"count": True}, {"count": 2, "x": 1}):
        assert api("PUT", "shards", json=body).status_code == 422, body
    assert look(web.client, web.keys).seen == 0
    assert api("PUT", "shards", json={"count": 4}).json()["shards_by"]
    seen = look(web.client, web.keys)
    assert seen.count == 4
    api("PUT", "shards", json={"count": 4})
    assert look(web.client, web.keys) == seen, "nothing was written: no leader has to begin anew"
    assert audit.list_entries(web.db, kind="shards").items[0].detail == {"count": 4}


CENTRES = {
    "shards": 2,
    "shards_by": "me",
    "shards_at": None,
    "leaders": [{"shard": 0, "centre": "one", "term": 5}, {"shard": 1, "centre": None, "term": None}],
    "items": [
        {"name": "one", "incarnation": "i1", "leads": [0], "able": True, "reason": None, "clock_skew": 0.25,
         "wants_shards": 8, "host": "h", "pid": 1, "version": "0", "since_at": None, "seen_at": None,
         "holds": ["clock", "room"], "untrusted": {"j1": "not signed"}}
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (
            ["status"],
            [
                "stopped by me: why",
                "SHARD",
                "nobody",
                "one",
                "+0.2s",
                "1 ready",
                "2 running",
                "set it right: NTP",
                "crony doctor",
                "does not act on job j1: not signed",
            ],
            1,
        ),
        (["shards"], ["SHARD", "nobody", "CRONY_SHARDS of centre one says 8 and is not obeyed"], 0),
        (["shards", "2"], ["2 shards"], 0),
        (["shards", "65"], ["is not in the range"], 2),
    ],
)
def test_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: list[str], code: int
) -> None:
    answers: dict[str, Any] = {
        "/api/v1/centres": CENTRES,
        "/api/v1/shards": CENTRES,
        "/api/v1/control": {"stop": True, "by": "me", "reason": "why", "at": None},
        "/api/v1/nodes": {"items": [{"name": "n", "state": "ready"}], "next_cursor": None},
        "/api/v1/stats": {"live": {"running": 2}, "outcomes": {}},
    }
    with serving(lambda handler: says(200, json.dumps(answers[handler.path.split("?")[0]]).encode())(handler)) as made:
        monkeypatch.setenv("CRONY_API", made.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "x")
        assert run(words) == code
    told = capsys.readouterr()
    for word in said:
        assert word in told.out + told.err
