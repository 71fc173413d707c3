"""The callee's calls as docs/reference/callbacks.md promises them: every answer, and nothing for the wrong caller."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from crony.domain.job import parse
from crony.errors import Invalid, Unavailable
from crony.store import archive
from crony.web import job_fields
from crony.web.callbacks import CALLS
from crony.web.wiring import Web
from tests.helpers.callee import Callee
from tests.web.conftest import Api, Browser, text_of

RUNNING = {"state": "running", "outcome": None, "cancel": False}


class Calls:
    """A callee that speaks HTTP and nothing else."""

    def __init__(self, client: TestClient, callee: Callee, token: str = "") -> None:
        self.client, self.callee = client, callee
        self.headers = {"authorization": f"Bearer {token or callee.token.text}"}

    def __call__(self, verb: str, body: Any = None, **options: Any) -> Any:
        path = f"/api/v1/runs/{self.callee.run}/attempts/{self.callee.attempt}:{verb}"
        options = {"headers": self.headers, **({"json": body or {}} if "content" not in options else {}), **options}
        return self.client.post(path, **options)


@pytest.fixture
def callee(web: Web, anonymous: TestClient) -> Callee:
    return Callee(web.client, web.keys, retries=1).waiting()


@pytest.fixture
def calls(anonymous: TestClient, callee: Callee) -> Calls:
    return Calls(anonymous, callee)


def archived(web: Web, callee: Callee) -> None:
    """What the leader's archiver does, and a minute later."""
    out = callee.outcome()
    assert out is not None
    archive.write(web.db, [out])
    web.client.delete(web.keys.out(callee.run, callee.attempt))


def test_a_whole_life(web: Web, calls: Calls, api: Api) -> None:
    run = calls.callee.run
    assert calls("heartbeat").json() == RUNNING
    assert calls("progress", {"percent": 40, "message": "4 of\n10"}).json() == RUNNING
    assert calls("progress", {"percent": 55.5}).json() == RUNNING
    assert calls("heartbeat").json() == RUNNING
    shown = api("GET", f"runs/{run}").json()
    assert (shown["state"], shown["node"]) == ("accepted", "n1")
    assert (shown["progress"]["percent"], shown["progress"]["message"]) == (55.5, "4 of 10")
    assert shown["progress"]["at"].endswith("+00:00") and shown["deadline_at"].endswith("+00:00")
    assert calls("log", {"text": "out\n"}).json() == {**RUNNING, "have": 4}
    for _ in range(2):
        assert calls("log", {"text": "über\n", "stream": "stderr", "offset": 4}).json()["have"] == 10
    assert calls("log", {"text": "gap", "offset": 99}).json()["have"] == 10
    output = api("GET", f"runs/{run}/output")
    assert (output.text, output.headers["x-output-state"]) == ("out\nüber\n", "open")
    ended = {"state": "ended", "outcome": "succeeded", "cancel": False}
    for _ in range(2):
        assert calls("complete", {"result": {"rows": 3}}).json() == ended
    assert calls("heartbeat").json() == calls("progress", {"percent": 1}).json() == ended
    assert calls("log", {"text": "late"}).json() == {**ended, "have": 4}
    assert api("GET", f"runs/{run}").json()["result"] == {"rows": 3}
    assert "late" not in api("GET", f"runs/{run}/output").text
    refused = calls("fail", {"reason": "after all"})
    assert refused.status_code == 409 and refused.headers["content-type"] == "application/problem+json"
    assert {key: refused.json()[key] for key in ("status", "outcome", "attempt")} == {
        "status": 409, "outcome": "succeeded", "attempt": 1,
    }  # fmt: skip


def test_people_see_how_far_it_is(web: Web, calls: Calls, browser: Browser) -> None:
    path = f"/runs/{calls.callee.run}"
    assert "Nothing was heard of it yet" in text_of(browser.get(path).text)
    calls("progress", {"percent": 55.5, "message": "<b>rows</b>"})
    web.live.forget()
    page = browser.get(path).text
    assert "55.5 % done" in text_of(page) and "&lt;b&gt;rows&lt;/b&gt;" in page and "<b>rows" not in page
    chinese = text_of(browser.get(path, headers={"accept-language": "zh"}).text)
    assert "已完成 55.5 %" in chinese and "被调用方已接受" in chinese
    form = {"async_deadline": "2h", "async_heartbeat": "5m"}
    made = job_fields.document({**job_fields.DEFAULTS, "name": "later", "command": "true", **form})
    assert made["async"] == {"deadline": "2h", "heartbeat": "5m"}
    shown = job_fields.fields(made)
    assert shown is not None and {name: shown[name] for name in form} == form
    with pytest.raises(Invalid) as caught:
        parse(job_fields.document({**job_fields.DEFAULTS, "name": "x", "command": "true", "async_heartbeat": "5m"}))
    assert job_fields.field_of(caught.value, job_fields.DEFAULTS) == "async_deadline"


