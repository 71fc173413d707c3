"""`/api/v1/jobs` over a real etcd and SQLite: saving, revisions, fires, asking for runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from crony.domain.livejob import LiveJob
from crony.domain.run import Request
from crony.domain.schedule import parse_schedule
from crony.domain.signing import peek
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, document, text_of


def test_a_job_is_created_live_and_found_by_id_and_name(api: Api) -> None:
    made = api("POST", "jobs", json=document("billing/close-day"))
    assert made.status_code == 201
    body = made.json()
    assert made.headers["etag"] == '"1"' and made.headers["location"] == f"/api/v1/jobs/{body['id']}"
    assert (body["revision"], body["live_revision"], body["enabled"], body["last_run"]) == (1, 1, True, None)
    assert body["document"]["schedule"] == {"cron": "30 1 * * *", "timezone": "Asia/Shanghai", "dst": "once"}
    assert body["next_fire_at"].endswith("17:30:00+00:00")
    assert (
        0 < (datetime.fromisoformat(body["live_from"]) - datetime.fromisoformat(body["created_at"])).total_seconds() < 9
    )
    assert body.pop("taken_in") is False, "nobody leads here"
    read = api("GET", f"jobs/{body['id']}").json()
    assert read == api("GET", "jobs/billing%2Fclose-day").json() and read.pop("taken_in") is None and read == body
    assert api("GET", "jobs/billing/close-day").status_code == 404


@pytest.mark.parametrize("name", ["a:run", "a:pause", "x/fires", "100%", "名称/作业", "a b+c", "q?x=1", "a#b", "a&b"])
def test_names_with_marks_of_urls_reach_their_job(api: Api, name: str) -> None:
    made = api("POST", "jobs", json=document(name))
    assert made.status_code == 201, made.text
    segment = quote(name, safe="")
    assert api("GET", f"jobs/{segment}").json()["name"] == name
    assert api("GET", f"jobs/{segment}/fires").status_code == 200
    assert api("POST", f"jobs/{segment}:pause").json()["enabled"] is False
    assert api("POST", f"jobs/{segment}:run").status_code == 202
    assert api("DELETE", f"jobs/{segment}").status_code == 204


def test_a_name_is_taken_once(api: Api) -> None:
    assert api("POST", "jobs", json=document("x")).status_code == 201
    again = api("POST", "jobs", json=document("x"))
    assert again.status_code == 409 and again.json()["hint"]


def test_an_edit_needs_the_revision_it_was_made_from(api: Api) -> None:
    ident = api("POST", "jobs", json=document("x")).json()["id"]
    change = document("x", timeout="5m")
    assert api("PUT", f"jobs/{ident}", json=change).status_code == 428
    assert api("PUT", f"jobs/{ident}", json=change, headers={"if-match": '"7"'}).status_code == 412
    assert api("PUT", f"jobs/{ident}", json=change, headers={"if-match": "1"}).status_code == 412
    done = api("PUT", f"jobs/{ident}", json=change, headers={"if-match": '"1"'})
    assert (done.status_code, done.headers["etag"], done.json()["document"]["timeout"]) == (200, '"2"', "5m")
    assert done.json()["live_revision"] == 2
    assert done.json()["live_from"] == api("GET", f"jobs/{ident}").json()["live_from"]
    assert api("PUT", f"jobs/{ident}", json=document("x"), headers={"if-match": '"1"'}).status_code == 412
    assert api("PUT", f"jobs/{ident}", json=document("x"), headers={"if-match": "*"}).json()["revision"] == 3
    assert [v["revision"] for v in api("GET", f"jobs/{ident}/versions").json()["items"]] == [3, 2, 1]
    back = api("POST", f"jobs/{ident}:rollback", json={"to": 2})
    assert back.json()["document"]["timeout"] == "5m" and back.json()["revision"] == 4


def test_pausing_and_resuming_and_deleting(api: Api, browser: Browser) -> None:
    ident = api("POST", "jobs", json=document("x")).json()["id"]
    paused = api("POST", f"jobs/{ident}:pause").json()
    assert (paused["enabled"], paused["next_fire_at"], paused["live_revision"]) == (False, None, 2)
    assert api("POST", f"jobs/{ident}:resume").json()["enabled"] is True
    until = api("POST", f"jobs/{ident}:pause", json={"until": "2099-01-01T00:00:00+08:00"}).json()
    assert until["enabled"] and until["paused_until"] == until["document"]["paused_until"]
    assert until["document"]["paused_until"] == "2098-12-31T16:00:00+00:00"
    assert until["next_fire_at"] > "2098-12-31T16" and until["live_revision"] == 4
    page = text_of(browser.get(f"/jobs/{ident}").text)
    assert "Paused until" in page and "Resume" in page and "end of the pause" in page
    for wrong in ("2020-01-01T00:00:00Z", "tomorrow", "2099-01-01T00:00:00"):
        assert api("POST", f"jobs/{ident}:pause", json={"until": wrong}).status_code == 422, wrong
    assert api("POST", f"jobs/{ident}:resume").json()["document"]["paused_until"] is None
    assert api("DELETE", f"jobs/{ident}", headers={"if-match": '"1"'}).status_code == 412
    assert api("DELETE", f"jobs/{ident}", headers={"if-match": '"5"'}).status_code == 204
    assert api("DELETE", f"jobs/{ident}").status_code == 404
    assert api("GET", "jobs").json()["items"] == []
    assert api("POST", f"jobs/{ident}:run").status_code in (404, 409)


def test_lists_are_searched_and_paged(api: Api) -> None:
    for number in range(5):
        api(
            "POST",
            "jobs",
            json=document(f"team/job-{number}", tags=["night"] if number % 2 else [], enabled=number != 3),
        )
    first = api("GET", "jobs?limit=2").json()
    second = api("GET", f"jobs?limit=2&cursor={first['next_cursor']}").json()
    third = api("GET", f"jobs?limit=2&cursor={second['next_cursor']}").json()
    names = [job["name"] for page in (first, second, third) for job in page["items"]]
    assert names == [f"team/job-{number}" for number in range(5)] and third["next_cursor"] is None
    assert [job["name"] for job in api("GET", "jobs?q=night").json()["items"]] == ["team/job-1", "team/job-3"]
    assert [job["name"] for job in api("GET", "jobs?enabled=false").json()["items"]] == ["team/job-3"]
    assert api("GET", "jobs?q=%25").json()["items"] == [] and api("GET", "jobs?q=_ob").json()["items"] == []
    assert api("GET", f"runs?cursor={first['next_cursor']}").status_code == 422


def test_fires_are_previewed_with_offset_weekday_and_words(api: Api) -> None:
    body = {"schedule": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}}
    found = api("POST", "fires:preview?n=3&after=2026-10-23T12:00:00Z", json=body).json()
    assert found["words"] == "at 02:30 every day (Europe/Berlin)" and found["timezone"] == "Europe/Berlin"
    assert [(fire["local"], fire["offset"], fire["weekday"]) for fire in found["fires"]] == [
        ("2026-10-24T02:30:00+02:00", "+02:00", "Sat"),
        ("2026-10-25T02:30:00+02:00", "+02:00", "Sun"),
        ("2026-10-26T02:30:00+01:00", "+01:00", "Mon"),
    ]
    assert api("POST", "fires:preview", json={"schedule": {"cron": "99 * * * *"}}).json()["field"] == "schedule.cron"
    assert api("POST", "fires:preview", json={}).json()["field"] == "schedule"
    assert api("POST", "fires:preview", json={"schedule": {"every": "5m"}, "nmae": "x"}).status_code == 422


def test_fires_of_a_saved_job_are_those_that_a_centre_reads(api: Api, browser: Browser, web: Web) -> None:
    schedule = {"every": "1h", "jitter": "59m", "end": "2199-01-01T00:00:00Z"}
    made = api("POST", "jobs", json=document("x", schedule=schedule)).json()
    kv = web.client.get(web.keys.job(made["id"]))
    assert kv is not None
    live = LiveJob.read(peek(kv.value))
    due = live.due_between(live.since_at, live.since_at + 7200, 9)
    after = datetime.fromtimestamp(live.since_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = api("GET", f"jobs/x/fires?n=2&after={after}").json()
    assert [datetime.fromisoformat(fire["at"]).timestamp() for fire in shown["fires"]] == due
    assert datetime.fromisoformat(made["next_fire_at"]).timestamp() in due
    moment = datetime.fromtimestamp(due[0], UTC).strftime(":%M:%S")
    fields = {"schedule_kind": "every", "every": "1h", "jitter": "59m", "end": schedule["end"]}
    for page in (browser.get(f"/jobs/{made['id']}"), browser.post(f"/jobs/preview?job={made['id']}", fields)):
        assert moment in page.text and "up to 59 minutes later" in page.text


def test_a_schedule_is_explained_and_a_save_warns_of_likely_mistakes(api: Api) -> None:
    body = {"schedule": {"cron": "0 H 12 ? * 2", "dialect": "quartz"}}
    found = api("POST", "schedule:explain?n=1&after=2026-10-23T12:00:00Z&lang=zh", json=body).json()
    assert set(found["words"]) == {"en", "zh"} and "周一" in found["words"]["zh"] and found["example"] is True
    assert [warning["hint"] for warning in found["warnings"]] == ["请写 MON"]
    assert api("POST", "schedule:explain?lang=fr", json=body).status_code == 422
    saved = api("POST", "jobs", json=document("quartz", **body)).json()
    assert [warning["code"] for warning in saved["warnings"]] == ["numeric_weekday"]
    assert saved["document"]["schedule"]["cron"] == "0 H 12 ? * 2"
    # What the list, the job and its fires say is the time the centre will fire at, not the example.
    fires = api("GET", f"jobs/{saved['id']}/fires?n=1").json()
    assert fires["example"] is False and fires["fires"][0]["at"] == saved["next_fire_at"]
    minute = parse_schedule(body["schedule"]).resolved(saved["id"]).cron.five()[0]  # type: ignore[union-attr]
    assert fires["fires"][0]["local"][11:16] == f"12:{int(minute):02}"


def test_a_run_is_asked_for_with_options(web: Web, api: Api) -> None:
    ident = api("POST", "jobs", json=document("x", params={"region": "cn"})).json()["id"]
    options = {
        "params": {"region": "de"},
        "delay": "5m",
        "priority": 9,
        "labels": {"zone": "a"},
        "timeout": "90s",
        "retries": 3,
    }
    answer = api("POST", f"jobs/{ident}:run", json=options)
    assert answer.status_code == 202 and answer.json()["created"] is True
    (kv,) = web.client.list(web.keys.run_in("")).kvs
    request = Request.read(kv.value)
    assert (request.run, request.job, request.trigger, request.by) == (
        answer.json()["run"],
        ident,
        "api",
        "token:admin",
    )
    assert (request.params, request.priority, request.labels) == ({"region": "de"}, 9, {"zone": "a"})
    assert (request.timeout, request.retries) == (90.0, 3)
    assert 290 < request.not_before_at - request.requested_at < 310
    assert api("GET", f"runs/{request.run}").json()["state"] == "requested"


def test_an_idempotency_key_means_one_run(api: Api) -> None:
    ident = api("POST", "jobs", json=document("x")).json()["id"]
    first = api("POST", f"jobs/{ident}:run", headers={"idempotency-key": "k1"}).json()
    again = api("POST", f"jobs/{ident}:run", json={"idempotency_key": "k1"}).json()
    assert again == {"run": first["run"], "created": False}
    refused = api("POST", f"jobs/{ident}:run", json={"idempotency_key": "k1", "on_conflict": "error"})
    assert refused.status_code == 409
    both = api("POST", f"jobs/{ident}:run", json={"idempotency_key": "k1"}, headers={"idempotency-key": "k2"})
    assert both.status_code == 422
    assert api("POST", f"jobs/{ident}:run", headers={"idempotency-key": " "}).status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"delay": "soon"}, "delay"),
        ({"at": "tomorrow"}, "at"),
        ({"at": "2026-12-01T09:00:00"}, "at"),
        ({"delay": "5m", "at": "2026-12-01T09:00:00Z"}, "at"),
        ({"priority": 10}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 5.0}, "priority"),
        ({"retries": -1}, "retries"),
        ({"timeout": 5}, "timeout"),
        ({"timeout": "0s"}, "timeout"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {"a b": "c"}}, "labels.a b"),
        ({"params": []}, "params"),
        ({"params": {"x": "y" * 40000}}, "params"),
        ({"on_conflict": "ignore"}, "on_conflict"),
        ({"run_as": "root"}, "run_as"),
        ({"idempotency_key": ""}, "idempotency_key"),
    ],
)
def test_bad_options_name_their_field(api: Api, body: dict[str, object], field: str) -> None:
    ident = api("POST", "jobs", json=document("x")).json()["id"]
    answer = api("POST", f"jobs/{ident}:run", json=body)
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text


def test_only_tasks_of_allowed_modules_are_enqueued(web: Web, api: Api, api_as: Callable[[str], Api]) -> None:
    answer = api("POST", "tasks:enqueue", json={"task": "shop.tasks.reprice", "args": [1], "kwargs": {"a": 2}})
    assert answer.status_code == 202, answer.text
    (kv,) = web.client.list(web.keys.run_in("")).kvs
    request = Request.read(kv.value)
    assert (request.name, request.args, request.params) == ("task:shop.tasks.reprice", [1], {"a": 2})
    for task in ("os.system", "shop.tasksx.a", "shop.tasks", "shop", "crony.run"):
        assert api("POST", "tasks:enqueue", json={"task": task}).status_code == 403, task
    assert api_as("viewer")("POST", "tasks:enqueue", json={"task": "shop.tasks.reprice"}).status_code == 403


def test_what_is_done_is_audited_with_who_and_from_where(api: Api) -> None:
    ident = api("POST", "jobs", json=document("x")).json()["id"]
    api("POST", f"jobs/{ident}:run")
    entries = api("GET", "audit").json()["items"]
    assert [entry["action"] for entry in entries][:2] == ["run.trigger", "job.create"]
    assert entries[0]["actor"] == "token:admin" and entries[0]["address"]


def test_tokens_are_shown_once_and_revoked(api: Api) -> None:
    made = api("POST", "tokens", json={"name": "ci", "scope": "viewer", "days": 30}).json()
    assert made["secret"].startswith("crony_")
    listed = api("GET", "tokens").text
    assert made["secret"] not in listed and made["hint"] in listed
    assert api("DELETE", f"tokens/{made['id']}").status_code == 204
    assert api("POST", "tokens", json={"name": "ci", "scope": "root"}).json()["field"] == "scope"
    assert api("POST", "tokens", json={"name": "\u202e", "scope": "viewer"}).status_code == 422
