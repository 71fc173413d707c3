"""Closed by default: every route declares its need, and each need is enforced for every kind of visitor."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from crony.store import accounts, signin
from crony.web.app import create_app
from crony.web.auth import Need, check_routes, routes_of
from crony.web.wiring import Web
from tests.web.conftest import BASE, Api, Browser

PUBLIC = {
    "/", "/favicon.ico", "/livez", "/readyz", "/signin", "/signin/link/{secret}", "/preferences", "/static/{name:path}",
}  # fmt: skip
RANK = {"viewer": 1, "operator": 2, "admin": 3}


def filled(path: str) -> str:
    """A route's path with something in its places."""
    return re.sub(r"\{[^}]+\}", "j1.1.1700000000", path)


def test_every_route_declares_what_it_needs(app: FastAPI) -> None:
    routes = list(routes_of(app))
    assert len(routes) > 50
    assert [path for path, _, need in routes if need is None] == []


def test_an_app_with_a_route_that_declares_nothing_does_not_start(web: Web) -> None:
    app = create_app(web.settings, web=web)
    app.get("/forgotten")(lambda: None)
    with pytest.raises(RuntimeError, match="/forgotten"):
        check_routes(app)


def test_only_these_are_public(app: FastAPI) -> None:
    assert {path for path, _, need in routes_of(app) if need is Need.PUBLIC} == PUBLIC


def test_strangers_get_nothing(app: FastAPI, anonymous: TestClient) -> None:
    for path, methods, need in routes_of(app):
        if need is Need.PUBLIC:
            continue
        for method in methods:
            answer = anonymous.request(method, filled(path), headers={"origin": BASE})
            programs = path.startswith("/api/") or path in ("/version", "/metrics")
            assert answer.status_code == (401 if programs else 303), (method, path)
            if not programs:
                assert answer.headers["location"].startswith("/signin"), (method, path)


def test_a_program_without_a_token_is_told_to_bring_one(anonymous: TestClient) -> None:
    for method, path in (("POST", "jobs"), ("PUT", "control"), ("DELETE", "jobs/x"), ("PATCH", "nodes/x")):
        answer = anonymous.request(method, f"/api/v1/{path}", json={})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="crony"'), answer.text


def test_each_role_gets_its_routes_and_no_other(app: FastAPI, api_as: Callable[[str], Api]) -> None:
    clients = {scope: api_as(scope) for scope in ("viewer", "operator", "admin", "node", "service")}
    for path, methods, need in routes_of(app):
        if not path.startswith("/api/v1/") or need is None or need in (Need.PUBLIC, Need.ANYBODY):
            continue
        if need in (Need.ATTEMPT, Need.INSTANCE):  # no role: only their own secret (test_callbacks, test_services)
            for method in methods:
                path_ = filled(path).removeprefix("/api/v1/")
                assert {api(method, path_).status_code for api in clients.values()} == {401}
            continue
        for scope, api in clients.items():
            if need is Need.NODE:
                allowed = scope in ("node", "admin")
            elif need is Need.SERVICE:
                allowed = scope in ("service", "operator", "admin")
            else:
                allowed = scope not in ("node", "service") and RANK[scope] >= RANK[need.value]
            for method in methods:
                answer = api(method, filled(path).removeprefix("/api/v1/"))
                assert (answer.status_code == 403) is not allowed, (method, path, scope, answer.text)


