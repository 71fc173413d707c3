"""A web that finds etcd restored uses it no more, says so everywhere, and goes on when somebody has recovered it."""

from __future__ import annotations

from crony.domain.mark import Mark, Seen
from crony.errors import Halted
from crony.etcd.client import Client
from crony.store import marks
from crony.web.wiring import Web
from tests.helpers.wait import until
from tests.web.conftest import Api, Browser, text_of


def test_a_restored_etcd_is_said_and_not_used(web: Web, api: Api, browser: Browser) -> None:
    plain = Client(web.settings.etcd_endpoints)
    plain.put(web.keys.mark, Mark(0, "now", 1.0).encode())
    assert browser.get("/readyz").text == "ready\n"
    marks.keep(web.db, web.keys.namespace, Seen(0, "later", plain.revision + 1000, 2e9, plain.revision + 1000))
    web.health.forget()
    answer = browser.get("/readyz")
    assert answer.status_code == 503 and answer.text == "etcd: halted, it was restored\n"
    assert "etcd: etcd's data went back in time" in browser.get("/readyz?verbose=1").text
    for page in ("/jobs", "/nodes", "/account"):
        assert "until an administrator runs crony recover" in text_of(browser.get(page).text), page
    assert "在管理员运行 crony recover 之前" in browser.get("/jobs", headers={"accept-language": "zh"}).text
    assert "crony_halted 1.0" in api.client.get("/metrics", headers=api.headers).text
    for method, path, body in (("GET", "centres", None), ("PUT", "control", {"stop": True})):
        refused = api(method, path, **({"json": body} if body else {}))
        assert refused.status_code == 503 and "crony recover" in refused.text, path
    assert plain.get(web.keys.control) is None, "nothing was written"

    plain.put(web.keys.mark, Mark(1, "recovered", 1.0).encode())
    web.health.forget()
    assert browser.get("/readyz").text == "ready\n"
    until(lambda: "crony recover" not in browser.get("/jobs").text, 10, "what was read before to be forgotten")
    assert api("PUT", "control", json={"stop": True}).status_code == 200
    plain.close()


def test_a_web_that_only_programs_call_goes_on_after_a_recovery_too(web: Web, api: Api) -> None:
    plain = Client(web.settings.etcd_endpoints)
    plain.put(web.keys.mark, Mark(0, "now", 1.0).encode())
    web.health()
    web.client.halt(Halted("etcd's data went back in time"))  # found out by a call, nobody looks at pages
    assert api("PUT", "control", json={"stop": True}).status_code == 503
    plain.put(web.keys.mark, Mark(1, "recovered", 1.0).encode())
    until(lambda: api("PUT", "control", json={"stop": True}).status_code == 200, 20, "it to go on", every=0.2)
    plain.close()
