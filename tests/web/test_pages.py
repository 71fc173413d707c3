"""The console's pages: what they show, in both languages; the job form, where nothing typed is ever lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from crony.domain.job import parse
from crony.store import archive
from crony.web import job_fields
from crony.web.wiring import Web
from tests.web.conftest import BASE, Api, Browser, document, text_of
from tests.web.test_runs import outcome

FORM = {**job_fields.DEFAULTS, "name": "team/report", "command": "/bin/report --all 'two words'", "mode": "form"}


def form(**changes: str) -> dict[str, str]:
    """A filled-in form as a browser sends it: unchecked boxes are absent."""
    fields = {**FORM, **changes}
    return {key: value for key, value in fields.items() if not (key in job_fields.FLAGS and value == "")}


def value_of(html: str, name: str) -> str:
    """The value of an input."""
    found = re.search(rf'<input[^>]*\sname="{name}"[^>]*\svalue="([^"]*)"', html)
    assert found, name
    return found[1]


def test_without_jobs_the_page_says_how_to_begin(browser: Browser) -> None:
    text = text_of(browser.get("/jobs").text)
    assert "No jobs yet" in text and "crony import crontab" in text


def test_a_job_answers_four_questions_in_its_row(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("billing/close-day", tags=["money"]), "test")
    archive.write(web.db, [outcome(f"{view.id}.1.1795300000", kind="failed", reason="exit code 1")])
    html = browser.get("/jobs").text
    text = text_of(html)
    assert 'role="switch" aria-checked="true"' in html
    assert "failed" in text and "2.0 s" in text
    assert re.search(r"in \d+ (h|m|s)\b", text) and "+08:00" in html and "Asia/Shanghai" in html
    assert "0 of the last 1 runs succeeded" in html and "30 1 * * * Asia/Shanghai at 01:30 every day" in text
    assert "<caption>" in html and 'scope="col"' in html


def test_search_and_filter_live_in_the_address(web: Web, browser: Browser) -> None:
    web.catalog.create(document("a/one", tags=["night"]), "test")
    web.catalog.create(document("a/two", enabled=False), "test")
    assert "a/two" not in browser.get("/jobs?show=on").text
    html = browser.get("/jobs?q=night&show=on").text
    assert "a/one" in html and 'value="night"' in html and "/jobs?q=night&amp;show=off" in html
    assert "No job fits this search" in text_of(browser.get("/jobs?q=zzz").text)


def test_the_switch_pauses_and_resumes_and_comes_back(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("x"), "test")
    answer = browser.post(f"/jobs/{view.id}/switch", {"on": "", "next": "/jobs?q=x&done=resumed"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?q=x&done=paused")
    assert web.catalog.get("x").enabled is False
    page = text_of(browser.get("/jobs?q=x&done=paused").text)
    assert "fires no more until it is resumed" in page
    browser.post(f"/jobs/{view.id}/switch", {"on": "1", "next": "//evil.test"})
    assert web.catalog.get("x").enabled is True


def test_run_now_twice_from_one_page_is_one_run(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("x"), "test")
    key = re.search(r'name="key" value="([^"]+)"', browser.get("/jobs").text)
    assert key
    first = browser.post(f"/jobs/{view.id}/run", {"key": key[1]})
    assert first.status_code == 303 and first.headers["location"].startswith(f"/runs/{view.id}.1.m")
    assert browser.post(f"/jobs/{view.id}/run", {"key": key[1]}).headers["location"] == first.headers["location"]
    assert web.client.count(web.keys.run_in("")) == 1


def test_free_text_in_the_address_is_never_announced(browser: Browser) -> None:
    html = browser.get("/jobs?done=%3Cb%3Ehacked").text
    assert "hacked" not in text_of(html.split("<main")[1].split("hx-get")[0])


def test_pages_speak_chinese(web: Web, browser: Browser) -> None:
    web.catalog.create(document("x", schedule={"cron": "*/5 9-17 * * 1-5", "timezone": "Asia/Shanghai"}), "test")
    html = browser.get("/jobs", headers={"accept-language": "zh-CN"}).text
    text = text_of(html)
    assert '<html lang="zh-CN"' in html
    assert "下次触发" in text and "周一至周五，09:00 至 17:59，每 5 分钟" in text
    assert "Next fire" not in text


def test_language_theme_and_zone_are_kept_in_cookies(browser: Browser) -> None:
    answer = browser.post("/preferences", {"lang": "zh", "next": "/runs"})
    assert answer.headers["location"] == "/runs" and "crony_lang=zh" in answer.headers["set-cookie"]
    browser.post("/preferences", {"theme": "dark"})
    browser.post("/preferences", {"zone": "America/New_York"})
    html = browser.get("/jobs").text
    assert 'lang="zh-CN"' in html and 'data-bs-theme="dark"' in html and "America/New_York" in html
    for field, value in (("lang", "xx"), ("theme", "pink"), ("zone", "../../etc/passwd"), ("zone", "Mars/Olympus")):
        assert browser.post("/preferences", {field: value}).status_code == 422, value
    assert browser.post("/preferences", {"theme": "light", "next": "//evil.test"}).headers["location"] == "/jobs"


def test_the_sign_in_pages_keep_their_place_when_the_language_changes(anonymous: TestClient) -> None:
    fields = {"lang": "zh", "next": "/signin/link/abc"}
    answer = anonymous.post("/preferences", data=fields, headers={"origin": BASE})
    assert answer.headers["location"] == "/signin/link/abc"


class TestJobForm:
    """Creating and editing."""

    def test_a_filled_in_form_makes_a_job(self, web: Web, browser: Browser) -> None:
        fields = form(
            cron="30 1 * * 1-5", timezone="Asia/Shanghai", tags="money，night", env="LANG=C.UTF-8\nEMPTY=",
            params='{"region": "cn"}', retry_max="2", labels="zone=a, gpu=yes", overlap="allow",
        )  # fmt: skip
        answer = browser.post("/jobs/new", fields)
        assert answer.status_code == 303 and answer.headers["location"].endswith("?done=created")
        made = web.catalog.get("team/report").document
        assert made["action"]["command"] == ["/bin/report", "--all", "two words"]
        assert made["action"]["env"] == {"LANG": "C.UTF-8", "EMPTY": ""}
        assert made["tags"] == ["money", "night"] and made["params"] == {"region": "cn"}
        assert made["routing"]["labels"] == {"gpu": "yes", "zone": "a"} and made["retry"]["max"] == 2

    def test_a_dialect_is_kept_and_the_preview_warns_and_says_what_is_an_example(
        self, web: Web, browser: Browser
    ) -> None:
        fields = form(cron="0 H 1 ? * 2", dialect="quartz")
        preview = text_of(browser.post("/jobs/preview", fields).text)
        assert "Quartz counts weekdays from 1 = Sunday (write MON)" in preview and "H is an example here" in preview
        browser.post("/jobs/new", fields)
        view = web.catalog.get("team/report")
        assert view.document["schedule"]["dialect"] == "quartz"
        page = browser.get(f"/jobs/{view.id}/edit").text
        assert '<option value="quartz" selected>' in page and "H is an example here" not in page
        hidden = {"job": view.id} if f'name="job" value="{view.id}"' in page else {}
        assert "H is an example here" not in text_of(browser.post("/jobs/preview", fields | hidden).text)
        assert "warn" not in (refused := browser.post("/jobs/preview", form(cron="0 0 1 * * ?")).text)
        assert "dialect: quartz" in text_of(refused)

    @pytest.mark.parametrize(
        ("changes", "field", "words"),
        [
            ({"cron": "61 * * * *"}, "cron", "minute"),
            ({"schedule_kind": "every", "every": "5"}, "every", "duration"),
            ({"schedule_kind": "at", "at": "2026-12-01 09:00"}, "at", "RFC 3339"),
            ({"timezone": "Asia/Peking"}, "timezone", "zone"),
            ({"start": "2026-12-01"}, "start", "RFC 3339"),
            ({"count": "3"}, "count", "needs"),
            ({"jitter": "5"}, "jitter", "duration"),
            ({"name": "a\x08"}, "name", ""),
            ({"name": ""}, "name", ""),
            ({"command": "it's"}, "command", "quote"),
            ({"command": ""}, "command", "empty"),
            ({"shell_mode": "script"}, "script", "empty"),
            ({"cwd": "relative"}, "cwd", "absolute"),
            ({"env": "NOVALUE"}, "env", "="),
            ({"env": "LD_PRELOAD=x"}, "env", "may not be set"),
            ({"action_kind": "http", "url": "ftp://x"}, "url", "http"),
            ({"action_kind": "http", "url": "http://a/", "headers": "Host: b"}, "headers", "set by Crony"),
            ({"action_kind": "http", "url": "http://a/", "body_kind": "json", "body": "{"}, "body", "JSON"),
            ({"action_kind": "http", "url": "http://a/", "expect_status": "ok"}, "expect_status", "status codes"),
            ({"action_kind": "python", "task": "x"}, "task", "dotted"),
            ({"action_kind": "python", "task": "a.b", "args": "{}"}, "args", "list"),
            ({"params": "[1]"}, "params", "object"),
            ({"params": '{"a": 1, "a": 2}'}, "params", "twice"),
            ({"timeout": "soon"}, "timeout", "duration"),
            ({"retry_max": "many"}, "retry_max", "whole number"),
            ({"retry_max_delay": "1s"}, "retry_max_delay", "shorter"),
            ({"misfire_after": "0"}, "misfire_after", "duration"),
            ({"priority": "10"}, "priority", "between"),
            ({"labels": "zone"}, "labels", "="),
            ({"tags": "a,a"}, "tags", "twice"),
        ],
    )
    def test_an_error_stands_at_its_field_and_nothing_is_lost(
        self, web: Web, browser: Browser, changes: dict[str, str], field: str, words: str
    ) -> None:
        answer = browser.post("/jobs/new", form(description="keep <me>", owner="li@example.org", **changes))
        html = answer.text
        assert answer.status_code == 422
        assert f'id="{field}-error"' in html and words in text_of(html.split(f'id="{field}-error"')[1][:600])
        assert "keep &lt;me&gt;</textarea>" in html and value_of(html, "owner") == "li@example.org"
        assert web.catalog.list().items == []

    def test_what_belongs_to_no_field_is_said_above(self, web: Web, browser: Browser) -> None:
        web.catalog.create(document("team/report"), "test")
        answer = browser.post("/jobs/new", form())
        assert answer.status_code == 409 and "There is a job team/report already" in text_of(answer.text)
        assert value_of(answer.text, "command") == "/bin/report --all &#39;two words&#39;"

    def test_a_stale_edit_is_refused_and_kept(self, web: Web, browser: Browser) -> None:
        view = web.catalog.create(document("x"), "test")
        web.catalog.update(view.id, document("x", timeout="5m"), 1, "li")
        answer = browser.post(f"/jobs/{view.id}/edit", form(name="x", timeout="7m", revision="1"))
        assert answer.status_code == 409 and "changed by li" in text_of(answer.text)
        assert value_of(answer.text, "timeout") == "7m"
        assert web.catalog.get("x").document["timeout"] == "5m"

    def test_the_form_of_a_job_saves_the_same_job(self, web: Web, browser: Browser) -> None:
        view = web.catalog.create(
            document("x", params={"a": [1, "ü"]}, tags=["t"], priority=3, routing={"strategy": "hash"}), "test"
        )
        html = browser.get(f"/jobs/{view.id}/edit").text
        values = job_fields.fields(view.document)
        assert values is not None and value_of(html, "revision") == "1"
        fields = {**form(**values), "revision": "1"}
        assert browser.post(f"/jobs/{view.id}/edit", fields).status_code == 303
        assert web.catalog.get("x").revision == 1  # the same document is no new revision
        assert "the same node for the job" in text_of(browser.get(f"/jobs/{view.id}").text)
        assert browser.post(f"/jobs/{view.id}/edit", fields | {"strategy": "best"}).status_code == 422
        keyed = web.catalog.create(document("k", routing={"strategy": "hash", "key": "c"}), "test")
        assert job_fields.fields(keyed.document) is None, "the form cannot say it: it is edited as a document"

    def test_the_document_is_taken_as_yaml_or_json(self, web: Web, browser: Browser) -> None:
        text = "name: y\nschedule: {every: 5m}\naction:\n  kind: shell\n  script: |\n    echo a\n    echo b\n"
        assert browser.post("/jobs/new", {"mode": "document", "text": text}).status_code == 303
        assert web.catalog.get("y").document["action"]["script"] == "echo a\necho b\n"
        json_text = '{"name": "z", "action": {"kind": "python", "task": "a.b"}}'
        assert browser.post("/jobs/new", {"mode": "document", "text": json_text}).status_code == 303
        page = browser.get(f"/jobs/{web.catalog.get('y').id}/edit?mode=document").text
        assert "script: |\n    echo a" in page

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("name: [", "not YAML"), ("name: a\nname: b\n", "given twice"), ("a: &x [1]\nb: *x\n", "aliases"),
            ("!!python/object/apply:os.system [x]", "not YAML"), ("- a", "mapping"), ("", "mapping"),
            ("1: 2", "must be text"), ("name: x\naction: {kind: shell, command: [a]}\nuid: 0\n", "uid"),
            ('{"a": 1', "not JSON"),
            ("name: x\n\taction: y", "not YAML"),
        ],
    )  # fmt: skip
    def test_a_bad_document_is_kept_with_its_error(self, browser: Browser, text: str, words: str) -> None:
        answer = browser.post("/jobs/new", {"mode": "document", "text": text})
        assert answer.status_code == 422 and words in text_of(answer.text)
        shown = re.search(r'<textarea[^>]*name="text"[^>]*>\n(.*?)</textarea>', answer.text, re.DOTALL)
        assert shown and len(shown[1]) >= len(text)

    def test_the_preview_shows_ten_fires_with_offset_and_weekday(self, browser: Browser) -> None:
        headers = {"origin": BASE, "x-csrf-token": browser.csrf}
        fields = form(cron="30 1 * * 1-5", timezone="Asia/Shanghai")
        html = browser.client.post("/jobs/preview", data=fields, headers=headers).text
        assert html.count("<li>") == 10 and html.count("+08:00") >= 10 and "Mon" in html
        assert "at 01:30 on Monday to Friday (Asia/Shanghai)" in text_of(html)
        bad = browser.client.post("/jobs/preview", data=form(cron="<b>"), headers=headers).text
        assert "form-error" in bad and "<b>" not in bad

    @pytest.mark.parametrize(
        "document_",
        [
            {"schedule": {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "dst": "both"}},
            {"schedule": {"every": "90s"}},
            {"schedule": {"every": "1d", "start": "2030-01-01T00:00:00Z", "end": "2031-01-01T00:00:00Z", "count": 3}},
            {"schedule": {"cron": "0 0 * * *", "jitter": "1m30s"}},
            {"schedule": {"at": "2030-01-01T00:00:00+08:00", "timezone": "Asia/Shanghai"}},
            {"schedule": None, "enabled": False},
            {"action": {"kind": "shell", "script": "a\nb", "interpreter": "/bin/bash", "stdin": "x\n"}},
            {"action": {"kind": "http", "method": "PUT", "url": "http://a/b?c=d", "json": {"x": [1]}}},
            {"action": {"kind": "http", "url": "http://a/", "expect_status": [200, 404]}},
            {"action": {"kind": "grpc", "address": "a:1", "method": "b.C/D", "metadata": {"k": "v"}}},
            {"action": {"kind": "grpc", "address": "a:1", "handler": "x", "tls": {"ca": "b.pem"}, "request": {}}},
            {"action": {"kind": "grpc", "service": "billing", "handler": "x"}},
            {"async": {"deadline": "1h"}, "action": {"kind": "grpc", "address": "a:1", "method": "C/D", "async": True}},
            {"action": {"kind": "http", "url": "https://a/", "body": "text", "headers": {"Accept": "*/*"}}},
            {"action": {"kind": "http", "url": "https://a/", "verify_tls": False}},
            {"action": {"kind": "python", "task": "a.b", "args": [1], "kwargs": {"a": None}}},
            {"misfire": {"policy": "fire_all"}, "retry": {"max": 3, "backoff": "fixed", "jitter": False}},
            {"tags": ["a b"], "owner": "li"},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_a_form_can_say_goes_there_and_back(self, document_: dict[str, Any]) -> None:
        full = parse(document("x") | document_).document()
        values = job_fields.fields(full)
        assert values is not None
        assert parse(job_fields.document(values)).document() == full

    @pytest.mark.parametrize(
        "document_",
        [
            {"schedule": [{"every": "5m"}, {"cron": "0 2 * * *"}]},
            {"schedule": {"every": "5m", "anchor": "2026-01-01T00:00:01Z"}},
            {"routing": {"exclude": ["n1"]}},
            {"action": {"kind": "shell", "command": ["a"], "env": {"A": " padded "}}, "routing": {"exclude": ["n1"]}},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_a_form_cannot_say_is_edited_as_a_document(
        self, web: Web, browser: Browser, document_: dict[str, Any]
    ) -> None:
        assert job_fields.fields(document("x") | document_) is None
        view = web.catalog.create(document("x") | document_, "test")
        html = browser.get(f"/jobs/{view.id}/edit").text
        assert 'name="text"' in html and "more than the form can show" in html


def test_versions_are_shown_and_restored(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("x"), "li")
    web.catalog.update(view.id, document("x", timeout="5m"), 1, "wang")
    text = text_of(browser.get(f"/jobs/{view.id}?tab=versions").text)
    assert "wang" in text and "created" in text and "edited" in text
    assert "timeout: 1h" in browser.get(f"/jobs/{view.id}?tab=definition&revision=1").text
    assert browser.post(f"/jobs/{view.id}/rollback", {"to": "1", "revision": "2"}).status_code == 303
    assert web.catalog.get("x").document["timeout"] == "1h"
    assert browser.post(f"/jobs/{view.id}/rollback", {"to": "1", "revision": "2"}).status_code == 409


def test_a_deleted_job_is_gone_from_the_list_and_its_page_says_so(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("x"), "test")
    assert browser.post(f"/jobs/{view.id}/delete", {"revision": "7"}).status_code == 409
    assert browser.post(f"/jobs/{view.id}/delete", {"revision": "1"}).headers["location"] == "/jobs?done=deleted"
    assert "No jobs yet" in text_of(browser.get("/jobs").text)
    page = browser.get(f"/jobs/{view.id}").text
    assert "deleted" in text_of(page) and "Run now" not in page


def test_a_token_made_on_the_account_page_works_and_is_shown_once(browser: Browser, anonymous: TestClient) -> None:
    html = browser.post("/account/tokens", {"name": "ci", "scope": "viewer", "days": "30"}).text
    secret = re.search(r"crony_[A-Za-z0-9_-]{43}", html)
    assert secret
    headers = {"authorization": f"Bearer {secret[0]}"}
    assert anonymous.get("/api/v1/me", headers=headers).json() == {"kind": "token", "name": "ci", "role": "viewer"}
    page = browser.get("/account").text
    assert secret[0] not in page and "ci" in page
    ident = re.search(r"/account/tokens/([^/]+)/revoke", page)
    assert ident and browser.post(f"/account/tokens/{ident[1]}/revoke").status_code == 303
    assert anonymous.get("/api/v1/me", headers=headers).status_code == 401
    for fields in (
        {"name": "", "scope": "viewer"},
        {"name": "x", "scope": "root"},
        {"name": "x", "scope": "viewer", "days": "1"},
    ):
        assert browser.post("/account/tokens", fields).status_code == 422, fields


def test_htmx_gets_errors_as_a_banner_and_a_lost_session_as_a_redirect(
    browser: Browser, anonymous: TestClient, browser_as: Callable[[str], Browser]
) -> None:
    gone = browser.post("/jobs/j0/switch", {"on": "1"}, headers={"hx-request": "true"})
    assert gone.status_code == 404 and gone.headers["hx-retarget"] == "#banners" and "crony-alert" in gone.text
    lost = anonymous.get("/jobs", headers={"hx-request": "true"})
    assert (lost.status_code, lost.headers["hx-redirect"]) == (401, "/signin")


def test_unknown_addresses_are_pages_for_people_and_problems_for_programs(browser: Browser, api: Api) -> None:
    page = browser.get("/nowhere")
    assert page.status_code == 404 and "To the jobs" in page.text
    assert api("GET", "nowhere").headers["content-type"] == "application/problem+json"
    assert browser.get("/runs/j1aaaaaaaaaaaaaaaaaaa.1.9").status_code == 404


def test_static_files_are_compressed_and_kept(anonymous: TestClient, browser: Browser) -> None:
    html = browser.get("/jobs").text
    for url in re.findall(r'(?:href|src)="(/static/[^"]+)"', html):
        answer = anonymous.get(url, headers={"accept-encoding": "gzip"})
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"], url
        assert anonymous.get(url, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    assert anonymous.get("/static/css/crony.css?v=old").headers["cache-control"] == "public, max-age=300"
