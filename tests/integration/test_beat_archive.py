"""Settling, archiving, reconciling, pruning, room: the leader's other duties, with a real database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crony.beat import presence
from crony.beat.duties import archiver, compaction, pruning
from crony.beat.office import Holds
from crony.catalog.jobs import Catalog
from crony.domain.figures import CENTRE_COUNTS, CENTRE_STATES, CENTRE_TIMES, distributions, numbers
from crony.domain.outcome import Kind, Outcome
from crony.domain.run import Request
from crony.etcd.keys import Keys
from crony.lifecycle.centres import look
from crony.lifecycle.enqueue import submit
from crony.lifecycle.settle import Position
from crony.store import archive as store
from crony.store.account_models import WebSessionRow
from crony.store.db import Database
from crony.store.models import RunRow
from tests.helpers.beat import ACTION, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/crony.db")
    made.upgrade()
    return made


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys, database: Database) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, database_url=database.url.render_as_string(hide_password=False)) as made:
        yield made


def work(place: Stage, count: int) -> list[str]:
    """So many runs, ended."""
    node = place.node("n1")
    job = place.publish(overlap="allow")
    asked = [place.ask(job).run for _ in range(count)]
    until(lambda: len(node.messages()) == count, 10, "the runs")
    node.run_all()
    return asked


def archived(database: Database) -> dict[str, str]:
    """Outcome of each run in the database."""
    return dict(database.read(lambda session: session.query(RunRow.id, RunRow.outcome).all()))


def position(place: Stage) -> Position:
    found = place.client.get(place.keys.settled)
    return Position.read(found.value) if found else Position()


def test_outcomes_reach_the_database_and_leave_etcd_later(
    place: Stage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "KEEP", 0.5)
    place.lead()
    asked = work(place, 25)
    until(lambda: archived(database) == dict.fromkeys(asked, "succeeded"), 10, "the archive to have them")
    until(lambda: not place.outs(), 10, "etcd to be clean")
    assert position(place).revision > 0


def test_the_centre_tells_what_it_counted(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "EVERY", 0.2)
    place.lead()
    node = place.node("n1")
    place.publish(schedule={"every": "1s"}, overlap="allow", retry={"max": 1, "delay": "1s", "jitter": False})
    until(lambda: len(node.messages()) >= 2, 10, "two fires")
    ended = len(node.run_all(Kind.TIMED_OUT))

    def figures() -> dict[str, dict[str, float]]:
        (facts,) = look(place.client, place.keys).running.values()
        spread = distributions(facts.figures, CENTRE_TIMES)
        lag = {name: {"": float(sum(row[""].buckets))} for name, row in spread.items() if name == "lag"}
        told = numbers(facts.figures, "c", CENTRE_COUNTS) | numbers(facts.figures, "s", CENTRE_STATES)
        return told | lag

    told = until(lambda: (now := figures()).get("attempts") == {"timed_out": ended} and now, 20, "them to be counted")
    assert "runs" not in told and told["lag"][""] >= ended and told["jobs"] == {"": 1}

    def retried() -> bool:
        node.run_all(Kind.FAILED)
        return "retries" in figures()

    until(retried, 20, "the retries to be counted")
    assert figures()["runs"]["failed"] >= 1


def test_nothing_is_lost_with_the_database_away(
    place: Stage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "KEEP", 0.0)
    monkeypatch.setattr(archiver, "IN_MEMORY", 2000)
    real, away = archiver.store.write, [True]

    def write(*args: object) -> object:
        if away[0]:
            from crony.errors import Unavailable

            raise Unavailable("the database is away")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(archiver.store, "write", write)
    first = place.lead()
    asked = work(place, 30)
    until(lambda: first.status()["archive_backlog"] == 30, 10, "a backlog")
    until(lambda: "away" in first.status()["failing"].get("archiver", ""), 10, "it to say why")
    until(lambda: len(place.outs()) == 30 and position(place).revision, 10, "everything to be kept in etcd")
    first.stop()
    away[0] = False
    place.lead(centre="two")
    until(lambda: archived(database) == dict.fromkeys(asked, "succeeded"), 10, "the archive to have them")
    until(lambda: not place.outs(), 10, "etcd to be clean")


def test_the_catalogue_is_reconciled_at_start(place: Stage, database: Database) -> None:
    catalog = Catalog(database, place.client, place.keys, place.web)
    view = catalog.create({"name": "a", "action": ACTION, "schedule": {"every": "1s"}}, "me")
    for key in (place.keys.job(view.id), place.keys.done(view.id), place.keys.name("a")):
        place.client.delete(key)  # as if the web had died before publishing
    place.node("n1")
    place.lead()
    until(place.messages, 10, "it to be published and fire")


def test_compaction_follows_a_minute_behind(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "EVERY", 0.2)
    made = compaction.Compaction(place.client)
    place.client.put(place.keys.control, b"{}")
    old = place.client.revision
    made._work()
    place.client.put(place.keys.control, b'{"stop": false}')
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.3, 2, "a while")
    made._work()
    from crony.etcd.errors import Compacted

    with pytest.raises(Compacted):
        place.client.get(place.keys.control, revision=old - 1)
    assert place.client.get(place.keys.control) is not None


def test_a_full_etcd_holds_fires(place: Stage) -> None:
    holds = Holds()
    status = place.client.status()
    compaction.Room(place.client, holds, quota=int(status.db_in_use / 0.9))._work()
    assert bool(holds) == (not status.quota)  # what etcd tells of itself counts, where it does
    compaction.Room(place.client, holds, quota=status.db_in_use * 10)._work()
    assert not holds
    made = compaction.Room(place.client, holds, 1)
    made._watch_room(72, 100)
    assert "72%" in holds.reasons["room"]
    made._watch_room(67, 100)
    assert holds
    made._watch_room(60, 100)
    assert not holds


def test_tombstones_and_idempotency_keys_are_pruned(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "TOMBSTONE", 1.0)
    monkeypatch.setattr(pruning, "EVERY", 0.1)
    monkeypatch.setattr(pruning, "IDEM_EVERY", 0.2)
    place.node("n1")
    job = place.publish()
    request = Request("run", job=job.id, name=job.name, generation=1)
    submit(place.client, place.keys, request, idempotency="short", window=1)
    submit(place.client, place.keys, replace(request, params={"x": 1}), idempotency="long")
    place.delete(job)
    place.lead()
    prefix = place.keys.idem(job.id, "")
    until(lambda: place.client.count(prefix) == 1, 10, "the expired key to go")
    until(lambda: place.client.get(place.keys.job(job.id)) is None, 10, "the tombstone to go")
    assert place.client.get(place.keys.done(job.id)) is None


def test_what_is_older_than_the_retention_goes(place: Stage, database: Database) -> None:
    now = time.time()
    old = Outcome("j1.1.m1", "j1", "a", 1, 1, 1, "succeeded", True, "schedule", now - 40 * 86400)
    old = replace(old, requested_at=old.ended_at)
    new = replace(old, run="j1.1.m2", requested_at=now - 20 * 86400, ended_at=now - 20 * 86400)
    store.write(database, [old, new])
    browser = WebSessionRow(
        user_id="u", created_at=now, seen_at=now, address="", agent="", hash="over", ends_at=now - 1
    )
    database.transaction(lambda session: session.add(browser))
    place.lead(retention_days=30)
    until(lambda: list(archived(database)) == [new.run], 10, "the old run to go")
    assert database.read(lambda session: session.query(WebSessionRow).count()) == 0
