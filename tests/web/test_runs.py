"""Runs from both places: etcd while they live or wait for the archive, the archive after; output and its display."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from crony.domain.node import NodeControl, NodeFacts
from crony.domain.outcome import Outcome
from crony.domain.run import Beat, Claim, Envelope, Request, Wait
from crony.domain.signing import Sealer, new_key
from crony.domain.stamps import Source, Stamp, pack
from crony.store import archive, output
from crony.transport_etcd.message import task_message
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, document, text_of

RUN = "j1aaaaaaaaaaaaaaaaaaa.1.1795300000"
SEALER = Sealer(new_key()[0])


def outcome(run: str = RUN, attempt: int = 1, kind: str = "succeeded", **changes: Any) -> Outcome:
    """How an attempt of `team/report` ended, two seconds after it began."""
    base: dict[str, Any] = {
        "run": run, "job": run.split(".")[0], "name": "team/report", "generation": 1, "revision": 2, "attempt": attempt,
        "kind": kind, "final": True, "trigger": "schedule", "ended_at": 1795300003.5, "started_at": 1795300001.5,
        "node": "n1", "fire_at": 1795300000.0, "requested_at": 1795300000.2, "why": "n1: weight 100 of 100",
    }  # fmt: skip
    return Outcome(**(base | changes))


def in_etcd(web: Web, found: Outcome) -> None:
    """Put an outcome where a node puts it; the archive has not seen it."""
    web.client.put(web.keys.out(found.run, found.attempt), found.encode())
    web.live.forget()


def envelope(run: str, **changes: Any) -> Envelope:
    """What a node is told."""
    base: dict[str, Any] = {
        "run": run, "job": run.split(".")[0], "name": "team/report", "generation": 1, "revision": 2, "attempt": 1,
        "queue": "run.n1", "incarnation": "i1", "trigger": "manual", "action": {"kind": "shell", "command": ["x"]},
        "requested_at": time.time() - 10, "why": "the only node that fits",
    }  # fmt: skip
    return Envelope(**(base | changes))


def queued(web: Web, run: str, *, claimed: bool) -> None:
    """A message for n1, and its claim."""
    sealed = SEALER.seal(envelope(run).payload()).decode()
    place = f"90000000000000001.{run}"
    web.client.put(web.keys.message("run.n1", place), task_message("crony.run", f"{run}:1", [sealed], {}))
    if claimed:
        web.client.put(web.keys.claim("run.n1", place), Claim("i1", node="n1", at=time.time() - 5).encode())
    web.live.forget()


def test_a_run_that_ended_is_shown_before_the_archive_has_it(web: Web, api: Api, browser: Browser) -> None:
    in_etcd(web, outcome(attempt=1, kind="failed", final=False, reason="exit code 1", code=1))
    in_etcd(web, outcome(attempt=2, ended_at=1795300009.0, started_at=1795300008.0))
    body = api("GET", f"runs/{RUN}").json()
    assert (body["state"], body["outcome"], body["attempt"], body["job_name"]) == (
        "ended",
        "succeeded",
        2,
        "team/report",
    )
    assert [(a["n"], a["outcome"]) for a in body["attempts"]] == [(1, "failed"), (2, "succeeded")]
    assert body["duration"] == 7.5 and body["lateness"] == 1.5
    assert [run["id"] for run in api("GET", "runs").json()["items"]] == [RUN]
    assert "team/report" in browser.get("/runs").text
    page = text_of(browser.get(f"/runs/{RUN}").text)
    assert "exit code 1" in page and "It ended well after 7.5 s" in page and "Started late by 1.5 s" in page


def test_each_run_is_on_one_page_while_both_places_have_it(web: Web, api: Api) -> None:
    found = [outcome(f"j1aaaaaaaaaaaaaaaaaaa.1.{second}", requested_at=second + 0.0004, fire_at=second,
                     ended_at=second + 1.0, started_at=second) for second in range(1795300000, 1795300005)]  # fmt: skip
    archive.write(web.db, found[:4])
    for each in found:
        in_etcd(web, each)
    seen, cursor = [], None
    while True:
        page = api("GET", "runs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [each.run for each in reversed(found)], "the newest, which only etcd has, comes first"


def test_a_run_says_why_its_node_and_why_not_the_others(web: Web, api: Api, browser: Browser) -> None:
    why = "its turn among 2 nodes, weight 1 of 3; strategy weighted; not in its turn: n2; cordoned: n3, <b>; 4 more"
    archive.write(web.db, [outcome(why=why)])
    body = api("GET", f"runs/{RUN}").json()
    assert body["route"] == {
        "strategy": "weighted",
        "why": "its turn among 2 nodes, weight 1 of 3",
        "passed_over": [{"reason": "not in its turn", "nodes": ["n2"]}, {"reason": "cordoned", "nodes": ["n3", "<b>"]}],
        "more": 4,
    }
    assert body["attempts"][0]["route"] == body["route"]
    assert "route" not in api("GET", "runs").json()["items"][0], "lists stay short"
    page = browser.get(f"/runs/{RUN}").text
    assert "<li>cordoned: n3, &lt;b&gt;</li>" in page and "strategy weighted" in page
    browser.client.cookies.set("crony_lang", "zh")
    chinese = text_of(browser.get(f"/runs/{RUN}").text)
    for words in ("未选用的节点", "未轮到：n2", "已停止派发：n3, &lt;b&gt;", "另有 4 个", "策略 weighted"):
        assert words in chinese, words


def test_a_waiting_run_names_each_node_and_why_it_was_refused(web: Web, api: Api, browser: Browser) -> None:
    run = "j1aaaaaaaaaaaaaaaaaaa.1.mstuck"
    sealed = SEALER.seal(envelope(run, why="").payload()).decode()
    detail = "zone is b, not a: n1; has no gpu: n2, n3; does not run shell jobs: n4"
    web.client.put(web.keys.run_wait(run), Wait(run, sealed, 0, "no_node", time.time(), detail=detail).encode())
    route = api("GET", f"runs/{run}").json()["route"]
    assert route["why"] is None and [each["reason"] for each in route["passed_over"]] == [
        "zone is b, not a",
        "has no gpu",
        "does not run shell jobs",
    ]
    page = text_of(browser.get(f"/runs/{run}").text)
    assert "No node fits now" in page and "has no gpu: n2, n3" in page
    browser.client.cookies.set("crony_lang", "zh")
    chinese = text_of(browser.get(f"/runs/{run}").text)
    assert (
        "zone 是 b，不是 a：n1" in chinese and "没有标签 gpu：n2, n3" in chinese and "不运行 shell 作业：n4" in chinese
    )


def test_it_is_shown_once_when_both_places_have_it(web: Web, api: Api) -> None:
    found = outcome()
    in_etcd(web, found)
    archive.write(web.db, [found])
    assert [run["id"] for run in api("GET", "runs").json()["items"]] == [RUN]
    web.client.delete_prefix(web.keys.outs)
    web.live.forget()
    assert [run["id"] for run in api("GET", "runs").json()["items"]] == [RUN]


def test_a_decision_after_the_last_attempt_ends_the_run(web: Web, api: Api) -> None:
    in_etcd(web, outcome(attempt=1, kind="failed", final=False))
    end = outcome(attempt=1, kind="cancelled", reason="cancelled by li", ended_at=1795300020.0)
    web.client.put(web.keys.out(RUN, "end"), end.encode())
    body = api("GET", f"runs/{RUN}").json()
    assert (body["state"], body["outcome"], body["reason"]) == ("ended", "cancelled", "cancelled by li")


def test_live_runs_are_shown_in_every_state(web: Web, api: Api, browser: Browser) -> None:
    ids = {state: f"j1aaaaaaaaaaaaaaaaaaa.1.m{state}" for state in ("requested", "waiting", "queued", "running")}
    request = Request(
        kind="run", run=ids["requested"], job="j1aaaaaaaaaaaaaaaaaaa", name="team/report", requested_at=time.time()
    )
    web.client.put(web.keys.run_in("q1"), request.encode())
    sealed = SEALER.seal(envelope(ids["waiting"]).payload()).decode()
    wait = Wait(ids["waiting"], sealed, 0, "no_node", time.time() - 3)
    web.client.put(web.keys.run_wait(ids["waiting"]), wait.encode())
    queued(web, ids["queued"], claimed=False)
    queued(web, ids["running"], claimed=True)
    web.client.put(web.keys.run_beat(ids["running"]), Beat(time.time(), 62.5, "<b>shop</b> 5", 1).encode())
    listed = {run["id"]: run["state"] for run in api("GET", "runs").json()["items"]}
    assert listed == {run: state for state, run in ids.items()}
    sentences = {
        "requested": "the leader decides in a moment",
        "waiting": "No node fits now",
        "queued": "Handed to n1",
        "running": "Running on n1 for",
    }
    for state, sentence in sentences.items():
        assert [run["id"] for run in api("GET", f"runs?state={state}").json()["items"]] == [ids[state]]
        assert sentence in text_of(browser.get(f"/runs/{ids[state]}").text)
    assert api("GET", f"runs/{ids['running']}").json()["progress"]["percent"] == 62.5
    html = browser.get(f"/runs/{ids['running']}").text
    assert "62.5 %" in text_of(html) and "&lt;b&gt;shop&lt;/b&gt; 5" in html and 'class="meter"' in html
    assert len(api("GET", "runs?node=n1").json()["items"]) == 2
    assert 'crony_runs_live{state="running"} 1.0' in api.client.get("/metrics", headers=api.headers).text
    page = browser.get("/runs?show=live").text
    assert page.count("<tr id=") == 4
    queues = api("GET", "queues").json()["items"]
    assert queues == [{"name": "run.n1", "kind": "runs", "waiting": 1, "claimed": 1}]


def test_filters_live_in_the_address_and_choose_from_both_places(web: Web, api: Api, browser: Browser) -> None:
    archive.write(web.db, [outcome(kind="failed", reason="exit code 3")])
    in_etcd(web, outcome("j1aaaaaaaaaaaaaaaaaaa.1.1795300060", node="n2"))
    assert [run["outcome"] for run in api("GET", "runs?outcome=failed").json()["items"]] == ["failed"]
    assert [run["node"] for run in api("GET", "runs?node=n2").json()["items"]] == ["n2"]
    assert api("GET", "runs?trigger=manual").json()["items"] == []
    assert len(api("GET", "runs?since=2026-11-21T00:00:00Z&until=2026-11-23T00:00:00%2B08:00").json()["items"]) == 2
    assert api("GET", "runs?until=2020-01-01T00:00:00Z").json()["items"] == []
    page = browser.get("/runs?show=bad&node=n1").text
    assert page.count("<tr id=") == 1 and 'value="n1"' in page
    assert "No run fits this filter" in browser.get("/runs?node=n9").text


def test_pages_of_runs_follow_each_other(web: Web, api: Api) -> None:
    second = [outcome(f"j1aaaaaaaaaaaaaaaaaaa.1.{1795300000 + n}", requested_at=1795300000.0 + n) for n in range(5)]
    archive.write(web.db, second)
    seen, cursor = [], ""
    for _ in range(4):
        page = api("GET", f"runs?limit=2{cursor}").json()
        seen += [run["id"] for run in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 5 and seen == sorted(seen, reverse=True)


def test_a_skipped_fire_is_a_record_with_a_reason(web: Web, api: Api, browser: Browser) -> None:
    view = web.catalog.create(document("team/report"), "test")
    run = f"{view.id}.1.1795300000"
    skip = outcome(run, attempt=0, kind="skipped", reason="overlap", detail="the run before goes on", started_at=None)
    archive.write(web.db, [skip])
    (item,) = api("GET", "skips?job=team/report").json()["items"]
    assert (item["reason"], item["count"], item["run"]) == ("overlap", 1, run)
    assert api("GET", f"runs/{run}").json()["outcome"] == "skipped"
    assert "the run before goes on" in browser.get(f"/jobs/{view.id}").text
    assert "skipped" in text_of(browser.get(f"/runs/{run}").text)


def test_cancelling_asks_the_leader_and_an_ended_run_cannot_be_cancelled(web: Web, api: Api, browser: Browser) -> None:
    run = "j1aaaaaaaaaaaaaaaaaaa.1.mrunning"
    queued(web, run, claimed=True)
    assert api("POST", f"runs/{run}:cancel").status_code == 202
    assert browser.post(f"/runs/{run}/cancel").headers["location"] == f"/runs/{run}?done=cancelling"
    requests = [Request.read(kv.value) for kv in web.client.list(web.keys.run_in("")).kvs]
    assert {(request.kind, request.run) for request in requests} == {("cancel", run)}
    assert {request.by for request in requests} == {"token:admin", "admin"}
    archive.write(web.db, [outcome()])
    assert api("POST", f"runs/{RUN}:cancel").status_code == 409
    assert api("POST", "runs/j1aaaaaaaaaaaaaaaaaaa.1.9:cancel").status_code == 404


def test_nodes_are_set_with_a_compare(web: Web, api: Api, browser: Browser) -> None:
    facts = NodeFacts(
        "n/1", "i1", "run.n/1", "host", 1, "b", "0.1", 4, kinds=["shell"], labels={"zone": "<b>"}, seen_at=time.time()
    )
    web.client.put(web.keys.node("n/1"), facts.encode())
    assert api("PATCH", "nodes/n%2F1", json={"weight": 50}).json()["weight"] == 50
    assert api("PATCH", "nodes/n%2F1", json={"cordoned": True}).json()["state"] == "cordoned"
    control = NodeControl.read(web.client.get(web.keys.nodectl("n/1")).value)  # type: ignore[union-attr]
    assert (control.weight, control.cordoned, control.by) == (50, True, "token:admin")
    assert browser.post("/nodes/n%2F1", {"weight": ""}).status_code == 303
    assert browser.post("/nodes/n%2F1", {"weight": "many"}).status_code == 422
    assert browser.post("/nodes/n%2F1", {"drain": "1"}).status_code == 303
    found = api("GET", "nodes").json()["items"][0]
    assert (found["name"], found["weight"], found["state"]) == ("n/1", 100, "draining")
    page = browser.get("/nodes").text
    assert "zone=&lt;b&gt;" in page and "/nodes/n%2F1" in page
    changed = api("PATCH", "nodes/n%2F1", json={"labels": {"disk": "ssd", "zone": None}}).json()
    assert (changed["labels"], changed["own_labels"], changed["drain"]) == ({"disk": "ssd"}, {"zone": "<b>"}, True)
    assert api("PATCH", "nodes/n%2F1", json={"labels": {"rack": "9"}}).json()["labels"] == {"disk": "ssd", "rack": "9"}
    assert browser.post("/nodes/n%2F1", {"drain": "0"}).status_code == 303
    assert api("GET", "nodes/n%2F1").json()["labels"] == {"disk": "ssd", "rack": "9"}, "other settings leave them alone"
    assert "disk=ssd" in browser.get("/nodes").text
    for labels, field in (({"a b": "1"}, "labels.a b"), ({"a": "x" * 64}, "labels.a"), ({"a": "\x00"}, "labels.a")):
        refused = api("PATCH", "nodes/n%2F1", json={"labels": labels})
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert api("PATCH", "nodes/n%2F1", json={"labels": {f"l{n}": "" for n in range(31)}}).status_code == 422
    assert api("PATCH", "nodes/n%2F1", json={"labels": None}).json()["labels"] == {"zone": "<b>"}
    assert api("GET", "nodes/ghost").status_code == 404
    bad = {"labels": {"a": 1}}, {"labels": []}, {"weight": 1001}, {"weight": "5"}, {"weight": True}, {"cordoned": 1}
    for body in ({}, *bad, {"speed": 1}):
        assert api("PATCH", "nodes/n%2F1", json=body).status_code == 422, body
    assert api("PATCH", "nodes/ghost", json={"drain": True}).status_code == 404


class TestOutput:
    """What runs print: brought by nodes, read raw and as a page."""

    def send(self, api: Api, data: bytes, offset: int = 0, **headers: str) -> Any:
        """A chunk as a node sends it."""
        fields = {
            "x-crony-run": RUN,
            "x-crony-attempt": "1",
            "x-crony-offset": str(offset),
            "content-type": "application/octet-stream",
        }
        return api("POST", "ingest/output", content=data, headers=fields | headers)

    def test_chunks_are_stored_in_order_and_repeating_is_harmless(self, web: Web, api_as: Callable[[str], Api]) -> None:
        node, viewer = api_as("node"), api_as("viewer")
        assert self.send(node, zlib.compress(b"one\n")).json() == {"have": 4}
        assert self.send(node, zlib.compress(b"one\n")).json() == {"have": 4}
        assert self.send(node, zlib.compress(b"far"), 100).json() == {"have": 4}
        archive.write(web.db, [outcome()])
        open_ = viewer("GET", f"runs/{RUN}/output")
        assert (open_.text, open_.headers["x-output-state"], open_.headers["x-next-offset"]) == ("one\n", "open", "4")
        assert self.send(node, zlib.compress(b"two\n"), 4, **{"x-crony-final": "1"}).json() == {"have": 8}
        done = viewer("GET", f"runs/{RUN}/output?attempt=1&offset=4")
        assert (done.text, done.headers["x-output-state"]) == ("two\n", "complete")
        assert done.headers["content-type"] == "text/plain; charset=utf-8"
        assert viewer("GET", "runs/j1aaaaaaaaaaaaaaaaaaa.1.9/output").status_code == 404

    def test_streams_and_times_are_told(self, web: Web, api_as: Callable[[str], Api]) -> None:
        node, viewer = api_as("node"), api_as("viewer")
        data = b"eins\noops\n" + "zw\u00f6lf".encode() + b"\xff\n"
        at = 1_700_000_000_123
        head = pack([Stamp(0, Source.STDOUT, at), Stamp(5, Source.STDERR, at + 1), Stamp(10, Source.STDOUT, at + 2)])
        kind = {"content-type": "application/vnd.crony.output", "x-crony-stamps": str(len(head)), "x-crony-final": "1"}
        assert self.send(node, zlib.compress(head + data), **kind).json() == {"have": len(data)}
        assert self.send(node, zlib.compress(b"x" * 17), **kind | {"x-crony-stamps": "16"}).status_code == 422
        archive.write(web.db, [outcome()])
        url = f"runs/{RUN}/output"
        found = {name: viewer("GET", f"{url}?stream={name}").content for name in ("stdout", "stderr", "log", "crony")}
        assert found == {"stdout": data[:5] + data[10:], "stderr": b"oops\n", "log": b"", "crony": b""}
        assert viewer("GET", url).content == data
        assert viewer("GET", f"{url}?stream=out").status_code == 422
        told = viewer("GET", f"{url}?times=true&offset=2")
        assert told.headers["content-type"] == "application/x-ndjson" and told.headers["x-next-offset"] == "18"
        assert [json.loads(line) for line in told.text.splitlines()] == [
            {"offset": 5, "text": "ns\n", "stream": "stdout", "at": "2023-11-14T22:13:20.123+00:00"},
            {"offset": 10, "text": "oops\n", "stream": "stderr", "at": "2023-11-14T22:13:20.124+00:00"},
            {"offset": 18, "base64": "enfDtmxm/wo=", "stream": "stdout", "at": "2023-11-14T22:13:20.125+00:00"},
        ]
        assert len(viewer("GET", f"{url}?times=true&stream=stderr").text.splitlines()) == 1

    def test_bombs_and_other_streams_are_refused(self, api: Api) -> None:
        assert self.send(api, zlib.compress(b"\0" * (8 << 20))).status_code == 200
        assert self.send(api, zlib.compress(b"\0" * ((8 << 20) + 1)), 8 << 20).status_code == 413
        assert self.send(api, zlib.compress(b"\0" * (200 << 20)), 8 << 20).status_code == 413
        packed = zlib.compress(b"hello")
        for data in (b"plain", packed[:-2], packed + b"x", packed + packed):
            assert self.send(api, data).status_code == 422, data
        assert self.send(api, bytes(range(256)) * 8200).status_code == 413
        assert self.send(api, packed, **{"content-type": "application/json"}).status_code == 415

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-crony-run": "../x"}, {"x-crony-run": ""}, {"x-crony-attempt": "0"}, {"x-crony-attempt": "x"},
            {"x-crony-offset": "-1"}, {"x-crony-offset": "9" * 30}, {"x-crony-final": "yes"},
            {"x-crony-stamps": "2"}, {"x-crony-stamps": "1"}, {"x-crony-stamps": "-1"},
        ],
    )  # fmt: skip
    def test_bad_places_are_refused(self, api: Api, headers: dict[str, str]) -> None:
        assert self.send(api, zlib.compress(b"x"), **headers).status_code == 422

    def test_output_is_shown_escaped_with_its_colours(self, web: Web, browser: Browser) -> None:
        evil = "<script>alert(1)</script>\n\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2J\x9b5m\x07bell \u202eevil\r\n"
        evil += "<img src=x onerror=y>\n"
        output.append(web.db, RUN, 1, 0, evil.encode() + b"\xff\xfe bad\n", final=True)
        archive.write(web.db, [outcome()])
        html = browser.get(f"/runs/{RUN}").text
        assert "<script>alert" not in html and "<img" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert '<span class="ansi-red">red</span>' in html and "title" not in html.split("ansi-red")[1][:60]
        assert "\x1b" not in html and "\u202e" not in html and "\x07" not in html and "⟨U+202E⟩" in html

    def test_a_follower_gets_what_is_new_in_whole_lines(self, web: Web, browser: Browser) -> None:
        queued(web, RUN, claimed=True)
        output.append(web.db, RUN, 1, 0, "first\n名".encode()[:-1])
        page = browser.get(f"/runs/{RUN}").text
        assert "first\n" in page and f"/runs/{RUN}/output?attempt=1&amp;offset=6" in page
        assert browser.get(f"/runs/{RUN}/output?attempt=1&offset=6").status_code == 204
        output.append(web.db, RUN, 1, 8, "名".encode()[-1:] + b" done\n", final=True)
        piece = browser.get(f"/runs/{RUN}/output?attempt=1&offset=6").text
        assert piece.startswith("名 done\n") and "hx-get" not in piece

    def test_a_page_tells_streams_apart_by_a_word_and_shows_times_with_their_zone(
        self, web: Web, browser: Browser
    ) -> None:
        at = 1_700_000_000_123  # 22:13:20.123 UTC
        data = b"eins\n\x1b[31mred <b>oops\nagain\x1b[0m\nzwei\nhalf"
        stamps = [Stamp(0, Source.STDOUT, at), Stamp(5, Source.STDERR, at + 1), Stamp(32, Source.STDOUT, at + 2000)]
        output.append(web.db, RUN, 1, 0, data, stamps=stamps)
        queued(web, RUN, claimed=True)
        plain = browser.get(f"/runs/{RUN}").text.split('id="output"')[1].split("</pre>")[0]
        err = '<span class="stream" data-stream="err"></span><span class="from-err"><span class="ansi-red">'
        assert f"eins\n{err}red &lt;b&gt;oops\n</span></span>{err}again</span>\n</span>zwei\n<" in plain
        assert "<time" not in plain and "half" not in plain
        timed = browser.get(f"/runs/{RUN}?times=true").text
        assert 'title="2023-11-14T22:13:20.123+00:00">22:13:20.123+00:00</time> eins' in timed
        assert "offset=37&amp;times=UTC" in timed and "Times in the zone UTC." in text_of(timed)
        output.append(web.db, RUN, 1, 41, b" of it\nlog\n", final=True, stamps=[Stamp(0, Source.LOG, at + 3000)])
        more = browser.get(f"/runs/{RUN}/output?attempt=1&offset=37&times=Asia/Shanghai").text
        assert "06:13:22.123+08:00</time> half\n" in more, "another stream begins a line"
        assert '06:13:23.123+08:00</time> <span class="stream" data-stream="log"></span>' in more
        assert "UTC" not in browser.get(f"/runs/{RUN}/output?attempt=1&offset=37&times=../etc/passwd").text

    def test_removed_output_is_said_to_be(self, web: Web, browser: Browser, api: Api) -> None:
        output.append(web.db, RUN, 1, 0, b"once\n", final=True)
        archive.write(web.db, [outcome()])
        output.remove(web.db, outcome().job, 4e9)
        assert "This output was removed" in text_of(browser.get(f"/runs/{RUN}").text)
        gone = api("GET", f"runs/{RUN}/output")
        assert (gone.content, gone.headers["x-output-state"]) == (b"", "removed")
        assert '"state": "removed"' in api("GET", f"runs/{RUN}/output?follow=true").text

    def test_a_lost_node_s_output_is_not_waited_for_for_ever(self, web: Web, browser: Browser) -> None:
        output.append(web.db, RUN, 1, 0, b"first\nhalf a li")
        archive.write(web.db, [outcome(kind="lost", ended_at=time.time() - 5, started_at=time.time() - 9)])
        assert browser.get(f"/runs/{RUN}/output?attempt=1&offset=6").status_code == 204  # it may still come
        later = "j1aaaaaaaaaaaaaaaaaaa.1.1795300060"
        output.append(web.db, later, 1, 0, b"first\nhalf a li")
        archive.write(web.db, [outcome(later, kind="lost", ended_at=time.time() - 300, started_at=time.time() - 900)])
        page = browser.get(f"/runs/{later}").text
        assert "half a li" in page and "offset=" not in page
        piece = browser.get(f"/runs/{later}/output?attempt=1&offset=6").text
        assert "half a li" in piece and "hx-get" not in piece

    def test_a_long_output_is_cut_at_the_front_and_says_so(self, web: Web, browser: Browser) -> None:
        output.append(web.db, RUN, 1, 0, b"".join(b"line %06d\n" % n for n in range(40_000)), final=True)
        archive.write(web.db, [outcome()])
        page = browser.get(f"/runs/{RUN}").text
        assert "line 039999" in page and "line 000001" not in page and "are not shown here" in page
        assert len(page) < 400_000


def test_reasons_and_names_from_nodes_are_only_text(web: Web, browser: Browser, api: Api) -> None:
    evil = "<script>alert(1)</script>\"'{{7*1000007}}"
    archive.write(
        web.db, [outcome(kind="failed", reason=evil, node=evil, name=evil, why=evil, detail=evil, result={"a": evil})]
    )
    for path in ("/runs", f"/runs/{RUN}", "/jobs", "/nodes"):
        html = browser.get(path).text
        assert "<script>alert" not in html and "7000049" not in html, path
    assert api("GET", f"runs/{RUN}").json()["reason"] == evil


def test_records_nobody_can_read_break_no_page(web: Web, api: Api, browser: Browser) -> None:
    for key in (
        web.keys.run_in("x"),
        web.keys.out("a.1.1", 1),
        web.keys.node("n"),
        web.keys.nodectl("n"),
        web.keys.run_wait("r"),
    ):
        web.client.put(key, b"\xff not json")
    web.client.put(web.keys.out("a.1.2", 1), json.dumps({"v": 99}).encode())
    web.client.put(web.keys.leader(0), b"[1]")
    for path in ("runs", "nodes", "queues", "stats", "jobs"):
        assert api("GET", path).status_code == 200, path
    for path in ("/runs", "/nodes", "/queues", "/jobs"):
        assert browser.get(path).status_code == 200, path


def test_a_run_is_listed_while_it_ends(web: Web, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at live runs and at outcomes are kept for a second: of different ages they could both lack it."""
    now = [1000.0]
    monkeypatch.setattr("crony.web.live.SYSTEM", type("Ours", (), {"monotonic": staticmethod(lambda: now[0])}))
    queued(web, RUN, claimed=True)
    web.live.runs()
    now[0] += 0.9
    web.live.outcomes()
    web.client.delete_prefix(f"{web.keys.run}q/")
    web.client.put(web.keys.out(RUN, 1), outcome().encode())
    for _ in range(20):
        now[0] += 0.3
        assert [run["id"] for run in api("GET", "runs").json()["items"]] == [RUN]


def test_a_result_that_cannot_be_written_again_hides_no_other_run(web: Web, api: Api) -> None:
    deep: list[Any] = []
    for _ in range(400):
        deep = [deep]
    in_etcd(web, outcome(result=deep))
    assert api("GET", "runs").json()["items"][0]["result"] == {"too_deep": True}
    assert api("GET", f"runs/{RUN}").json()["attempts"][0]["result"] == {"too_deep": True}
