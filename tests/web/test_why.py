"""Why a job did or did not run at an instant: each answer comes from a record, in the reader's language."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from crony.catalog.views import JobView
from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.backfill import planned
from crony.domain.calendar import DAYS
from crony.domain.outcome import Outcome
from crony.domain.run import Done, Envelope, Wait
from crony.domain.schedule import parse_schedule
from crony.domain.shards import CentreFacts
from crony.domain.signing import Sealer, new_key
from crony.lifecycle import backfill as backfills
from crony.lifecycle import hold
from crony.store import archive
from crony.store.models import JobVersionRow
from crony.web import formats
from crony.web.wiring import Web
from tests.web.conftest import Api, Browser, document, text_of

DAY = 86400
NOW = time.time()
TODAY = int(NOW // DAY) * DAY
DUE = TODAY - 3 * DAY + 3600
"""01:00 three days ago: the job below was due."""
Ask = Callable[[float], dict[str, Any]]


def past(web: Web, view: JobView, *at: float) -> None:
    """Let its saves have been at these instants, the first one first."""
    for revision, instant in enumerate(at, 1):
        row = update(JobVersionRow).where(JobVersionRow.job_id == view.id, JobVersionRow.revision == revision)
        web.db.transaction(lambda session, row=row, at=instant: session.execute(row.values(at=at)))  # type: ignore[misc]


@pytest.fixture
def view(web: Web) -> JobView:
    """A job due at 01:00 UTC each day, saved five days ago."""
    made = web.catalog.create(document("night/load", schedule={"cron": "0 1 * * *"}), "li")
    past(web, made, NOW - 5 * DAY)
    return made


@pytest.fixture
def ask(api: Api, view: JobView) -> Ask:
    """What the API answers about an instant."""
    return lambda at: dict(api("GET", f"jobs/night%2Fload/why?at={rfc3339(at)}").json())


def outcome(view: JobView, at: int, kind: str, **changes: Any) -> Outcome:
    """The end of the run of a fire, or the record of one that became none."""
    base: dict[str, Any] = {
        "run": ids.fire_run_id(view.id, view.generation, at), "job": view.id, "name": view.name, "generation": 1,
        "revision": 1, "attempt": 1, "kind": kind, "final": True, "trigger": "schedule", "ended_at": at + 9.0,
        "started_at": at + 1.0, "node": "n1", "fire_at": at, "requested_at": at + 0.5,
    }  # fmt: skip
    return Outcome(**(base | changes))


def decided(web: Web, view: JobView, upto: float, **changes: Any) -> None:
    """The leader has got so far."""
    web.client.put(web.keys.done(view.id), Done(int(upto), **changes).encode())


def test_it_ran_or_is_about_to(web: Web, view: JobView, ask: Ask, browser: Browser) -> None:
    archive.write(web.db, [outcome(view, DUE, "failed", reason="exit code 3")])
    found = ask(DUE)
    assert (found["verdict"], found["run"]["outcome"], found["revision"]) == ("ran", "failed", 1)
    assert "ended as failed" in found["sentence"] and "Reason: exit code 3." in found["sentence"]
    when = datetime.fromtimestamp(DUE, UTC).strftime("%Y-%m-%d %H:%M:%S")
    browser.client.cookies.set("crony_lang", "zh")
    page = browser.get(f"/jobs/{view.id}?at={when}").text
    assert "的结果为失败" in text_of(page) and "原因：退出码 3" in text_of(page) and found["run"]["id"] in page
    assert "这不是时间" in text_of(browser.get(f"/jobs/{view.id}?at=yesterday").text)
    run = ids.fire_run_id(view.id, view.generation, DUE + DAY)
    told = Envelope(run, view.id, view.name, 1, 1, 1, "", "", "schedule", {"kind": "shell"}, fire_at=DUE + DAY)
    sealed = Sealer(new_key()[0]).seal(told.payload()).decode()
    wait = Wait(run, sealed, 0, "no_node", NOW, detail="cordoned: n1; zone is b, not a: n2")
    web.client.put(web.keys.run_wait(run), wait.encode())
    found = ask(DUE + DAY)
    assert found["verdict"] == "waiting" and "No node fits now" in found["sentence"]
    assert "Nodes refused: cordoned: n1; zone is b, not a: n2." in found["sentence"]


def test_it_became_no_run(web: Web, view: JobView, ask: Ask) -> None:
    missed = outcome(view, DUE - DAY, "skipped", attempt=0, reason="misfire", to_at=DUE, count=2, ended_at=NOW - 60,
                     detail="decided more than 60 s late; only the latest runs, at most 604800 s old")  # fmt: skip
    archive.write(web.db, [missed])
    for at in (DUE - DAY, DUE):
        found = ask(at)
        assert (found["verdict"], found["skip"]["reason"], found["skip"]["count"]) == ("skipped", "misfire", 2)
        assert "became no run: missed (decided more than 60 s late" in found["sentence"]
        assert "for 2 fires from" in found["sentence"]
    found = ask(DUE - 7200)
    assert (found["verdict"], found["skip"]) == ("not_due", None), "inside the range, but never a fire"
    fresh = outcome(view, DUE + DAY, "skipped", attempt=0, reason="overlap", detail="r1 was still under way")
    web.client.put(web.keys.out(fresh.run, 0), fresh.encode())
    web.live.forget()
    found = ask(DUE + DAY)
    assert found["verdict"] == "skipped" and "(r1 was still under way)" in found["sentence"], "before it is archived"


def test_it_was_not_due(web: Web, view: JobView, ask: Ask, api: Api) -> None:
    found = ask(DUE + 60)
    assert found["verdict"] == "not_due"
    assert (found["fire_before"], found["fire_after"]) == (rfc3339(DUE), rfc3339(DUE + DAY))
    assert "revision 1 was in force" in found["sentence"]
    found = ask(NOW - 6 * DAY)
    assert found["verdict"] == "did_not_exist" and "by li" in found["sentence"]
    assert ask(TODAY + 2 * DAY + 3600)["verdict"] == "not_yet"
    web.catalog.update(view.id, document("night/load", schedule={"cron": "0 4 * * *"}), None, "wu")
    web.catalog.set_enabled(view.id, False, "ma")
    web.catalog.set_enabled(view.id, True, "ma")
    web.catalog.update(view.id, document("night/load", schedule=None), None, "wu")
    edit, pause, resume, manual = DUE + 600, DUE + DAY, DUE + 2 * DAY, DUE + 2 * DAY + 8 * 3600
    past(web, view, NOW - 5 * DAY, edit, pause, resume, manual)
    decided(web, view, NOW)
    assert ask(DUE)["verdict"] == "no_record", "due by the revision before the edit"
    assert ask(DUE + 3 * 3600)["verdict"] == "no_record" and ask(edit + 60)["revision"] == 2
    assert ask(DUE + DAY + 3 * 3600)["verdict"] == "paused", "what fell into the pause"
    assert "by ma" in ask(DUE + DAY + 60)["sentence"]
    assert ask(DUE + 2 * DAY)["verdict"] == "paused", "the second of the resume itself"
    assert ask(DUE + 2 * DAY + 3 * 3600)["verdict"] == "no_record"
    assert ask(manual + 60)["verdict"] == "manual_only"
    web.catalog.delete(view.id, "ma")
    past(web, view, NOW - 5 * DAY, edit, pause, resume, manual, manual + 100)
    gone = api("GET", f"jobs/{view.id}/why?at={rfc3339(manual + 200)}").json()
    assert gone["verdict"] == "deleted" and "by ma" in gone["sentence"]


def test_it_was_due_and_is_not_decided(web: Web, view: JobView, ask: Ask) -> None:
    decided(web, view, DUE - 60)
    found = ask(DUE)
    assert found["verdict"] == "undecided" and "No scheduling centre leads" in found["sentence"]
    web.client.put(web.keys.leader(0), b'{"name": "c1"}')
    web.live.centres.forget()
    assert "The leader has decided everything up to" in ask(DUE)["sentence"]
    web.client.put(web.keys.control, json.dumps({"stop": True}).encode())
    assert "stopped for the whole platform" in ask(DUE)["sentence"]
    decided(web, view, DUE - 60, held="ZoneInfoNotFoundError: Mars/Base", held_revision=1)
    found = ask(DUE)
    assert found["verdict"] == "held" and "Mars/Base" in found["sentence"]
    decided(web, view, NOW)
    past(web, view, NOW - 400 * DAY)
    old = TODAY - 60 * DAY + 3600
    assert ask(old)["verdict"] == "not_kept" and "30 days" in ask(old)["sentence"]


def test_what_keeps_the_leader_from_it_is_said(web: Web, view: JobView, ask: Ask, api: Api) -> None:
    """A clock that is off, a full etcd, a document it does not trust, the stop switch: each is named."""
    decided(web, view, DUE - 60)

    def said(language: str = "en", at: float = DUE) -> str:
        web.live.forget()
        path = f"jobs/{view.id}/why?at={rfc3339(at)}"
        return str(api("GET", path, headers={"accept-language": language}).json()["sentence"])

    def centre(**facts: Any) -> None:
        web.client.put(web.keys.centre("i1"), CentreFacts("c1", at=NOW, **facts).encode())

    centre(able=False, skew=-31.04, why="its wall clock is off")
    assert "No scheduling centre leads" in said() and "Centre c1 may not lead: its wall clock is -31.0 s off" in said()
    web.client.put(web.keys.leader(0), b'{"name": "c1", "centre": "i1"}')
    centre(figures={"s": {"held": {"clock": 1, "room": 0}}}, skew=3600.0)
    assert "c1 leads and holds dispatch: its wall clock" in said() and "+3600.0 s" in said() and "full" not in said()
    assert "调度中心 c1 暂停派发：其系统时钟" in said("zh")
    centre(figures={"s": {"held": {"room": 1}}})
    assert "etcd is nearly full" in said() and "crony doctor" in said() and "etcd 空间将满" in said("zh")
    centre(untrusted={view.id: "the record is not signed by a trusted key: KeyError", "j2": "x"})
    assert "CRONY_WEB_KEYS" in said() and "CRONY_WEB_KEYS" in said("zh")
    centre(untrusted={view.id: "a LiveJob of version 2. upgrade this process"})
    assert "the document is of version 2" not in said() and "upgrade" in said() and "请升级调度中心" in said("zh")
    centre(untrusted={view.id: 7})
    assert "The leader has decided everything up to" in said()
    centre()
    hold.turn(web.client, web.keys, True, by="li", reason="the database moves")
    assert "stopped for the whole platform. li stopped it " in said() and "Reason: the database moves." in said()
    run = ids.fire_run_id(view.id, view.generation, DUE + DAY)
    told = Envelope(run, view.id, view.name, 1, 1, 1, "", "", "schedule", {"kind": "shell"}, fire_at=DUE + DAY,
                    retry={"max": 2, "delay": 600.0, "jitter": False})  # fmt: skip
    sealed = Sealer(new_key()[0]).seal(told.payload()).decode()
    web.client.put(web.keys.run_wait(run), Wait(run, sealed, 0, "pool", NOW, detail="pool a lets 1").encode())
    assert "stopped for the whole platform" in said(at=DUE + DAY), "whatever else a run waits for"
    assert "A pool of its job" in said(at=DUE + DAY)
    hold.turn(web.client, web.keys, False, by="li")
    web.client.put(web.keys.out(run, 1), outcome(view, DUE + DAY, "failed", final=False).encode())
    web.client.put(web.keys.run_wait(run), Wait(run, sealed, 1, "ended", time.time(), outcome="failed").encode())
    assert "Attempt 2 comes in 10 m" in said(at=DUE + DAY) and "stopped" not in said(at=DUE + DAY)
    web.client.put(web.keys.run_wait(run), Wait(run, sealed, 3, "ended", time.time(), outcome="failed").encode())
    assert "comes in" not in said(at=DUE + DAY), "there are no attempts left"


def test_a_calendar_left_it_out_or_moved_it(web: Web, api: Api) -> None:
    closed = (datetime.fromtimestamp(DUE, UTC)).date().isoformat()
    web.catalog.calendars.save({"name": "but-one", "weekdays": list(DAYS), "exclude": [closed]}, "li")
    for closes, said in (
        ("skip", "whose calendars leave that time out"),
        ("next", f"moved to {rfc3339(DUE + DAY)}"[:-15]),
    ):
        schedule = {"cron": "0 1 * * *", "calendars": {"include": ["but-one"], "closed": closes}}
        made = web.catalog.create(document(closes, schedule=schedule), "li")
        past(web, made, NOW - 5 * DAY)
        found = api("GET", f"jobs/{closes}/why?at={rfc3339(DUE)}").json()
        assert found["verdict"] == "not_due" and said in found["sentence"], found["sentence"]


def test_what_is_asked_must_be_an_instant(api: Api, api_as: Callable[[str], Api], view: JobView) -> None:
    for query in ("", "?at=", "?at=yesterday", "?at=2026-11-22T10:00:00", "?at=2026-11-22T10:00:00Z&x=1"):
        assert api("GET", f"jobs/night%2Fload/why{query}").status_code == 422, query
    assert api("GET", "jobs/nobody/why?at=2026-11-22T10:00:00Z").status_code == 404
    zh = {"accept-language": "zh-CN,zh;q=0.9"}
    found = api_as("viewer")("GET", f"jobs/{view.id}/why?at=2020-01-01T00:00:00Z", headers=zh).json()
    assert "当时还没有这个作业" in found["sentence"]
    assert formats.instant("2026-11-22 09:00", "Asia/Shanghai") == formats.instant("2026-11-22T01:00:00Z", "UTC")
    assert formats.instant("9999-99-99", "UTC") is None


def test_a_job_with_a_jitter_is_due_at_its_own_second(web: Web, api: Api) -> None:
    schedule = {"cron": "0 1 * * *", "jitter": "59m"}
    made = web.catalog.create(document("late", schedule=schedule), "li")
    past(web, made, NOW - 5 * DAY)
    own = parse_schedule(schedule).resolved(made.id).next(DUE - 1)
    assert own is not None
    for at, due in ((own, True), (own + 1, False)):
        assert (api("GET", f"jobs/late/why?at={rfc3339(at)}").json()["verdict"] != "not_due") is due


def test_a_backfill_that_ran_it_or_will_is_said_and_linked(web: Web, view: JobView, ask: Ask, browser: Browser) -> None:
    decided(web, view, NOW)
    schedule = '{"cron": "0 1 * * *"}'
    wanted = planned(
        ident=ids.backfill_id(), job=view.id, name=view.name, generation=1, schedule=schedule, parallel=1,
        schedules=(parse_schedule({"cron": "0 1 * * *"}),), start=DUE, end=DUE + 2 * DAY, now=NOW,
    )  # fmt: skip
    backfills.ask(web.client, web.keys, wanted)
    assert ask(DUE)["backfills"] == [{"id": wanted.id, "run": None}] and ask(DUE - DAY)["backfills"] == []
    assert f"Backfill {wanted.id} has that instant still before it." in ask(DUE)["sentence"]
    run, done = wanted.run_of(DUE), wanted.without([DUE])
    web.client.put(web.keys.backfill(wanted.id), done.encode())
    ended = outcome(view, DUE, "failed", run=run, trigger="backfill", started_at=NOW, ended_at=NOW, requested_at=NOW)
    web.client.put(web.keys.out(run, 1), ended.encode())
    web.live.forget()
    assert ask(DUE)["backfills"][0]["run"]["id"] == run, "not archived yet"
    archive.write(web.db, [ended])
    web.client.delete(web.keys.backfill(wanted.id))
    found = ask(DUE)
    assert (found["verdict"], found["backfills"][0]["run"]["outcome"]) == ("no_record", "failed")
    assert f"Backfill {wanted.id} ran it: run {run} ended as failed." in found["sentence"]
    when = datetime.fromtimestamp(DUE, UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert f'href="/runs/{run}"' in browser.get(f"/jobs/{view.id}?at={when}").text


def test_a_name_that_is_not_there_is_answered_with_one_like_it(web: Web, api: Api, view: JobView) -> None:
    for wrong in ("night/laod", "nigth/load", "Night/Load2"):
        answer = api("GET", f"jobs/{wrong.replace('/', '%2F')}/why?at=2026-11-22T10:00:00Z")
        assert answer.status_code == 404 and answer.json()["hint"] == "did you mean night/load?", wrong
    assert "crony job list" in api("GET", "jobs/nothing-like-it").json()["hint"]
