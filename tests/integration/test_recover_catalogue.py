"""A database restored from an older backup learns from etcd what was published since, and publishes nothing before."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crony.beat.duties import marking
from crony.catalog.jobs import Catalog
from crony.domain.livejob import LiveJob
from crony.domain.mark import behind
from crony.domain.sealing import Cipher, new_secret_key
from crony.domain.signing import Verifier, peek
from crony.errors import Conflict, NotFound
from crony.etcd.keys import Keys
from crony.lifecycle.mark import look
from crony.recovery.catalogue import bare, catalogue
from crony.store import marks
from crony.store.db import Database
from tests.helpers.beat import ACTION, CENTRE, WEB, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

CIPHER = Cipher([new_secret_key()])
JOB = {"action": ACTION, "schedule": {"cron": "0 3 * * *"}}


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(marking, "EVERY", 0.1)
    monkeypatch.setattr(marking, "KEEP_EVERY", 0.1)
    monkeypatch.setattr("crony.beat.duties.reconcile.EVERY", 0.2)
    with stage(etcd.endpoint, keys, database_url=f"sqlite:///{tmp_path}/new.db") as made:
        yield made


def open_(path: Path) -> Database:
    made = Database(f"sqlite:///{path}", timeout=1)
    made.upgrade()
    return made


def published(place: Stage, job: str) -> LiveJob:
    found = place.client.get(place.keys.job(job))
    assert found is not None
    return LiveJob.read(peek(found.value))


def test_a_restored_database(place: Stage, tmp_path: Path) -> None:
    database = open_(tmp_path / "new.db")
    jobs = Catalog(database, place.client, place.keys, place.web, CIPHER)
    kept, edited, deleted, gone, renamed = (
        jobs.create({**JOB, "name": name}, "me") for name in ("kept", "edited", "deleted", "gone", "renamed")
    )
    jobs.calendars.save({"name": "days", "weekdays": ["mon"]}, "me")
    place.lead()
    until(lambda: marks.load(database, place.keys.namespace), 10, "the database to be marked")
    database.close()
    with sqlite3.connect(tmp_path / "new.db") as source, sqlite3.connect(tmp_path / "old.db") as backup:
        source.backup(backup)

    database = open_(tmp_path / "new.db")
    jobs = Catalog(database, place.client, place.keys, place.web, CIPHER)
    jobs.calendars.save({"name": "days", "weekdays": ["mon", "tue"]}, "me")
    keeping: dict[str, Any] = {
        **JOB,
        "name": "edited",
        "schedule": {"cron": "0 4 * * *", "calendars": {"include": ["days"]}},
    }
    jobs.update(edited.id, keeping, None, "me")
    jobs.delete(deleted.id, "me")
    jobs.delete(gone.id, "me")
    place.client.delete(place.keys.job(gone.id))  # its tombstone is pruned
    jobs.update(renamed.id, {**JOB, "name": "other"}, None, "me")
    again = jobs.create({**JOB, "name": "renamed"}, "me")
    new = jobs.create({**JOB, "name": "new"}, "me")
    jobs.pools.save({"name": "reports", "limit": 3}, "me")
    jobs.secrets.save({"name": "reports-db", "value": "s3cr3t"}, "me")
    follows = {"limits": ["pool:reports"], "after": {"jobs": ["kept"]}}
    jobs.update(new.id, {**JOB, "name": "new", **follows}, None, "me")
    kept_secret = jobs.secrets.get("reports-db").document
    before = look(place.client, place.keys)
    until(lambda: look(place.client, place.keys).archived > before.mod, 10, "the mark to say what the database knows")
    for centre in place.centres:
        centre.stop()
    place.client.delete(place.keys.job(gone.id))  # the first centre may have put its tombstone anew
    database.close()

    database = open_(tmp_path / "old.db")
    found = look(place.client, place.keys)
    assert behind(marks.load(database, place.keys.namespace), found)
    centre = place.lead(centre="two", database_url=f"sqlite:///{tmp_path}/old.db")
    until(lambda: "reconcile" in centre.status()["failing"], 10, "it to refuse")
    assert "crony recover catalogue" in centre.status()["failing"]["reconcile"]
    assert place.client.get(place.keys.job(gone.id)) is None, "a job deleted since lives again"

    jobs = Catalog(database, place.client, place.keys, place.web, CIPHER)
    taken = catalogue(database, place.client, place.keys, Verifier([WEB[1], CENTRE[1]]), jobs)
    assert sorted(taken.jobs) == ["edited", "new", "other", "renamed"] and taken.failed == {}
    assert (taken.deleted, taken.calendars, taken.switched_off) == (["deleted"], ["days"], ["gone"])
    assert jobs.get("edited").document["schedule"]["calendars"] == {"include": ["days"]}
    assert taken.objects == ["pool reports", "secret reports-db"] and jobs.pools.get("reports").jobs == ("new",)
    assert jobs.secrets.get("reports-db").document == kept_secret
    assert jobs.calendars.get("days").revision == 2 and jobs.calendars.get("days").jobs == ("edited",)
    assert (jobs.get("renamed").id, jobs.get("other").id, jobs.get("new").id) == (again.id, renamed.id, new.id)
    with pytest.raises(NotFound):
        jobs.get("deleted")
    after = jobs.get("new").document["after"]
    assert after["jobs"] == ["kept"] and "ids" not in after, "people see names"
    with pytest.raises(Conflict, match="The job kept cannot be deleted"):
        jobs.delete("kept", "me")
    assert jobs.get("kept").revision == kept.revision and not jobs.get("gone").enabled
    assert not published(place, gone.id).enabled, "people see it, and it does not fire"
    assert published(place, edited.id).revision == jobs.get("edited").revision == 2
    assert not behind(marks.load(database, place.keys.namespace), look(place.client, place.keys))
    until(lambda: "reconcile" not in centre.status()["failing"], 40, "it to publish again")
    repeated = catalogue(database, place.client, place.keys, Verifier([WEB[1], CENTRE[1]]), jobs)
    assert (repeated.jobs, repeated.deleted, repeated.objects, repeated.switched_off) == ([], [], [], [])
    jobs.update("edited", {**JOB, "name": "edited"}, 2, "me")  # saving goes on where etcd is
    assert published(place, edited.id).revision == 3
    database.close()


def test_what_nobody_signed_is_not_taken_over(place: Stage, tmp_path: Path) -> None:
    database = open_(tmp_path / "new.db")
    forged = place.publish()
    jobs = Catalog(database, place.client, place.keys, place.web, CIPHER)
    found = catalogue(database, place.client, place.keys, Verifier([CENTRE[1]]), jobs)
    assert list(found.failed) == [forged.id] and "not signed" in found.failed[forged.id] and jobs.count() == 0
    database.close()


def test_a_published_document_becomes_the_saved_one_again() -> None:
    days = {"name": "days", "weekdays": ["mon"], "revision": 3}
    one = {"cron": "0 3 * * *", "calendars": {"include": [days], "exclude": ["freeze"], "closed": "next"}}
    document = {"name": "x", "schedule": [one, {"every": "5m"}], "params": {"calendars": {"include": [days]}}}
    plain, contents = bare(document)
    assert plain["schedule"][0]["calendars"] == {"include": ["days"], "exclude": ["freeze"], "closed": "next"}
    assert (
        contents == {"days": days} and plain["params"] == document["params"] and plain["schedule"][1] == {"every": "5m"}
    )
    chained = {"name": "x", "after": {"jobs": ["a"], "ids": ["j1"]}}
    assert bare(chained) == ({"name": "x", "after": {"jobs": ["a"]}}, {})
    assert bare({"after": None})[0] == {"after": None}
    assert bare({"name": "x"}) == ({"name": "x"}, {}) and bare({"schedule": None})[0] == {"schedule": None}
