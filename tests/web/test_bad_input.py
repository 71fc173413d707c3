"""Bad input at the door: refused with one sentence, nothing stored, no trace of the inside."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from crony.errors import Invalid
from crony.web.strictjson import DEPTH, loads
from tests.web.conftest import Api, Browser, document

GOOD = json.dumps(document("x")).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        GOOD + b"x",
        GOOD + GOOD,
        GOOD[:-1],
        b'{"name": "a", "name": "b"}',
        b'{"name": "a", "action": {"kind": "shell", "kind": "http"}}',
        b'{"timeout": NaN}',
        b'{"timeout": Infinity}',
        b'{"timeout": -Infinity}',
        b'{"priority": 1e309}',
        b'{"priority": 9223372036854775808}',
        b'{"priority": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.decode().encode("utf-16-be"),
        GOOD.decode().encode("utf-32"),
        b'{"name": "\xff\xfe"}',
        b'{"name": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"name": "a\x00b"}',
        b'{"name": "a\nb"}',
        b'{"params": ' + b"[" * 200 + b"]" * 200 + b"}",
        b"[" * 100_000,
        b'{"a": "' + b"[" * 100 + b'"}',
        b"{'name': 'x'}",
        b'{"name": "x",}',
        b"// comment\n{}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_json_that_two_parsers_could_read_differently_is_refused(api: Api, body: bytes) -> None:
    answer = api("POST", "jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 422 and answer.json()["detail"]
    assert "Traceback" not in answer.text and ".py" not in answer.text
    assert api("GET", "jobs").json()["items"] == []


def test_nesting_is_counted_outside_texts() -> None:
    assert loads(b'{"a": "' + b"[" * 500 + b'\\""}') == {"a": "[" * 500 + '"'}
    assert loads(b"[" * DEPTH + b"]" * DEPTH)
    with pytest.raises(Invalid):
        loads(b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1))


@pytest.mark.parametrize("value", [b'"\\u4e2d\\ud83d\\ude00"', '"名称 😀"'.encode(), b"-9223372036854775808", b"1e308"])
def test_unusual_but_sound_json_is_read(value: bytes) -> None:
    assert loads(value) == json.loads(value)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "text/json",
    ],
)
def test_another_content_type_is_refused(api: Api, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    assert api("POST", "jobs", content=GOOD, headers=headers).status_code == 415


def test_a_content_encoding_is_refused(api: Api) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert api("POST", "jobs", content=GOOD, headers=headers).status_code == 415


def test_a_body_over_a_mebibyte_is_refused_however_it_is_announced(api: Api) -> None:
    big = b'{"name": "' + b"x" * (1 << 20) + b'"}'
    headers = {"content-type": "application/json"}
    assert api("POST", "jobs", content=big, headers=headers).status_code == 413
    pieces = (big[i : i + 65536] for i in range(0, len(big), 65536))
    assert api("POST", "jobs", content=pieces, headers=headers).status_code == 413  # chunked: no length announced


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("jobs?limit=0", "limit"),
        ("jobs?limit=201", "limit"),
        ("jobs?limit=1000000000", "limit"),
        ("jobs?limit=-1", "limit"),
        ("jobs?limit=x", "limit"),
        ("jobs?limit=1&limit=2", "limit"),
        ("jobs?page=1", "page"),
        ("jobs?sort=password", "sort"),
        ("jobs?cursor=x", "cursor"),
        ("jobs?cursor=WyJqb2JzIiwxXQ", "cursor"),
        ("jobs?enabled=maybe", "enabled"),
        ("runs?state=dead", "state"),
        ("runs?outcome=skipped", "outcome"),
        ("runs?trigger=x", "trigger"),
        ("runs?since=yesterday", "since"),
        ("runs?since=2026-01-01T00:00:00", "since"),
        ("runs?since=99999-01-01T00:00:00Z", "since"),
        ("runs?cursor=..%2F..", "cursor"),
        ("skips?nope=1", "nope"),
        ("nodes?x=", "x"),
        ("stats?hours=0", "hours"),
    ],
)
def test_bad_parameters_are_named(api: Api, path: str, field: str) -> None:
    answer = api("GET", path)
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text


@pytest.mark.parametrize("quotes", ["'", '"', "%", "_", "\\", "' OR 1=1 --", "\u202e", "😀", "\x00"])
def test_marks_of_sql_in_a_search_are_only_text(api: Api, browser: Browser, quotes: str) -> None:
    api("POST", "jobs", json=document("plain"))
    answer = api.client.get("/api/v1/jobs", params={"q": quotes}, headers=api.headers)
    assert answer.status_code in (200, 422)
    if answer.status_code == 200 and quotes not in json.dumps(document("plain")) + "_":
        assert answer.json()["items"] == []
    assert browser.client.get("/jobs", params={"q": quotes}).status_code in (200, 422)


@pytest.mark.parametrize(
    "run", ["x", "j1", "..", "j1.1", "j1.x.1", "%2e%2e%2fjob", "a/b", "j1.1.%00", "j1.1." + "9" * 200, "j1.1.é", ".1.1"]
)
def test_what_is_no_run_id_never_reaches_a_key(api: Api, run: str) -> None:
    for method, path in (("GET", f"runs/{run}"), ("GET", f"runs/{run}/output"), ("POST", f"runs/{run}:cancel")):
        assert api(method, path).status_code in (404, 405, 422), (method, run)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"name": "a\nb"}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": 5}, "name"),
        ({"uid": 0}, "uid"),
        ({"id": "j00000000000000000000"}, "id"),
        ({"action": {"kind": "shell", "command": ["x"], "run_as": ["root"]}}, "action.run_as"),
        ({"action": {"kind": "http", "url": "file:///etc/passwd"}}, "action.url"),
        ({"action": {"kind": "http", "url": "http://169.254.169.254/"}}, "action.url"),
        ({"action": {"kind": "shell", "command": ["x"], "env": {"LD_PRELOAD": "x"}}}, "action.env.LD_PRELOAD"),
        ({"schedule": {"cron": "0 0 30 2 *"}}, "schedule.cron"),
        ({"schedule": {"cron": "${7*7}"}}, "schedule.cron"),
        ({"schedule": {"cron": "* * * * *", "timezone": "../../etc/passwd"}}, "schedule.timezone"),
    ],
)
def test_bad_documents_name_the_field(api: Api, document: dict[str, object], field: str) -> None:
    from tests.web.conftest import document as good

    answer = api("POST", "jobs", json=good("x") | document)
    assert answer.status_code == 422 and answer.json()["field"].startswith(field), answer.text
    assert answer.json()["detail"] and "49" not in answer.json()["detail"]


def test_a_form_is_read_strictly(browser: Browser) -> None:
    headers = {"origin": "http://crony.test", "content-type": "application/x-www-form-urlencoded"}
    csrf = f"_csrf={browser.csrf}"

    def post(body: str) -> int:
        answer = browser.client.post("/jobs/new", content=body, headers=headers)
        return int(answer.status_code)

    assert post(f"{csrf}&surprise=1") == 422
    assert post(f"{csrf}&name=a&name=b") == 422
    assert post(f"{csrf}&name=%00") == 422
    assert post(f"{csrf}&name=%ff") == 422
    assert post("&".join([csrf, *(f"f{n}=1" for n in range(300))])) == 422
    multipart = browser.client.post(
        "/jobs/new", files={"name": b"x"}, headers={"origin": "http://crony.test", "x-csrf-token": browser.csrf}
    )
    assert multipart.status_code == 415


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/vendor/README.md"]
)
def test_only_the_console_s_own_files_are_served(anonymous: TestClient, path: str) -> None:
    assert anonymous.get(path).status_code == 404


def test_other_methods_are_answered_plainly(api: Api, anonymous: TestClient) -> None:
    assert api("PATCH", "jobs").status_code == 405
    assert api("PATCH", "jobs").headers["allow"]
    assert anonymous.options("/api/v1/jobs", headers={"origin": "http://evil.test"}).status_code == 405


def test_an_error_nobody_expected_tells_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from crony.catalog.jobs import Catalog

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(Catalog, "list", broken)
    answer = api("GET", "jobs")
    assert answer.status_code == 500 and "secret" not in answer.text and "Traceback" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json" and answer.json()["status"] == 500
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    ("path", "body", "hint"),
    [
        ("jobs/x:run", {"parms": {}}, "did you mean params?"),
        ("jobs/x:pause", {"zzz": 1}, "the fields here are until"),
    ],
)
def test_an_unknown_field_is_told_what_there_is(api: Api, path: str, body: dict[str, object], hint: str) -> None:
    answer = api("POST", path, json=body)
    assert (answer.status_code, answer.json()["hint"]) == (422, hint), answer.text