def test_days_later_the_answers_are_the_same(web: Web, calls: Calls) -> None:
    body = {"reason": "disk full", "code": 28, "final": True}
    ended = {"state": "ended", "outcome": "failed", "cancel": False}
    assert calls("fail", body).json() == ended
    archived(web, calls.callee)
    assert calls("fail", body).json() == calls("heartbeat").json() == ended
    assert calls("complete").status_code == 409
    assert Calls(calls.client, calls.callee, calls.callee.token.under(7).text)("fail", body).json() == ended
    stranger = replace(calls.callee.token, secret=Callee(web.client, web.keys).token.secret)
    assert Calls(calls.client, calls.callee, stranger.text)("complete").status_code == 401


def test_the_node_brings_its_output_while_the_callee_sends_its_own(web: Web, calls: Calls, api: Api) -> None:
    run = calls.callee.run

    def bring(offset: int, text: bytes, final: bool = False) -> int:
        import zlib

        headers = {
            "content-type": "application/zlib", "x-crony-run": run, "x-crony-attempt": "1",
            "x-crony-offset": str(offset), "x-crony-final": "1" if final else "0",
        }  # fmt: skip
        return int(api("POST", "ingest/output", content=zlib.compress(text), headers=headers).json()["have"])

    assert bring(0, b"HTTP 202\n") == 9
    assert calls("log", {"text": "first\n", "offset": 0}).json()["have"] == 6
    assert bring(0, b"HTTP 202\n") == 9 and bring(9, b"bye\n", final=True) == 13
    assert calls("log", {"text": "second\n", "offset": 6}).json()["have"] == 13
    output = api("GET", f"runs/{run}/output")
    assert (output.text, output.headers["x-output-state"]) == ("HTTP 202\nfirst\nbye\nsecond\n", "open")
    calls("complete")
    assert api("GET", f"runs/{run}/output").headers["x-output-state"] == "complete"


def test_what_a_callee_sends_is_kept_up_to_the_cap(web: Web, calls: Calls, api: Api) -> None:
    object.__setattr__(web.settings, "output_limit", 100)
    assert calls("log", {"text": "x" * 90, "offset": 0}).json()["have"] == 90
    assert calls("log", {"text": "y" * 20, "offset": 90}).json()["have"] == 110
    assert calls("log", {"text": "z", "offset": 110}).json()["have"] == 111
    assert api("GET", f"runs/{calls.callee.run}/output").text == "x" * 90 + "y" * 10


BAD = [
    ("heartbeat", {"at": 1}, "at"), ("heartbeat", [], ""), ("progress", {"percent": 100.1}, "percent"),
    ("progress", {"percent": -1}, "percent"), ("progress", {"percent": "5"}, "percent"),
    ("progress", {"percent": True}, "percent"), ("progress", {"message": "x" * 501}, "message"),
    ("progress", {"message": 5}, "message"), ("log", {}, "text"), ("log", {"text": "a", "stream": "both"}, "stream"),
    ("log", {"text": "a", "offset": -1}, "offset"), ("log", {"text": "a", "offset": 1.5}, "offset"),
    ("complete", {"result": 1, "code": 0}, "code"), ("fail", {}, "reason"), ("fail", {"reason": ""}, "reason"),
    ("fail", {"reason": "x", "code": 2**31}, "code"), ("fail", {"reason": "x", "final": "yes"}, "final"),
]  # fmt: skip


def test_bad_bodies_are_refused_by_field_and_change_nothing(web: Web, calls: Calls) -> None:
    before = web.client.list(web.keys.run).kvs
    web.callees._most = 1000
    for verb, body, field in BAD:
        answer = calls(verb, content=str(body).replace("'", '"').replace("True", "true").encode(),
                       headers={**calls.headers, "content-type": "application/json"})  # fmt: skip
        assert answer.status_code == 422, (verb, body, answer.text)
        assert answer.json().get("field", "").startswith(field), (verb, body, answer.json())
    raw = {**calls.headers, "content-type": "application/json"}
    for content in (b"", b'{"result": NaN}', b'{"result": 1, "result": 2}', b'{"result": "\\ud800"}', b"{}x"):
        assert calls("complete", content=content, headers=raw).status_code == 422
    assert calls("complete", content=b"a=1", headers=calls.headers).status_code == 415
    assert calls("complete", {"result": "x" * (256 << 10)}).status_code == 413
    assert calls("log", {"text": "x" * (64 << 10) + "y"}).status_code == 413
    path = f"/api/v1/runs/{calls.callee.run}/attempts"
    for odd in ("0", "-1", "x", "1e3", "99999999999"):
        assert calls.client.post(f"{path}/{odd}:heartbeat", json={}, headers=calls.headers).status_code in (404, 422)
    assert calls.client.post(f"{path}/1:explode", json={}, headers=calls.headers).status_code == 404
    assert calls.client.post(f"{path}/1:heartbeat?x=1", json={}, headers=calls.headers).status_code == 422
    assert calls.client.get(f"{path}/1:heartbeat", headers=calls.headers).status_code == 405
    assert web.client.list(web.keys.run).kvs == before


