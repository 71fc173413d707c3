"""The console's pages: what they show, in both languages."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.testclient import TestClient

from crony.store import archive
from crony.web.wiring import Web
from tests.web.conftest import BASE, Api, Browser, document, text_of
from tests.web.test_runs import outcome


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
