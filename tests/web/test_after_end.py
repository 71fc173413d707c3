"""A delay after the end, as people see it: what is known of the next fire, and that the others are not."""

from __future__ import annotations

from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.outcome import Outcome
from crony.domain.run import Done
from crony.store import archive
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, document, text_of

DELAY = {"every": "5m", "after": "end"}


def test_what_is_known_of_its_fires(web: Web, api: Api, browser: Browser) -> None:
    asked = api("POST", "fires:preview", json={"schedule": DELAY}).json()
    assert (asked["fires"], asked["known"]) == ([], False)
    assert asked["words"] == "5 minutes after the end of the run before"
    told = api("POST", "schedule:explain", json={"schedule": DELAY}).json()
    assert told["words"]["zh"] == "上次运行结束后 5 分钟"

    made = api("POST", "jobs", json=document("rest", schedule=DELAY)).json()
    since = web.catalog.get("rest").standing
    assert since is not None and since.next_at is not None and made["next_fire_at"] == rfc3339(since.next_at)
    fires = api("GET", "jobs/rest/fires?n=5").json()
    assert [fire["at"] for fire in fires["fires"]] == [made["next_fire_at"]] and fires["known"] is False
    page = text_of(browser.get(f"/jobs/{made['id']}").text)
    assert "5 minutes after the end of the run before" in page and "not known beforehand" in page

    run = ids.fire_run_id(made["id"], 1, since.next_at)
    began = since.next_at - 300
    web.client.put(web.keys.done(made["id"]), Done(since.next_at, next_since=began, awaits=run).encode())
    shown = api("GET", "jobs/rest").json()
    assert (shown["awaits"], shown["next_fire_at"]) == (run, None)
    assert api("GET", "jobs/rest/fires").json()["fires"] == []
    assert run in browser.get(f"/jobs/{made['id']}").text and run in browser.get("/jobs").text
    assert api("POST", "jobs/rest:pause").json()["awaits"] is None, "a pause ends the waiting"


def test_why_it_did_not_run_between_two_fires(web: Web, api: Api, browser: Browser) -> None:
    view = web.catalog.create(document("rest", schedule=DELAY), "li")
    cursor = web.client.get(web.keys.done(view.id))
    assert cursor is not None
    since = Done.read(cursor.value).upto_at
    fire = since + 300
    web.client.put(web.keys.done(view.id), Done(fire, next_since=since, next_at=fire + 400).encode())
    run = ids.fire_run_id(view.id, 1, fire)
    out = Outcome(run, view.id, view.name, 1, 1, 1, "succeeded", True, "schedule", fire + 99.5, fire_at=fire,
                  requested_at=float(fire), started_at=fire + 0.5)  # fmt: skip
    archive.write(web.db, [out])
    found = api("GET", f"jobs/rest/why?at={rfc3339(fire + 150)}").json()
    assert found["verdict"] == "not_due" and run in found["sentence"] and "none was due then" in found["sentence"]
    assert (found["fire_before"], found["fire_after"]) == (rfc3339(fire), rfc3339(fire + 400))
    web.client.put(web.keys.done(view.id), Done(fire, next_since=since, awaits=run).encode())
    assert f"waits for the end of run {run}" in api("GET", f"jobs/rest/why?at={rfc3339(fire + 150)}").json()["sentence"]


def test_the_form_says_it_too(web: Web, browser: Browser) -> None:
    view = web.catalog.create(document("rest", schedule=DELAY), "li")
    form = browser.get(f"/jobs/{view.id}/edit").text
    assert 'value="end" selected' in form
    fields = {"mode": "form", "schedule_kind": "every", "every": "5m", "counted_from": "end"}
    preview = browser.post("/jobs/preview", fields)
    assert "not known beforehand" in text_of(preview.text).lower()
