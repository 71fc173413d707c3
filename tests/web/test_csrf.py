"""Requests that change something come from our own pages, with the session's token; one guard, so one test of all."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from crony.web.auth import Need, routes_of
from tests.web.conftest import BASE, Api, Browser, document
from tests.web.test_access import filled

CHANGES = {"POST", "PUT", "PATCH", "DELETE"}


def test_no_changing_route_takes_a_cookie_without_the_token(app: FastAPI, browser: Browser) -> None:
    for path, methods, need in routes_of(app):
        if need in (Need.PUBLIC, Need.ATTEMPT, Need.INSTANCE):  # these take no cookie at all (see test_callbacks)
            continue
        for method in methods & CHANGES:
            for headers in (
                {"origin": BASE},
                {"origin": BASE, "x-csrf-token": "0" * 64},
                {"sec-fetch-site": "same-origin"},
            ):
                answer = browser.client.request(method, filled(path), headers=headers)
                assert answer.status_code == 403, (method, path, headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://crony.test.evil.test"},
        {"origin": "http://crony.test:81"},
        {"sec-fetch-site": "cross-site", "origin": BASE},
        {"sec-fetch-site": "same-site", "origin": BASE},
    ],
)
def test_a_foreign_page_changes_nothing_even_with_the_token(browser: Browser, headers: dict[str, str]) -> None:
    answer = browser.client.post("/signout", data={"_csrf": browser.csrf}, headers=headers)
    assert answer.status_code == 403
    assert browser.get("/jobs").status_code == 200


@pytest.mark.parametrize("headers", [{"origin": BASE}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}])
def test_our_own_page_with_the_token_may(browser: Browser, headers: dict[str, str]) -> None:
    answer = browser.client.post("/signout", data={"_csrf": browser.csrf}, headers=headers)
    assert answer.status_code == 303


def test_the_api_takes_the_session_of_a_browser_with_the_token_in_a_header(browser: Browser) -> None:
    headers = {"origin": BASE, "x-csrf-token": browser.csrf}
    assert browser.client.post("/api/v1/jobs", json=document(), headers=headers).status_code == 201
    assert browser.client.post("/api/v1/jobs", json=document("b"), headers={"origin": BASE}).status_code == 403


def test_a_bearer_token_needs_neither(api: Api) -> None:
    assert api("POST", "jobs", json=document(), headers={"origin": "http://evil.test"}).status_code == 201


def test_a_bad_bearer_token_beside_a_good_cookie_is_refused(browser: Browser) -> None:
    answer = browser.client.post("/api/v1/jobs", json=document(), headers={"authorization": "Bearer x", "origin": BASE})
    assert answer.status_code == 401


def test_reading_routes_change_nothing_by_get(app: FastAPI, browser: Browser) -> None:
    for path in ("/signout", "/preferences", "/jobs/x/run", "/jobs/x/switch", "/runs/j1.1.1/cancel", "/jobs/x/delete"):
        assert browser.get(path).status_code in (404, 405), path
