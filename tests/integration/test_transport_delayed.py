"""ETA and countdown far ahead: the message waits in etcd, comes once and in time, whoever dies meanwhile."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kombu
import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.txn import Txn
from crony.transport_etcd import delayed, link
from crony.transport_etcd.delayed import DelayedOwner, due_in, shortened
from crony.transport_etcd.errors import AccessRefused
from crony.transport_etcd.message import decode, task_message
from crony.transport_etcd.places import later_place, published_at
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import Worker, application, connected, emptied, workers

Q = kombu.Queue("jobs", kombu.Exchange("jobs"), "jobs")


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys, eta_in_etcd=2, timeout=20) as connection:
        Q(connection.default_channel).declare()
        yield connection


def ahead(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def send(connection: kombu.Connection, body: Any, seconds: float, ident: str = "", **options: Any) -> None:
    headers = {"eta": ahead(seconds), "id": ident, "task": "judge.note"}
    options = {"routing_key": "jobs", **options}
    connection.Producer().publish(body, headers=headers, **options)


def test_what_waits_is_not_in_the_queue_until_shortly_before_its_time(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    start = time.time()
    send(connection, "later", 3.5)
    send(connection, "soon", 1.5)
    send(connection, "routed", 3.5, exchange="jobs")
    assert emptied(connection, "jobs") == ["soon"]
    assert delayed.count(client, keys) == {"jobs": 2}
    got: list[tuple[str, float]] = []

    def on_message(message: Any) -> None:
        got.append((message.payload, time.time() - start))
        message.ack()

    with connection.Consumer([Q], on_message=on_message):

        def both() -> bool:
            try:
                connection.drain_events(timeout=0.2)
            except TimeoutError:
                pass
            return len(got) == 2

        until(both, 30, "what waited has come", every=0)
    assert {body for body, _ in got} == {"later", "routed"}
    assert all(after >= 2.4 for _, after in got)
    assert client.count(keys.delayed) == 0


def test_without_a_consumer_it_waits_and_comes_when_there_is_one(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    send(connection, "x", 2.1)
    until(lambda: time.time() * 1e6 > int(client.list(keys.delayed).kvs[0].key.rsplit("/", 2)[1][:16], 16), 10)
    assert client.count(keys.delayed) == 1
    with connection.Consumer([Q], no_ack=False):
        until(lambda: delayed.count(client, keys) == {}, 20, "a consumer makes it come")
    assert emptied(connection, "jobs") == ["x"]


def stocked(client: Client, keys: Keys, count: int, size: int = 10, instant: float = 0.0) -> None:
    """So many messages that wait for the queue `jobs`, due already unless an instant is given."""
    txn = Txn(max_bytes=1024 * 1024)
    for number in range(count):
        at = (instant or time.time() - 100) + number / 1e3
        place = later_place(0, at, f"{number:016x}.e1")
        txn.put(
            keys.delayed_message(at, place, "jobs"), task_message("judge.note", f"id{number}", ["x" * size, number], {})
        )
    client.txn(txn)


def test_several_owners_move_each_message_once_and_in_order(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    stocked(client, keys, 95)
    stocked(client, keys, 5, size=100_000, instant=time.time() - 10)
    owners = [connection.default_channel.link.delayed] * 4
    with ThreadPoolExecutor(4) as pool:
        moved = [future.result(30) for future in [pool.submit(owner.release) for owner in owners]]
    assert sum(moved) == 100
    found = [decode(kv.value)["headers"]["id"] for kv in client.list(keys.messages("jobs")).kvs]
    assert found == [f"id{number}" for number in range(95)] + [f"id{number}" for number in range(5)]


def test_only_one_process_is_the_owner(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    owner = connection.default_channel.link.delayed
    assert owner._owns() and owner._owns()
    kept = client.get(keys.delayed_owner)
    assert kept is not None and kept.lease
    stamps, limits = connection.default_channel.link.publisher.stamps, connection.default_channel.link.publisher.limits
    session = Session(client, keys, ttl=10)
    session.start()
    other = DelayedOwner(client, keys, stamps, limits, lambda: session, 2)
    try:
        assert not other._owns()
        owner.start()
        owner.stop()
        until(lambda: client.get(keys.delayed_owner) is None, 10, "who stops lets others")
        assert other._owns()
    finally:
        session.close()


def test_a_deleted_queue_drops_what_waits_for_it_a_purge_does_not(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    stocked(client, keys, 2)
    connection.default_channel.queue_purge("jobs")
    assert delayed.count(client, keys) == {"jobs": 2}
    connection.default_channel.queue_delete("jobs")
    assert connection.default_channel.link.delayed.release() == 0
    assert client.count(keys.delayed) == client.count(keys.messages("jobs")) == 0


def test_what_waits_can_be_seen_and_dropped(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    for number in range(3):
        send(connection, number, 100 + number, ident=f"id{number}")
    send(connection, "other", 100, ident="id9", routing_key="other")
    seen = list(delayed.waiting(client, keys, "jobs"))
    assert [(each.queue, each.task, each.id) for each in seen] == [("jobs", "judge.note", f"id{n}") for n in range(3)]
    assert all(98 < each.enters_at - time.time() < 103 for each in seen)
    assert delayed.drop(client, keys, ids=["id1", "id9", "unknown"]) == 2
    assert delayed.drop(client, keys, "other") == 0
    assert delayed.drop(client, keys, "jobs") == 2
    assert client.count(keys.delayed) == 0


def test_a_queues_message_ttl_counts_from_its_entry(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    send(connection, "x", 1000, expiration=1500.0)
    (kv,) = client.list(keys.delayed).kvs
    place = kv.key.removeprefix(keys.delayed).partition(".")[2].rpartition("/")[0]
    assert abs(published_at(place) - time.time() - 999) < 5
    assert 490_000 < int(decode(kv.value)["properties"]["expiration"]) < 510_000


def test_reading_an_eta() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert due_in("2026-01-01T00:05:00+00:00", now, 60) == now + 270
    assert due_in("2026-01-01T08:05:00+08:00", now, 60) == now + 270
    assert due_in("2026-01-01T00:05:00", now, 60) == now + 270
    assert due_in(datetime(2026, 1, 1, 0, 5, tzinfo=UTC), now, 10) == now + 295
    for near in ("2026-01-01T00:01:00+00:00", "2025-01-01T00:00:00Z", "tomorrow", 17, "", "9999-99-99"):
        assert due_in(near, now, 60) == 0
    assert (shortened("10000", 4), shortened("10", 4), shortened("soon", 4)) == ("6000", "1", "soon")


def test_it_can_be_switched_off_and_nonsense_is_refused(etcd: EtcdServer, keys: Keys, client: Client) -> None:
    with connected(etcd, keys, eta_in_etcd=0) as off:
        send(off, "x", 1000)
        assert client.count(keys.delayed) == 0
    link.shut()
    with connected(etcd, keys, eta_in_etcd=-5) as bad, pytest.raises(AccessRefused, match="eta_in_etcd"):
        bad.connect()


def test_a_worker_runs_it_in_time_though_the_owner_is_killed(
    etcd: EtcdServer, keys: Keys, client: Client, tmp_path: Path
) -> None:
    app = application(etcd, keys)
    app.conf.broker_transport_options = {"eta_in_etcd": 2}
    pair = [Worker(etcd, keys, tmp_path, "threads", name=name, ttl=2, eta=2) for name in "ab"]
    with workers(*pair) as _:
        start = time.time()
        app.send_task("judge.note", ("due",), countdown=5)
        assert delayed.count(client, keys) == {"celery": 1}
        owning = json.loads(until(lambda: client.get(keys.delayed_owner), 20, "there is an owner").value)
        owner = next(worker for worker in pair if worker.process and worker.process.pid == owning["pid"])
        owner.signal(signal.SIGKILL)
        next(worker for worker in pair if worker is not owner).saw("due", timeout=40)
        assert time.time() - start >= 5
        application(etcd, keys).send_task("judge.note", ("short",), countdown=30)
        control = app.control.inspect(timeout=5)
        scheduled = until(lambda: [task for tasks in (control.scheduled() or {}).values() for task in tasks], 20)
        assert [task["request"]["args"] for task in scheduled] == [["short"]]
        assert pair[0].lines() == ["due"]
    app.close()