def test_a_large_result_leaves_its_size(web: Web, calls: Calls, api: Api) -> None:
    assert calls("complete", {"result": ["x" * 2000]}).json()["outcome"] == "succeeded"
    assert api("GET", f"runs/{calls.callee.run}").json()["result"] == {"truncated": True, "bytes": 2004}


@pytest.mark.parametrize("verb", ["heartbeat", "progress", "log", "complete", "fail"])
def test_only_the_callee_speaks_for_its_attempt(web: Web, calls: Calls, api: Api, verb: str) -> None:
    body = {"log": {"text": "x"}, "fail": {"reason": "x"}}.get(verb, {})
    callee, before = calls.callee, web.client.list(web.keys.run).kvs
    other = Callee(web.client, web.keys).waiting()
    before = web.client.list(web.keys.run).kvs
    genuine = callee.token.text
    flipped = genuine[:-1] + ("A" if genuine[-1] != "A" else "B")
    forged = [
        "",
        "x",
        "Bearer",
        other.token.text,
        flipped,
        genuine + "A",
        genuine.upper(),
        genuine[:40],
        "c1." + "A" * 5000,
    ]
    answers = [calls(verb, body, headers={})] + [
        calls(verb, body, headers={"authorization": f"Bearer {token}"}) for token in forged
    ]
    answers.append(calls(verb, body, headers={"authorization": f"Basic {genuine}"}))
    answers.append(calls(verb, body, headers={**api.headers}))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["detail"] for answer in answers}) == 1, "it is not said which part is wrong"
    assert answers[0].headers["www-authenticate"].startswith("Bearer")
    browser = calls(verb, body, headers={**calls.headers, "origin": "http://evil.test"})
    assert browser.status_code == 200, "the token is the right, not where the call comes from"
    wrong_run = calls.client.post(f"/api/v1/runs/{other.run}/attempts/1:{verb}", json=body, headers=calls.headers)
    assert wrong_run.status_code == 401
    unknown = Callee(web.client, web.keys)
    assert Calls(calls.client, unknown, unknown.token.under(1).text)(verb, body).status_code == 404
    if verb == "log":
        assert web.client.list(web.keys.run).kvs == before


def test_a_token_is_a_right_to_nothing_else(calls: Calls) -> None:
    for method, path in (
        ("GET", "runs"),
        ("GET", f"runs/{calls.callee.run}"),
        ("POST", f"runs/{calls.callee.run}:cancel"),
    ):
        answer = calls.client.request(method, f"/api/v1/{path}", headers=calls.headers)
        assert answer.status_code == 401


def test_who_calls_too_often_waits_and_nobody_else_does(web: Web, calls: Calls, anonymous: TestClient) -> None:
    other = Calls(anonymous, Callee(web.client, web.keys).waiting())
    assert web.callees._most == CALLS == 20, "as the contract says"
    web.callees._most = 2  # on a busy machine twenty calls may take a second
    codes = [calls("heartbeat").status_code for _ in range(10)]
    assert codes[:2] == [200] * 2 and 429 in codes
    refused = next(answer for _ in range(20) if (answer := calls("heartbeat")).status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert other("heartbeat").status_code == 200


def test_with_the_database_away_all_but_logs_goes_on(
    web: Web, calls: Calls, anonymous: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("The database is away")

    old = Callee(web.client, web.keys).waiting()
    assert Calls(anonymous, old)("complete").status_code == 200
    archived(web, old)
    monkeypatch.setattr(web.db, "read", away)
    monkeypatch.setattr(web.db, "transaction", away)
    assert calls("progress", {"percent": 5}).json() == RUNNING
    log = calls("log", {"text": "x"})
    assert log.status_code == 503 and log.headers["retry-after"] == "5"
    assert Calls(anonymous, old)("complete").status_code == 503, "nobody can tell now: not a 404"
    ended = {"state": "ended", "outcome": "failed", "cancel": False}
    for _ in range(2):
        assert calls("fail", {"reason": "x"}).json() == ended
    monkeypatch.undo()
    assert Calls(anonymous, old)("complete").json()["outcome"] == "succeeded"


def test_with_etcd_away_nothing_is_believed(web: Web, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("etcd is away")

    monkeypatch.setattr(web.client, "txn", away)
    for verb, body in (("heartbeat", {}), ("log", {"text": "x"}), ("complete", {}), ("fail", {"reason": "x"})):
        answer = calls(verb, body)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
    monkeypatch.undo()
    assert calls("complete").json()["outcome"] == "succeeded"
