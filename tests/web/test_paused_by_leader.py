"""A job that its leader paused after failures: said with the reason everywhere, ended as any pause is."""

from __future__ import annotations

import time

from crony.clock import rfc3339
from crony.domain.run import Done
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, document, text_of


def test_it_is_said_and_ended(web: Web, api: Api, browser: Browser) -> None:
    made = api("POST", "jobs", json=document("night", schedule={"every": "1m"}, pause_after=2)).json()
    assert made["document"]["pause_after"] == 2 and made["held"] is None
    run = f"{made['id']}.1.1700000000"
    why = f"2 failures in a row, the last one run {run}"
    upto = int(time.time()) - 600
    held = Done(upto, held=why, held_for="failures", held_revision=1, held_at=upto + 0.5)
    web.client.put(web.keys.done(made["id"]), held.encode())

    shown = api("GET", "jobs/night").json()
    assert (shown["enabled"], shown["next_fire_at"], shown["state"]) == (True, None, "held")
    assert [each["state"] for each in api("GET", "jobs?enabled=true").json()["items"]] == ["held"]
    assert shown["held"] == {"reason": why, "since": rfc3339(upto + 0.5)}
    page = text_of(browser.get(f"/jobs/{made['id']}").text)
    assert f"until it is resumed or edited: {why}" in page and "Resume" in page
    assert "paused by its leader" in browser.get("/jobs").text
    browser.client.cookies.set("crony_lang", "zh")
    assert "连续 2 次失败，最后一次是运行" in text_of(browser.get(f"/jobs/{made['id']}").text)

    resumed = api("POST", "jobs/night:resume").json()
    assert (resumed["held"], resumed["revision"]) == (None, 2) and resumed["next_fire_at"]
    answer = api("GET", f"jobs/night/why?at={rfc3339((upto // 60 + 2) * 60)}").json()
    assert answer["verdict"] in ("skipped", "did_not_exist") and (answer["skip"] or {}).get("detail", why) == why


def test_why_it_does_not_fire_now(web: Web, api: Api) -> None:
    made = api("POST", "jobs", json=document("night", schedule={"every": "1m"}, pause_after=2)).json()
    now = time.time()
    held = Done(int(now), held="2 failures in a row", held_for="failures", held_revision=1, held_at=now)
    web.client.put(web.keys.done(made["id"]), held.encode())
    answer = api("GET", f"jobs/night/why?at={rfc3339((int(now) // 60 + 5) * 60)}").json()
    assert answer["verdict"] == "paused" and "The leader paused the job" in answer["sentence"]


def test_the_form_has_it(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("night", pause_after=4), "li")
    form = browser.get(f"/jobs/{view.id}/edit").text
    assert 'name="pause_after" type="text" value="4"' in form
