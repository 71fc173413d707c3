"""Calendars in the catalogue: their jobs follow an edit, a crash in between is made good, none in use is deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crony.catalog.jobs import Catalog
from crony.catalog.views import preview
from crony.clock import SYSTEM
from crony.domain.livejob import LiveJob
from crony.domain.signing import Sealer, new_key, peek
from crony.errors import Conflict, Invalid, NotFound
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.store import audit
from crony.store.db import Database

pytest_plugins = ["tests.helpers.database_fixtures"]

SEALER = Sealer(new_key()[0])
DAY = 86400
MONDAY = int(datetime(2040, 1, 2, tzinfo=UTC).timestamp())


def _calendar(**facts: Any) -> dict[str, Any]:
    return {"name": "workdays", "weekdays": ["mon", "tue", "wed", "thu", "fri"], **facts}


def _job(name: str, schedule: Any = None) -> dict[str, Any]:
    schedule = schedule or {"every": "1d", "calendars": {"include": ["workdays"]}}
    return {"name": name, "schedule": schedule, "action": {"kind": "shell", "command": ["true"]}}


@pytest.fixture
def catalog(db: Database, client: Client, keys: Keys) -> Catalog:
    return Catalog(db, client, keys, SEALER)


def _due(catalog: Catalog, ident: str) -> list[int]:
    """Days from Monday on that the published job is due, in a week far ahead."""
    kv = catalog.client.get(catalog.keys.job(ident))
    assert kv is not None
    live = LiveJob.read(peek(kv.value))
    return [(at - MONDAY) // DAY for at in live.due_between(MONDAY - 1, MONDAY + 7 * DAY - 1, 9)]


def test_a_calendar_from_creation_to_deletion(catalog: Catalog) -> None:
    made = catalog.calendars.save(_calendar(), "ann", revision=0, address="::1")
    assert (made.revision, made.jobs) == (1, ())
    job = catalog.create(_job("a"), "ann")
    assert catalog.get(job.id).document["schedule"]["calendars"] == {"include": ["workdays"]}, "names are what is saved"
    assert _due(catalog, job.id) == [0, 1, 2, 3, 4]

    edited = catalog.calendars.save(_calendar(exclude=["2040-01-03"], include=["2040-01-07"]), "bob", revision=1)
    assert (edited.revision, edited.jobs, edited.waiting) == (2, ("a",), ())
    assert _due(catalog, job.id) == [0, 2, 3, 4, 5]
    view = catalog.get(job.id)
    assert (view.revision, view.live_revision, view.updated_by) == (2, 2, "bob")
    assert catalog.version(job.id, 2).action == "calendar"
    fires = preview(view.document, 5, after=MONDAY - 1, job=job.id, lookup=catalog.calendars.contents).fires
    assert [(fire.at - MONDAY) // DAY for fire in fires] == [0, 2, 3, 4, 5]
    same = catalog.calendars.save(_calendar(exclude=["2040-01-03"], include=["2040-01-07"]), "bob")
    assert same.revision == 2 and catalog.get(job.id).revision == 2, "what says the same changes nothing"

    with pytest.raises(Conflict, match="changed meanwhile"):
        catalog.calendars.save(_calendar(), "ann", revision=1)
    with pytest.raises(Conflict, match="is in use") as refused:
        catalog.calendars.delete("workdays", "ann")
    assert "name it: a" in (refused.value.why or "")
    catalog.update(job.id, _job("a", {"every": "1d"}), None, "ann")
    assert _due(catalog, job.id) == [0, 1, 2, 3, 4, 5, 6]
    catalog.calendars.delete("workdays", "ann")
    with pytest.raises(NotFound):
        catalog.calendars.get("workdays")
    again = catalog.calendars.save(_calendar(), "ann")
    assert again.revision == 4, "a name used again goes on with its revisions"
    assert [version.action for version in catalog.calendars.versions("workdays")] == [
        "create",
        "delete",
        "update",
        "create",
    ]
    entries = [entry for entry in audit.list_entries(catalog.db).items if entry.kind == "calendar"]
    assert [(entry.action, entry.actor) for entry in reversed(entries)] == [
        ("calendar.create", "ann"), ("calendar.update", "bob"), ("calendar.delete", "ann"), ("calendar.create", "ann")
    ]  # fmt: skip


def test_what_is_not_there_is_refused_with_its_field(catalog: Catalog) -> None:
    with pytest.raises(Invalid) as refused:
        catalog.create(_job("a", [{"every": "1h"}, {"every": "1d", "calendars": {"exclude": ["gone"]}}]), "ann")
    assert refused.value.field == "schedule[1].calendars" and "names gone" in refused.value.problem
    with pytest.raises(Invalid, match="holds the days"):
        catalog.create(_job("a", {"every": "1d", "calendars": {"include": [_calendar()]}}), "ann")
    assert catalog.list().items == []
    catalog.calendars.save(_calendar(), "ann")
    job = catalog.create(_job("a"), "ann")
    with pytest.raises(Invalid, match="names gone"):
        catalog.update(job.id, _job("a", {"every": "1d", "calendars": {"exclude": ["gone"]}}), None, "ann")
    catalog.delete(job.id, "ann")
    catalog.calendars.delete("workdays", "ann")  # a deleted job keeps to nothing
    with pytest.raises(Invalid, match="names workdays"):
        catalog.create(_job("a"), "ann")


def test_more_days_than_a_document_holds_are_refused_before_they_are_saved(catalog: Catalog) -> None:
    def many(name: str, size: int) -> dict[str, Any]:
        ranges = [f"{2040 + n // 12}-{n % 12 + 1:02}-{day:02}" for n in range(size) for day in (1, 11, 21)]
        return {"name": name, "include": ranges, "exclude": [text[:-2] + "28" for text in ranges[::3]]}

    for name in ("a", "b", "c", "d"):
        catalog.calendars.save(many(name, 130), "ann")
    all_of_them = {"include": ["a", "b", "c", "d"]}
    schedules = [{"every": f"{hours}h", "calendars": all_of_them} for hours in (1, 2, 3)]
    with pytest.raises(Invalid, match="bytes long"):
        catalog.create(_job("x", schedules), "ann")
    job = catalog.create(_job("x", schedules[:2]), "ann")
    periods = [{"start": f"{2040 + n}-01-01T00:00:00Z", "end": f"{2040 + n}-01-02T00:00:00Z"} for n in range(100)]
    with pytest.raises(Invalid, match="bytes long"):
        catalog.calendars.save({**many("a", 130), "periods": periods}, "ann")
    assert catalog.calendars.get("a").revision == 1 and catalog.get(job.id).live


def test_fires_of_closed_days_move_and_the_calendar_cannot_forbid_it_later(catalog: Catalog) -> None:
    catalog.calendars.save(_calendar(exclude=["2040-01-04"]), "ann")
    schedule = {"cron": "0 0 4,8 * *", "calendars": {"include": ["workdays"], "closed": "next"}}
    job = catalog.create(_job("a", schedule), "ann")
    assert catalog.get(job.id).document["schedule"]["calendars"] == {"include": ["workdays"], "closed": "next"}
    assert _due(catalog, job.id) == [3], "Thursday's fire takes place on Friday"
    hours = [{"start": "2040-01-07T08:00:00Z", "end": "2040-01-07T09:00:00Z"}]
    with pytest.raises(Invalid, match=r"does not go with the job a: .*moves whole days"):
        catalog.calendars.save(_calendar(periods=hours), "ann")
    assert catalog.calendars.get("workdays").revision == 1 and catalog.get(job.id).revision == 1
    assert catalog.calendars.save(_calendar(), "ann").warnings == ()
    assert _due(catalog, job.id) == [2]
    yesterday = datetime.fromtimestamp(SYSTEM.wall() - DAY, UTC).date()
    past = {"exclude" if yesterday.weekday() < 5 else "include": [yesterday.isoformat()]}
    (warning,) = catalog.calendars.save(_calendar(**past), "ann").warnings
    assert warning.code == "past_days"


def test_jobs_follow_an_edit_that_etcd_did_not_hear_of(catalog: Catalog) -> None:
    catalog.calendars.save(_calendar(), "ann")
    jobs = [catalog.create(_job(name), "ann") for name in ("a", "b")]
    away = Catalog(catalog.db, Client(["http://127.0.0.1:1"], timeout=0.3), catalog.keys, catalog.sealer)
    edited = away.calendars.save(_calendar(exclude=["2040-01-03"]), "ann")
    assert edited.waiting == ("a", "b")
    assert _due(catalog, jobs[0].id) == [0, 1, 2, 3, 4]
    assert sorted(catalog.reconcile().published) == sorted(job.id for job in jobs)
    assert [_due(catalog, job.id) for job in jobs] == [[0, 2, 3, 4]] * 2
    assert catalog.reconcile().published == [] and catalog.reconcile().clean
