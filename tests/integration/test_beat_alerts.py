"""What a person must know is put once, delivered once, and never lost: races, deaths, a database that is away."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crony.beat.duties import ages
from crony.beat.duties import alerts as duty
from crony.clock import SYSTEM
from crony.domain import alert as alerts
from crony.domain.alert import Alert, AlertKind
from crony.domain.outcome import Kind
from crony.errors import CronyError
from crony.etcd.keys import Keys
from crony.etcd.watch import Event, Watcher
from crony.store.alerts import list_alerts
from crony.store.db import Database
from tests.helpers.beat import RunningCentre, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.mariadb import MariaServer
from tests.helpers.wait import until

PATIENCE = 30.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/crony.db", timeout=1)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys, database: Database) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, database_url=database.url.render_as_string(hide_password=False)) as made:
        yield made


def rows(database: Database, kind: str = "") -> list[Alert]:
    found: list[Alert] = []
    cursor = None
    while True:
        page = list_alerts(database, limit=200, cursor=cursor)
        found += [alert for alert in page.items if kind in ("", alert.kind)]
        cursor = page.next_cursor
        if cursor is None:
            return found


def lying(place: Stage) -> dict[str, Alert]:
    """Alerts in etcd."""
    prefix = place.keys.alert("")
    return {kv.key.removeprefix(prefix): Alert.read(kv.value) for kv in place.client.list(prefix).kvs}


def failing(place: Stage, count: int, kind: str = Kind.FAILED, **fields: Any) -> list[str]:
    """So many runs that ended badly."""
    node = place.node("n1")
    job = place.publish(overlap="allow", **fields)
    asked = [place.ask(job).run for _ in range(count)]
    until(lambda: len(node.messages()) == count, PATIENCE, "the runs")
    node.run_all(kind)
    return sorted(asked)


def delivered(database: Database, runs: list[str]) -> None:
    until(lambda: sorted(alert.run for alert in rows(database, "run_failed")) == runs, PATIENCE, "the rows")


def nothing_lies(place: Stage) -> None:
    until(lambda: not place.client.count(place.keys.alert("")), PATIENCE, "the keys to go")


class History:
    """Every put of an alert key, as etcd tells it."""

    def __init__(self, place: Stage) -> None:
        self.puts: Counter[str] = Counter()
        prefix = place.keys.alert("")
        self._watch = Watcher(
            place.client, prefix, prefix[:-1] + "0", on_snapshot=lambda *_: None, on_events=self._events, name="history"
        ).start()
        self._watch.synced(10)

    def _events(self, events: list[Event], revision: int) -> None:
        self.puts.update(event.key.rsplit("/", 1)[1] for event in events if event.kind == "put")

    def stop(self) -> None:
        self._watch.stop()


def test_only_a_final_failure_is_an_alert(place: Stage, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    node = place.node("n1")
    once = place.publish(overlap="allow")
    again = place.publish(retry={"max": 1, "delay": "0s", "jitter": False})
    place.lead()
    ends = dict(zip((place.ask(once).run for _ in range(5)), (Kind.SUCCEEDED, Kind.FAILED, Kind.TIMED_OUT,
                                                             Kind.CANCELLED, Kind.REFUSED), strict=True))  # fmt: skip
    until(lambda: len(node.messages()) == 5, PATIENCE, "the runs")
    for message in node.messages():
        node.end(message, node.claim(message), ends[message.run], reason=f"it {ends[message.run]}")
    retried = place.ask(again).run
    for kind in (Kind.FAILED, Kind.SUCCEEDED):
        until(node.messages, PATIENCE, "an attempt")
        node.run_all(kind)
    bad = sorted(run for run, kind in ends.items() if kind in (Kind.FAILED, Kind.TIMED_OUT, Kind.REFUSED))
    delivered(database, bad)
    nothing_lies(place)
    told = {alert.run: alert for alert in rows(database)}
    assert retried not in told and sorted(told) == bad
    one = told[bad[0]]
    assert (one.job, one.name, one.node, one.attempt, one.times) == (once.id, once.name, "n1", 1, 1)
    assert one.reason == f"it {ends[one.run]}" and one.outcome == ends[one.run]
    said = Counter(record.args[0].split()[1] for record in caplog.records if record.msg == "alert: %s")  # type: ignore[index,union-attr]
    assert said == dict.fromkeys(bad, 1), "one line for each"


def test_a_failure_decided_after_the_attempt_is_an_alert_too(place: Stage, database: Database) -> None:
    """Its attempt is not final by itself; the leader ends the run, as its envelope is not one it can trust."""
    node = place.node("n1")
    job = place.publish(retry={"max": 5, "delay": "0s", "jitter": False})
    leader = place.lead()
    run = place.ask(job).run
    until(node.messages, PATIENCE, "the attempt")
    leader.stop()
    node.run_all(Kind.FAILED)
    place.client.put(place.keys.run_wait(run), replace(place.waits()[run], envelope="forged").encode())
    place.lead()
    until(lambda: (run, "end") in place.outs(), PATIENCE, "the end")
    assert place.outs()[run, "end"].kind in alerts.BAD, "or this test shows nothing"
    delivered(database, [run])


def test_two_leaders_racing_put_each_alert_once(place: Stage, database: Database) -> None:
    place.centre(centre="one")
    place.centre(centre="two")
    history = History(place)
    runs: list[str] = []
    for _ in range(4):
        until(lambda: any(c.centre.leader and c.centre.leader.ready for c in place.centres), PATIENCE, "a leader")
        taking = threading.Timer(0.15, place.client.delete, [place.keys.leader(0)])
        taking.start()  # while the failures below are being settled
        runs += failing(place, 15)
        taking.join()
    delivered(database, sorted(runs))
    nothing_lies(place)
    until(lambda: sum(history.puts[f"run_failed.{run}"] for run in runs) >= len(runs), PATIENCE, "the history")
    history.stop()
    assert [run for run in runs if history.puts[f"run_failed.{run}"] != 1] == []


def test_a_leader_that_dies_between_row_and_delete_leaves_one_row(
    place: Stage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.lead()
    died = threading.Event()

    def dies(self: object, found: object) -> bool:
        died.set()
        raise CronyError("this leader is dead")

    with monkeypatch.context() as patch:
        patch.setattr(duty.Delivery, "_delete", dies)
        runs = failing(place, 3)
        delivered(database, runs)
        assert died.wait(PATIENCE) and len(lying(place)) == 3
        first.stop()
    place.lead()
    nothing_lies(place)
    assert sorted(alert.run for alert in rows(database)) == runs


def _lock(place: Stage, database: Database) -> Iterator[None]:
    """Nobody else can use the file."""
    other = sqlite3.connect(str(database.url.database), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.rollback()
    other.close()


def test_a_failure_storm_while_sqlite_is_away_is_kept_up_to_the_bound(
    place: Stage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MOST_UNDELIVERED", 20)
    leader = place.lead()
    away = _lock(place, database)
    next(away)
    runs = failing(place, 75)
    until(lambda: leader.counts().get("settled", 0) >= 75, PATIENCE, "all of it to be settled")
    until(lambda: "alerts" in leader.status()["failing"], PATIENCE, "it to say what it cannot do")
    found = lying(place)
    kept = [alert for alert in found.values() if alert.kind == AlertKind.RUN_FAILED]
    (over,) = [alert for alert in found.values() if alert.kind == AlertKind.NOT_KEPT]
    assert len(kept) == 20 and over.times == 55, "what found no room is counted"
    assert leader.counts()["alerts_not_kept"] == 55 and leader.status()["alerts_undelivered"] >= 20
    next(away, None)
    nothing_lies(place)
    told = rows(database)
    assert len(told) == 21 and sum(alert.times for alert in told) == 75
    more = failing(place, 1)  # there is room again
    until(lambda: more[0] in {alert.run for alert in rows(database)}, PATIENCE, "the next one")
    assert set(runs) > {alert.run for alert in told if alert.run}


def test_nothing_is_lost_with_mariadb_away(etcd: EtcdServer, keys: Keys) -> None:
    with MariaServer() as server:
        url = server.fresh()
        database = Database(url, timeout=2)
        database.upgrade()
        with stage(etcd.endpoint, keys, database_url=url) as place:
            place.lead()
            server.stop()
            runs = failing(place, 10)
            until(lambda: len(lying(place)) == 10, PATIENCE, "the alerts to lie in etcd")
            server.start()
            delivered(database, runs)
            nothing_lies(place)
        database.close()


def test_a_node_that_is_lost_is_told_and_one_that_leaves_is_not(place: Stage, database: Database) -> None:
    nodes = {name: place.node(name) for name in ("lost", "stopped", "drained", "back", "alive")}
    leader = place.lead()
    until(lambda: len(leader.status()["nodes"]) == 5, PATIENCE, "the nodes")
    nodes["stopped"].say(draining=True)
    place.control("drained", drain=True)
    for name in ("lost", "stopped", "drained", "back"):
        nodes[name].vanish()
    nodes["back"].appear()
    until(lambda: [alert.node for alert in rows(database)] == ["lost"], PATIENCE, "the alert")
    nothing_lies(place)
    (alert,) = rows(database)
    assert alert.id == f"node_lost.{nodes['lost'].incarnation}" and alert.kind == "node_lost"
    book = leader.centre.leader.office.book  # type: ignore[union-attr]
    until(lambda: set(book.incarnations) == {nodes[n].incarnation for n in ("back", "alive")}, PATIENCE, "memory to go")
    assert [alert.node for alert in rows(database)] == ["lost"]


def test_a_node_lost_together_with_its_leader_is_told_by_the_next(place: Stage, database: Database) -> None:
    node, job = place.node("n1"), place.publish()
    first = place.lead()
    place.ask(job)
    message = until(node.messages, PATIENCE, "the run")[0]
    node.claim(message)
    first.stop()
    node.vanish()
    place.lead()
    until(lambda: [alert.node for alert in rows(database, "node_lost")] == ["n1"], PATIENCE, "the alert")


def test_a_run_nobody_begins_is_told_once_for_its_job(
    place: Stage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ages, "EVERY", 0.05)
    monkeypatch.setattr(ages, "OLD", 0.3)
    leader = place.lead()
    stuck, quick = place.publish(overlap="allow", routing={"labels": {"zone": "b"}}), place.publish(overlap="allow")
    node = place.node("n1")
    unfit = [place.ask(stuck).run for _ in range(3)]
    place.pool("few", 0)
    full = place.publish(limits=["pool:few"])
    crowded = place.ask(full).run
    claimed, unclaimed = place.ask(quick).run, place.ask(quick).run
    until(lambda: len(node.messages()) == 2, PATIENCE, "both")
    by_run = {message.run: message for message in node.messages()}
    node.claim(by_run[claimed])
    later = place.ask(quick, not_before_at=SYSTEM.wall() + 3600).run
    until(lambda: len(rows(database, "queue_age")) == 3, PATIENCE, "each job to be told of")
    told = {alert.job: alert for alert in rows(database)}
    assert told[full.id].run == crowded and "no free slot; pool few lets 0 run" in told[full.id].reason
    assert told[stuck.id].run in unfit and told[stuck.id].name == stuck.name and "no node fits" in told[stuck.id].reason
    assert told[quick.id].run == unclaimed and told[quick.id].node == "n1"
    looks = leader.counts().get("queue_age_done", 0)
    settled(lambda: leader.counts().get("queue_age_done", 0), still=0.5)
    assert looks == 3 == leader.counts()["queue_age_done"] and later not in {alert.run for alert in rows(database)}

    leader.stop()
    place.lead()  # its keys are gone, so it tells again; of the same runs that is the same alert
    nothing_lies(place)
    assert len(rows(database, "queue_age")) <= 4
    node.end(by_run[unclaimed], node.claim(by_run[unclaimed]))


def test_another_leader_is_told_and_the_first_or_the_same_is_not(place: Stage, database: Database) -> None:
    def led_by(name: str) -> RunningCentre:
        leader = place.lead(centre=name)
        last = place.keys.last_leader(0)
        term = leader.centre.leader._term.revision  # type: ignore[union-attr]
        until(lambda: (kv := place.client.get(last)) and f'"term":{term}'.encode() in kv.value, PATIENCE, "the note")
        return leader

    led_by("one").stop()
    led_by("one").stop()
    assert lying(place) == {} and rows(database) == []
    second = led_by("two")
    until(lambda: rows(database), PATIENCE, "the alert")
    (alert,) = rows(database)
    assert alert.kind == "leader_changed" and alert.reason == "two leads now, before it one did"
    assert alert.id == f"leader_changed.0.{second.centre.leader._term.revision}"  # type: ignore[union-attr]


def test_what_cannot_be_read_is_delivered_as_such(
    place: Stage, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"a" * 300: b"\xff\x00", "b": b'{"v": 99, "kind": "new"}', "c": b'{"v":1,"id":"c","kind":[],"at":"x"}'}
    for ident, value in odd.items():
        place.client.put(place.keys.alert(ident), value)
    caplog.set_level(logging.WARNING)
    place.lead()
    until(lambda: len(rows(database)) == 3, PATIENCE, "the rows")
    nothing_lies(place)
    assert {alert.kind for alert in rows(database)} == {"unreadable"}
    runs = failing(place, 1)
    delivered(database, runs)


def test_without_a_database_alerts_are_said_and_stay(
    etcd: EtcdServer, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    with stage(etcd.endpoint, keys) as place:
        place.lead()
        (run,) = failing(place, 1)
        until(lambda: [r for r in caplog.records if r.msg == "alert: %s" and run in str(r.args)], PATIENCE, "the line")
        assert list(lying(place)) == [f"run_failed.{run}"]