def test_pages_of_administrators_are_not_for_operators(browser_as: Callable[[str], Browser]) -> None:
    operator, viewer = browser_as("operator"), browser_as("viewer")
    assert operator.get("/jobs/new").status_code == 403
    assert operator.post("/jobs/new", {"name": "x"}).status_code == 403
    assert operator.post("/account/tokens", {"name": "x", "scope": "admin"}).status_code == 403
    assert viewer.get("/jobs").status_code == 200
    assert viewer.post("/nodes/n1", {"drain": "1"}).status_code == 403
    assert "New job" not in viewer.get("/jobs").text


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer crony_",
        "Basic YWRtaW46YWRtaW4=",
        "bearer\tx",
        "Bearer crony_" + "a" * 200,
        "Bearer crony_%00",
    ],
)
def test_bad_credentials_are_all_the_same(anonymous: TestClient, header: str) -> None:
    answer = anonymous.get("/api/v1/jobs", headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_revoked_token_is_refused_at_once(web: Web, anonymous: TestClient) -> None:
    secret, view = accounts.create_token(web.db, "ci", "viewer", actor="test")
    headers = {"authorization": f"Bearer {secret}"}
    assert anonymous.get("/api/v1/jobs", headers=headers).status_code == 200
    accounts.revoke_token(web.db, view.id, actor="test")
    assert anonymous.get("/api/v1/jobs", headers=headers).status_code == 401


def test_a_disabled_user_is_out_at_once(web: Web, browser_as: Callable[[str], Browser]) -> None:
    viewer = browser_as("viewer")
    assert viewer.get("/jobs").status_code == 200
    accounts.change_user(web.db, "viewer", disabled=True, actor="test")
    assert viewer.get("/jobs").status_code == 303


def test_health_says_little_to_strangers_and_more_to_those_signed_in(anonymous: TestClient, browser: Browser) -> None:
    assert anonymous.get("/livez").text == "alive\n"
    assert anonymous.get("/readyz?verbose").text == "ready\n"
    assert "etcd version" in browser.get("/readyz?verbose=1").text
    assert anonymous.get("/version").status_code == 401
    assert anonymous.get("/metrics").status_code == 401


def test_the_description_of_the_api_is_for_those_signed_in_and_names_every_route(app: FastAPI, api: Api) -> None:
    described = api("GET", "openapi.json").json()
    paths = {path for path, _, _ in routes_of(app) if path.startswith("/api/v1/") and not path.endswith("openapi.json")}
    assert set(described["paths"]) == paths
    assert "delay" in str(described["paths"]["/api/v1/jobs/{ref}:run"])


def test_there_is_no_page_of_the_framework(anonymous: TestClient) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/api/v1/docs"):
        assert anonymous.get(path).status_code == 404


def test_every_answer_carries_the_security_headers(anonymous: TestClient, browser: Browser, api: Api) -> None:
    answers = [
        anonymous.get("/signin"),
        anonymous.get("/nowhere"),
        browser.get("/jobs"),
        api("GET", "jobs"),
        api("GET", "x"),
    ]
    for answer in answers:
        csp = answer.headers["content-security-policy"]
        assert "default-src 'none'" in csp and "unsafe" not in csp and "frame-ancestors 'none'" in csp
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_pages_hold_nothing_that_the_policy_forbids(browser: Browser) -> None:
    for path in ("/jobs", "/jobs/new", "/runs", "/nodes", "/queues", "/account", "/signin"):
        html = browser.get(path).text
        assert not re.search(
            r"\sstyle=|<style|\son[a-z]+=|hx-on|javascript:|https?://(?!crony\.test|127|service\.)", html
        ), path
        assert not re.search(r"<script(?![^>]*\ssrc=)", html), path


class TestSignIn:
    """Coming in with a browser."""

    def post(self, client: TestClient, path: str, fields: dict[str, str], **headers: str) -> Any:
        """A form from our own page."""
        return client.post(path, data=fields, headers={"origin": BASE, **headers})

    def test_name_and_password_open_a_session(self, anonymous: TestClient) -> None:
        fields = {"name": "Admin", "password": "three quiet green lamps", "next": "/runs?show=bad"}
        answer = self.post(anonymous, "/signin", fields)
        assert (answer.status_code, answer.headers["location"]) == (303, "/runs?show=bad")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie and "Domain" not in cookie
        assert anonymous.get("/jobs").status_code == 200

    def test_over_https_the_cookie_is_secure_and_bound_to_the_host(self, app: FastAPI) -> None:
        client = TestClient(app, base_url="https://crony.test", follow_redirects=False)
        fields = {"name": "admin", "password": "three quiet green lamps"}
        answer = client.post("/signin", data=fields, headers={"origin": "https://crony.test"})
        assert (
            answer.headers["set-cookie"].startswith("__Host-crony_session=")
            and "Secure" in answer.headers["set-cookie"]
        )
        assert "strict-transport-security" in answer.headers
        assert client.get("/jobs").status_code == 200

    @pytest.mark.parametrize(
        "target",
        ["//evil.test/", "https://evil.test/", "/\\evil.test", "javascript:alert(1)", "/signout", "\t//evil", "/a\nb"],
    )
    def test_sign_in_leads_nowhere_else(self, anonymous: TestClient, target: str) -> None:
        fields = {"name": "admin", "password": "three quiet green lamps", "next": target}
        assert self.post(anonymous, "/signin", fields).headers["location"] == "/jobs"

    @pytest.mark.parametrize(
        ("name", "password"),
        [("admin", "wrong"), ("nobody", "wrong"), ("admin", ""), ("", ""), ("x" * 300, "\u00e9" * 900)],
    )
    def test_a_wrong_one_says_nothing_about_the_name(self, anonymous: TestClient, name: str, password: str) -> None:
        answer = self.post(anonymous, "/signin", {"name": name, "password": password})
        assert answer.status_code == 401
        assert "Name or password is not right" in answer.text
        assert "set-cookie" not in answer.headers

    def test_many_wrong_ones_are_slowed_down_and_others_are_not(self, app: FastAPI, anonymous: TestClient) -> None:
        codes = [
            self.post(anonymous, "/signin", {"name": "viewer", "password": f"wrong {n}"}).status_code for n in range(10)
        ]
        assert codes[0] == 401 and codes[-1] == 429
        fields = {"name": "admin", "password": "three quiet green lamps"}
        assert self.post(anonymous, "/signin", fields).status_code == 303
        elsewhere = TestClient(app, base_url=BASE, follow_redirects=False, client=("192.0.2.7", 5))
        fields = {"name": "viewer", "password": "three quiet green lamps"}
        assert self.post(elsewhere, "/signin", fields).status_code == 303

    def test_too_long_a_form_is_refused(self, anonymous: TestClient) -> None:
        assert self.post(anonymous, "/signin", {"name": "admin", "password": "x" * 1_000_000}).status_code == 413

    def test_signing_out_ends_the_session_on_the_server(self, browser: Browser) -> None:
        kept = browser.secret
        assert browser.post("/signout").status_code == 303
        browser.client.cookies.set("crony_session", kept)
        assert browser.get("/jobs").status_code == 303

    def test_a_changed_password_ends_every_session(self, browser: Browser) -> None:
        fields = {"old": "three quiet green lamps", "password": "four loud red horses", "again": "four loud red horses"}
        assert browser.post("/account/password", fields | {"again": "x"}).status_code == 422
        assert browser.post("/account/password", fields | {"old": "wrong"}).status_code == 422
        assert browser.post("/account/password", fields).headers["location"] == "/signin?done=password"
        assert browser.get("/jobs").status_code == 303


def test_the_set_up_link_makes_the_first_administrator_once(tmp_path: Any, etcd: Any, keys: Any) -> None:
    from tests.web.conftest import web_settings

    parts = Web(web_settings(etcd.endpoint, keys.namespace, tmp_path))
    parts.upgrade()
    path = signin.one_time_link(parts.db, BASE).removeprefix(BASE)
    client = TestClient(create_app(parts.settings, web=parts), base_url=BASE, follow_redirects=False)
    page = client.get(path)
    assert page.status_code == 200 and "first administrator" in page.text
    fields = {"name": "li", "password": "three quiet green lamps", "again": "three quiet green lamps"}
    headers = {"origin": BASE}
    assert client.post(path, data=fields | {"again": "different"}, headers=headers).status_code == 422
    short = client.post(path, data=fields | {"password": "short", "again": "short"}, headers=headers)
    assert short.status_code == 422 and "at least 10" in short.text and 'value="li"' in short.text
    assert client.post(path, data=fields).status_code == 403  # not from our page
    done = client.post(path, data=fields, headers=headers)
    assert done.status_code == 303 and done.headers["location"] == "/jobs"
    assert client.get("/account").status_code == 200
    again = TestClient(create_app(parts.settings, web=parts), base_url=BASE, follow_redirects=False)
    assert again.get(path).status_code == 401
    assert again.post(path, data=fields, headers=headers).status_code == 401
    parts.close()
