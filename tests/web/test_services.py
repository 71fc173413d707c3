"""Services register, give signs of life that need no database, are shown, and are taken off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from crony.store import accounts
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, text_of

PATH = "services/billing/instances"
HERE = {"address": "10.0.0.7:50051"}


@pytest.fixture
def billing(web: Web, anonymous: TestClient) -> Api:
    """A token of the service billing."""
    return Api(anonymous, accounts.create_token(web.db, "billing/one", "service", actor="test")[0])


def secret_of(answer: Any) -> dict[str, str]:
    assert answer.status_code == 201, answer.text
    return {"authorization": f"Bearer {answer.json()['secret']}"}


def test_an_instance_registers_lives_changes_and_leaves(web: Web, billing: Api, api: Api) -> None:
    answer = billing("POST", PATH, json={**HERE, "weight": 3, "version": "1.2", "ttl": "30s"})
    own = secret_of(answer)
    assert answer.json()["instance"] == "10.0.0.7:50051" and answer.json()["by"] == "token:billing/one"
    shown = api("GET", "services/billing").json()["instances"]
    assert [(one["address"], one["weight"], one["healthy"], one["ttl"]) for one in shown] == [
        ("10.0.0.7:50051", 3, True, "30s")
    ]
    key = web.keys.svc("billing", "10.0.0.7:50051")
    first = web.client.get(key)
    assert first is not None and first.lease and b"s1." not in first.value, "leased, and no secret in it"
    beat = f"{PATH}/10.0.0.7:50051:heartbeat"
    assert billing("POST", beat, json={}, headers=own).status_code == 200
    assert web.client.get(key) == first, "merely living writes nothing"
    assert billing("POST", beat, json={"healthy": False, "weight": 0}, headers=own).json()["healthy"] is False
    changed = web.client.get(key)
    assert changed is not None and changed.lease == first.lease and changed.mod > first.mod
    assert billing("POST", f"{PATH}/10.0.0.7:50051:leave", headers=own).status_code == 204
    assert api("GET", "services").json()["items"] == [] and api("GET", "services/billing").status_code == 404
    assert billing("POST", beat, json={}, headers=own).status_code == 401, "who was taken off is not put back by a sign"


def test_a_lease_that_ended_is_replaced_by_registering_again(web: Web, billing: Api) -> None:
    own = secret_of(billing("POST", PATH, json=HERE))
    found = web.client.get(web.keys.svc("billing", HERE["address"]))
    assert found is not None
    web.client.revoke(found.lease)
    beat = f"{PATH}/{HERE['address']}:heartbeat"
    assert billing("POST", beat, json={}, headers=own).status_code == 401
    again = secret_of(billing("POST", PATH, json=HERE))
    assert billing("POST", beat, json={}, headers=own).status_code == 401, "the old secret is no good any more"
    assert billing("POST", beat, json={}, headers=again).status_code == 200


def test_signs_of_life_need_no_database(web: Web, billing: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    own = secret_of(billing("POST", PATH, json=HERE))

    def away(*_: Any, **__: Any) -> Any:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(accounts, "authenticate_token", away)
    monkeypatch.setattr(type(web.db), "read", away, raising=False)
    assert billing("POST", f"{PATH}/{HERE['address']}:heartbeat", json={}, headers=own).status_code == 200


def test_who_may_register(web: Web, billing: Api, api_as: Callable[[str], Api], anonymous: TestClient) -> None:
    refused = billing("POST", "services/shop/instances", json=HERE)
    assert refused.status_code == 403 and "This token may not register shop" in refused.text
    other = secret_of(api_as("operator")("POST", "services/shop/instances", json=HERE))
    own = secret_of(billing("POST", PATH, json=HERE))
    for headers in (other, {"authorization": "Bearer s1." + "A" * 43}, billing.headers):
        for verb in ("heartbeat", "leave"):
            answer = anonymous.post(f"/api/v1/{PATH}/{HERE['address']}:{verb}", json={}, headers=headers)
            assert answer.status_code == 401
    assert billing("POST", f"{PATH}/{HERE['address']}:heartbeat", json={}, headers=own).status_code == 200
    assert billing("DELETE", f"{PATH}/{HERE['address']}").status_code == 403
    assert billing("GET", "services").status_code == 403, "it registers, and reads nothing"


@pytest.mark.parametrize(
    ("service", "body", "field"),
    [
        ("Billing", HERE, "service"),
        ("billing", {}, "address"),
        ("billing", {"address": "10.0.0.7"}, "address"),
        ("billing", {"address": "169.254.169.254:80"}, "address"),
        ("billing", {"address": "http://10.0.0.7:1"}, "address"),
        ("billing", {**HERE, "protocol": "ftp"}, "protocol"),
        ("billing", {**HERE, "weight": 1001}, "weight"),
        ("billing", {**HERE, "ttl": "1s"}, "ttl"),
        ("billing", {**HERE, "instance": "a/b"}, "instance"),
        ("billing", {**HERE, "wait": 1}, "wait"),
    ],
)
def test_bad_registrations_name_the_field(web: Web, api: Api, service: str, body: Any, field: str) -> None:
    answer = api("POST", f"services/{service}/instances", json=body)
    assert answer.status_code == 422 and answer.json()["field"] == field, answer.text
    assert not web.client.list(web.keys.services).kvs


def test_the_page(web: Web, api: Api, browser: Browser) -> None:
    assert "No service has registered" in text_of(browser.get("/services").text)
    secret_of(api("POST", PATH, json=HERE))
    sick = {"address": "10.0.0.8:50051", "healthy": False, "version": "<b>2"}
    secret_of(api("POST", PATH, json=sick))
    page = browser.get("/services")
    assert "&lt;b&gt;2" in page.text
    assert "takes calls" in text_of(page.text) and "not well" in text_of(page.text)
    assert "自报不健康" in text_of(browser.get("/services", headers={"accept-language": "zh"}).text)
    assert browser.post("/services/billing/10.0.0.8%3A50051").status_code == 303
    assert [one["address"] for one in api("GET", "services/billing").json()["instances"]] == [HERE["address"]]
