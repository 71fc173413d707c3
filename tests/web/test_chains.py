"""Jobs that run after others, as people see them: saved with their parents, drawn, explained; a chain and its runs."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from crony.cli.documents import parents_first
from crony.cli.graph import lines
from crony.cli.main import run as crony
from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.chain import End, Graph, Link
from crony.domain.gathering import consequences
from crony.domain.outcome import Outcome
from crony.store import archive
from crony.web.graph import Box, drawing
from crony.web.wiring import Web
from tests.unit.test_cli_api import says, serving
from tests.web.conftest import Api, Browser, document, text_of
from tests.web.test_runs import in_etcd

FIRE = int(time.time() // 86400) * 86400 - 86400 + 3600
"""01:00 yesterday."""


def made(api: Api, name: str, *parents: str, **more: Any) -> str:
    """A job that runs after others; its id."""
    after = {"after": {"jobs": list(parents), **more.pop("after", {})}} if parents else {}
    answer = api("POST", "jobs", json=document(name, **after, **more))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ended(web: Web, run: str, name: str, kind: str = "succeeded", **more: Any) -> Outcome:
    """An outcome in the archive."""
    facts: dict[str, Any] = {"requested_at": FIRE + 1.0, "started_at": FIRE + 1.0, "ended_at": FIRE + 5.0} | more
    ended_at, trigger = facts.pop("ended_at"), facts.pop("trigger", "chain")
    number = 0 if kind == "skipped" else 1
    out = Outcome(run, run.split(".")[0], name, 1, 1, number, kind, True, trigger, ended_at, **facts)
    archive.write(web.db, [out])
    return out


def diamond(api: Api) -> dict[str, str]:
    """Four jobs: the last one follows two that follow the first."""
    found = {"top": made(api, "team/top", schedule={"cron": "0 1 * * *"})}
    found["left"] = made(api, "team/left", "team/top")
    found["right"] = made(api, "team/right", "team/top", after={"on": "failure"})
    found["bottom"] = made(api, "team/bottom", "team/left", "team/right", after={"of": 2})
    return found


def test_what_cannot_be_is_refused_where_it_is_written(api: Api, browser: Browser) -> None:
    jobs = diamond(api)
    answer = api("POST", "jobs", json=document("x", after={"jobs": ["nobody"]}))
    assert answer.status_code == 422 and answer.json()["field"] == "after.jobs[0]"
    revision = api("GET", f"jobs/{jobs['top']}").headers["etag"]
    ring = document("team/top", after={"jobs": ["team/bottom"]})
    answer = api("PUT", f"jobs/{jobs['top']}", json=ring, headers={"if-match": revision})
    assert answer.status_code == 422, answer.text
    assert "closes a circle: team/top -> team/left -> team/bottom -> team/top" in answer.json()["detail"]
    answer = api("DELETE", f"jobs/{jobs['left']}")
    assert answer.status_code == 409 and "team/bottom" in answer.text
    browser.client.cookies.set("crony_lang", "zh")
    page = browser.post(f"/jobs/{jobs['left']}/delete", {"revision": "1"})
    assert page.status_code == 409 and "有作业在它之后运行：team/bottom" in text_of(page.text)


def test_the_graph_is_told_and_drawn(web: Web, api: Api, browser: Browser) -> None:
    jobs = diamond(api)
    alone = made(api, "alone")
    ended(web, f"{jobs['left']}.1.m1", "team/left", "failed")
    body = api("GET", f"jobs/{jobs['left']}/graph").json()
    told = {row["name"]: (row["after"], row["on"], row["need"]) for row in body["jobs"]}
    assert told == {
        "team/top": ([], None, None),
        "team/left": (["team/top"], "success", 1),
        "team/right": (["team/top"], "failure", 1),
        "team/bottom": (["team/left", "team/right"], "success", 2),
    } or told["team/bottom"][0] == ["team/right", "team/left"]
    assert next(row for row in body["jobs"] if row["name"] == "team/left")["last_run"]["outcome"] == "failed"
    assert api("GET", f"jobs/{alone}/graph").json()["jobs"] == []
    page = browser.get(f"/jobs/{jobs['left']}").text
    assert page.count('class="graph-edge"') == 3 and page.count("graph-dashed") == 1
    assert all(f'<a href="/jobs/{each}" class="graph-box' in page for each in jobs.values())
    assert 'aria-current="true"' in page and "graph-failed" in page
    assert "It runs when these have succeeded: team/top" in text_of(page)
    assert "graph-box" not in browser.get(f"/jobs/{alone}").text
    bottom = text_of(browser.get(f"/jobs/{jobs['bottom']}").text)
    assert "It runs when these have succeeded (2 of them): team/left, team/right" in bottom


def test_a_chain_is_shown_with_those_that_did_not_run(web: Web, api: Api, browser: Browser) -> None:
    jobs = diamond(api)
    root = ids.fire_run_id(jobs["top"], 1, FIRE)
    ended(web, root, "team/top", trigger="schedule", fire_at=FIRE)
    left = ids.chained_run_id(jobs["left"], 1, root)
    ended(web, left, "team/left", "failed", chain=root, cause=root, reason="exit code 3")
    right = ids.chained_run_id(jobs["right"], 1, root)
    why = "team/top ended as succeeded; its failure was awaited"
    ended(web, right, "team/right", "skipped", chain=root, cause=root, reason="parent", detail=why)
    bottom = ids.chained_run_id(jobs["bottom"], 1, str(FIRE))
    said = "team/left ended as failed; team/right was skipped; success of 2 of 2 was awaited"
    in_etcd(web, Outcome(bottom, jobs["bottom"], "team/bottom", 1, 1, 0, "skipped", True, "chain", FIRE + 9.0, "parent",
                         said, chain=root, cause=left))  # fmt: skip
    for run in (root, left, right, bottom):
        body = api("GET", f"runs/{run}/chain").json()
        assert body["chain"] == root and body["began_at"] == rfc3339(FIRE)
        assert [(each["id"], each["cause"]) for each in body["runs"]] == [
            (root, None), (left, root), (right, root), (bottom, left)
        ]  # fmt: skip
    page = browser.get(f"/runs/{left}/chain").text
    assert page.count('class="graph-edge"') == 4, "the last one follows both"
    words = text_of(page)
    assert "exit code 3" in words and said in words
    browser.client.cookies.set("crony_lang", "zh")
    words = text_of(browser.get(f"/runs/{left}/chain").text)
    assert "上游作业: team/left 失败；team/right 被跳过；需要 2 个中有 2 个成功" in words
    browser.client.cookies.set("crony_lang", "en")
    one = browser.get(f"/runs/{bottom}").text
    assert said in text_of(one) and f'href="/runs/{left}"' in one and f'href="/runs/{bottom}/chain"' in one
    assert "the job before it" in text_of(browser.get(f"/jobs/{jobs['right']}").text)

    answers = {
        name: api("GET", f"jobs/{jobs[name]}/why?at={rfc3339(FIRE)}").json() for name in ("left", "right", "bottom")
    }
    assert answers["left"]["verdict"] == "ran" and answers["left"]["run"]["id"] == left
    assert answers["right"]["verdict"] == "skipped" and why in answers["right"]["sentence"]
    assert answers["bottom"]["verdict"] == "skipped" and said in answers["bottom"]["sentence"]
    later = api("GET", f"jobs/{jobs['left']}/why?at={rfc3339(FIRE + 60)}").json()
    assert later["verdict"] in ("not_due", "did_not_exist")


def test_the_records_of_the_leader_can_be_said_in_chinese(web: Web, browser: Browser) -> None:
    """Whatever `consequences` writes is what the page takes apart."""
    graph = Graph()
    graph.put("b", Link("b", "b", 1, 1, "end", {"a": "a", "c": "c"}, need=2).encode())
    graph.put(
        "d",
        Link(
            "d", "d", 1, 1, "success", {"a": "a"}, results={"x": dict.fromkeys(("job", "fact", "path"), "a")}
        ).encode(),
    )
    end = End("a.1.m1", "a", "a", "succeeded", "a.1.m1", time.time())
    browser.client.cookies.set("crony_lang", "zh")
    for number, each in enumerate(consequences(end, graph, {}, time.time())):
        assert each.skip is not None
        run = f"j1aaaaaaaaaaaaaaaaaaa.1.m{number}"
        ended(web, run, "b", "skipped", reason="parent", detail=each.skip.detail)
        page = text_of(browser.get(f"/runs/{run}").text)
        assert "awaited" not in page and "parameter" not in page and ("需要" in page or "没有" in page), page


def test_a_run_without_a_chain_is_asked_for(web: Web, api: Api) -> None:
    job = made(api, "a")
    assert api("POST", f"jobs/{job}:run", json={"chain": False}).status_code == 202
    (kept,) = [json.loads(kv.value) for kv in web.client.list(web.keys.run_in("")).kvs]
    assert kept["no_chain"] is True
    assert api("POST", f"jobs/{job}:run", json={"chain": "no"}).status_code == 422


def test_the_command_shows_graph_and_chain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def row(name: str, *after: str, **more: Any) -> dict[str, Any]:
        return {"id": name, "name": name, "enabled": True, "on": "success" if after else None, "need": len(after),
                "after": list(after), "last_run": None, **more}  # fmt: skip

    jobs = [row("bottom", "left", "right", enabled=False), row("left", "top"), row("right", "top"), row("top")]
    jobs[3]["last_run"] = {"outcome": "failed"}
    assert list(lines(jobs, "left")) == [
        "top  (last run failed)",
        "├─ left  (on success)  <- this one",
        "│  └─ bottom  (on success of 2 of 2; also after right; paused)",
        "└─ right  (on success)",
    ]
    assert list(lines([row("a", "b"), row("b", "a")], "a")), "a circle that somebody wrote ends"
    graph = {"job": "left", "name": "left", "jobs": jobs, "more": False}
    runs = [{"id": "r1", "job_name": "top", "state": "ended", "outcome": "succeeded", "cause": None},
            {"id": "r2", "job_name": "left", "state": "ended", "outcome": "skipped", "cause": "r1",
             "reason": "parent: x"}]  # fmt: skip

    def answer(handler: Any) -> None:
        found = graph if handler.path.endswith("/graph") else {"chain": "r1", "runs": runs}
        says(200, json.dumps(found).encode())(handler)

    with serving(answer) as api:
        monkeypatch.setenv("CRONY_API", api.target.base)
        monkeypatch.setenv("CRONY_TOKEN", "crony_secret")
        assert crony(["job", "graph", "left"]) == 0
        assert "└─ right" in capsys.readouterr().out
        assert crony(["run", "chain", "r2"]) == 0
        table = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in table[1:]] == ["r1", "r2"] and "parent: x" in table[2]


def test_the_drawing_escapes_shortens_and_ends() -> None:
    boxes = [
        Box("a", "<b>&", "x", "failed", "/jobs/a", ("b",)),
        Box("b", "team/" + "每天的报表汇总与核对" * 3, "", "", "/jobs/b", ("a", "gone", "b")),
    ]
    drawn = drawing(boxes, 'say "it"')
    assert "<b>" not in drawn and "&lt;b&gt;&amp;" in drawn and "&quot;it&quot;" in drawn and "…" in drawn
    assert drawing([], "nothing").startswith("<svg")


def test_documents_are_saved_parents_first() -> None:
    def job(name: str, *after: str) -> dict[str, Any]:
        return {"name": name, **({"after": {"jobs": list(after)}} if after else {})}

    ordered = parents_first([job("c", "b", "elsewhere"), job("x"), job("b", "a"), job("a")])
    assert [each["name"] for each in ordered] == ["x", "a", "b", "c"]
    ring = [job("a", "b"), job("b", "a"), {"after": 3}, {"name": "z", "after": {"jobs": 1}}]
    assert sorted(map(str, parents_first(ring))) == sorted(map(str, ring)), "refused by the server, not here"
