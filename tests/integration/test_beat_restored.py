"""An etcd that went back in time: noticed by whoever saw more of it, nothing dispatched until somebody recovers it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crony.beat.duties import marking
from crony.domain.mark import Mark, Seen
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.mark import look
from crony.store import marks
from crony.store.db import Database
from tests.helpers.beat import Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/crony.db", timeout=1)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(marking, "EVERY", 0.1)
    monkeypatch.setattr(marking, "KEEP_EVERY", 0.1)
    with stage(etcd.endpoint, keys, database_url=database.url.render_as_string(hide_password=False)) as made:
        yield made


def kept(database: Database, place: Stage) -> Seen:
    """What the database knows of etcd."""
    return marks.load(database, place.keys.namespace) or Seen()


def test_the_leader_marks_and_the_database_knows(place: Stage, database: Database) -> None:
    one = place.lead()
    until(lambda: marks.load(database, place.keys.namespace), 10, "the database to know")
    one.stop()
    first = look(place.client, place.keys)
    place.lead(centre="two")
    until(lambda: kept(database, place).mod > first.mod, 10, "it to go on")
    assert marks.keep(database, place.keys.namespace, first) is not None, "never back"


def test_a_fresh_machine_notices_what_the_database_knows_and_goes_on_after_a_recovery(
    place: Stage, database: Database, tmp_path: Path
) -> None:
    place.node("n1")
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    later = place.client.revision + 10_000
    marks.keep(database, place.keys.namespace, Seen(0, "later", later, 2e9, later))
    centre = place.centre(state_dir=str(tmp_path / "fresh"))
    until(lambda: centre.centre.halted, 10, "it to halt")
    assert "crony recover" in str(centre.status()["halted"]) and not centre.status()["leads"]
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 1.5, 5, "a fire to pass")
    assert place.fires(job) == [] and place.client.get(place.keys.leader(0)) is None
    place.client.put(place.keys.mark, Mark(1, "recovered", time.time()).encode())
    centre.leads()
    until(lambda: place.fires(job), 10, "it to fire again")
    until(
        lambda: (kept := marks.load(database, place.keys.namespace)) and kept.epoch == 1, 10, "the database to follow"
    )


def test_a_database_that_was_away_at_the_start_is_believed_later(place: Stage, database: Database) -> None:
    """Its mark is written by another one while this centre leads: as if it had come back with what it knew."""
    one = place.lead()
    until(lambda: marks.load(database, place.keys.namespace), 10, "the database to know")
    later = place.client.revision + 10_000
    marks.keep(database, place.keys.namespace, Seen(0, "later", later, 2e9, later))
    until(lambda: one.centre.halted, 10, "it to halt")
    assert not one.status()["leads"]


def test_etcd_restored_under_a_running_centre(own_etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    with stage(own_etcd.endpoint, keys, leader_ttl=2.0) as place:
        place.node("n1")
        job = place.publish(schedule={"every": "1s"}, overlap="allow")
        centre = place.lead(state_dir=str(tmp_path / "state"))
        until(lambda: place.fires(job), 10, "a fire")
        own_etcd.stop()
        shutil.copytree(own_etcd.data_dir / "data", tmp_path / "backup")
        own_etcd.start()
        before = len(place.fires(job))
        until(lambda: len(place.fires(job)) > before + 1, 15, "more fires")
        own_etcd.kill()
        own_etcd.wipe()
        shutil.copytree(tmp_path / "backup", own_etcd.data_dir / "data")
        own_etcd.start()
        until(lambda: centre.centre.halted, 15, "it to halt")
        centre.stop()
        again = place.centre(state_dir=str(tmp_path / "state"))
        until(lambda: again.centre.halted, 15, "its next start to halt, too")


def test_a_history_that_another_centre_went_on_with_is_not_the_same(
    own_etcd: EtcdServer, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knew nothing of the restore has led since: revision and mark are beyond what was seen before."""
    monkeypatch.setattr(marking, "EVERY", 0.1)
    with stage(own_etcd.endpoint, keys, leader_ttl=1.0) as place:
        one = place.lead(state_dir=str(tmp_path / "one"))
        own_etcd.stop()
        shutil.copytree(own_etcd.data_dir / "data", tmp_path / "backup")
        own_etcd.start()
        mod = look(place.client, keys).mod
        until(lambda: look(place.client, keys).mod > mod, 15, "it to go on")
        one.stop()
        seen = look(place.client, keys)
        own_etcd.kill()
        own_etcd.wipe()
        shutil.copytree(tmp_path / "backup", own_etcd.data_dir / "data")
        own_etcd.start()
        two = place.lead(centre="two", state_dir=str(tmp_path / "two"))
        with Client([own_etcd.endpoint]) as client:
            until(lambda: look(client, keys).mod > seen.mod + 1, 15, "the other one to go beyond")
        again = place.centre(state_dir=str(tmp_path / "one"))
        until(lambda: again.centre.halted, 15, "it to halt nevertheless")
        assert two.status()["leads"] and "did not go through" in str(again.centre.halted)
