"""What lies in queues: counted and removed exactly, whoever else is at work; what has outlived itself goes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from crony.domain.run import Claim
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.txn import Txn
from crony.transport_etcd import link
from crony.transport_etcd.declared import Declared
from crony.transport_etcd.message import task_message
from crony.transport_etcd.upkeep import Upkeep
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import connected, drained, put


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep that looks often."""
    for name, seconds in {"tick": 0.05, "unused_every": 0.1, "contents_every": 0.1}.items():
        monkeypatch.setattr(Upkeep, name, seconds)


def fill(
    client: Client, keys: Keys, queue: str, count: int, *, size: int = 0, holder: str = "", age: float = 0
) -> None:
    """Put messages straight into etcd, published `age` seconds ago, claimed by `holder` if one is named."""
    stamp = int((time.time() - age) * 1e6)
    if client.get(keys.queue_record(queue)) is None:
        client.put(keys.queue_record(queue), Declared(implicit=True).encode())
    places = [f"9{stamp + number:016x}.f{number}" for number in range(count)]
    claim = Claim(incarnation=holder).encode()
    for start in range(0, count, 40):
        txn = Txn()
        for place in places[start : start + 40]:
            txn.put(keys.message(queue, place), task_message("t", place, ["x" * size], {}))
            if holder:
                txn.put(keys.claim(queue, place), claim)
        client.txn(txn)


def counter(connection: kombu.Connection) -> list[int]:
    """Counts the bytes of answers that the transport gets from now on."""
    read: list[int] = [0]
    cluster = connection.default_channel.link.client.cluster
    call = cluster.call

    def counted(*args: Any, **options: Any) -> Any:
        answer = call(*args, **options)
        read[0] += len(json.dumps(answer))
        return answer

    cluster.call = counted
    return read


# -- counting and removing -----------------------------------------------------------------------------


def test_counting_and_purging_does_not_read_the_bodies(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    fill(client, keys, "q", 60, size=10_000)
    fill(client, keys, "q", 1100)
    channel = connection.default_channel
    channel.basic_get("q")
    read = counter(connection)
    assert channel.queue_declare("q", passive=True).message_count == 1159
    assert read[0] < 40_000  # it looks at the first message, to see whether it has expired
    assert channel.queue_purge("q") == 1159
    assert channel.queue_purge("q") == 0
    assert read[0] < 400_000
    assert client.count(keys.messages("q")) == client.count(keys.claims("q")) == 1


def test_messages_of_dead_holders_are_ready(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    live = Session(client, keys, ttl=10)
    live.start()
    try:
        fill(client, keys, "q", 45, holder=live.incarnation)
        fill(client, keys, "q", 30, holder="gone")
        fill(client, keys, "q", 5)
        channel = connection.default_channel
        assert channel.queue_declare("q", passive=True).message_count == 35
        got = until(lambda: channel.basic_get("q"), 10, "a free one comes")
        assert got.properties["crony"]["count"] == 1
        got.ack()

        def orphan() -> Any:
            found = iter(lambda: channel.basic_get("q"), None)
            return next((message for message in found if message.properties["crony"]["count"] == 2), None)

        assert until(orphan, 20, "one of the dead holder's").delivery_info["redelivered"]
        channel.basic_recover(requeue=True)
        channel.link.settler.flush(5)
        assert channel.queue_purge("q") == 34
        assert client.count(keys.messages("q")) == 45
        assert channel.queue_delete("q") == 45
        assert client.count(keys.queue("q")) == 0
    finally:
        live.close()


def test_purge_and_consumers_share_a_queue_exactly(etcd: EtcdServer, keys: Keys, client: Client) -> None:
    total = 1500
    fill(client, keys, "q", total)
    with connected(etcd, keys) as consuming, connected(etcd, keys, timeout=5) as purging:
        got: list[int] = []
        ready, stop = threading.Event(), threading.Event()

        def take(message: Any) -> None:
            got.append(1)
            message.ack()
            ready.set()

        def work() -> None:
            with consuming.Consumer([kombu.Queue("q")], on_message=take, prefetch_count=40):
                while not stop.is_set():
                    try:
                        consuming.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

        thread = threading.Thread(target=work)
        thread.start()
        try:
            assert ready.wait(20)
            purged = purging.default_channel.queue_purge("q")
            until(lambda: client.count(keys.messages("q")) == 0, 20, "the queue is empty")
        finally:
            stop.set()
            thread.join(20)
        assert 0 < purged < total
        assert purged + len(got) == total
        assert client.count(keys.claims("q")) == 0


def test_many_claims_are_counted_fast(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    session = connection.default_channel.link.session(5)
    fill(client, keys, "q", 4000, holder=session.incarnation)
    began = time.monotonic()
    assert connection.default_channel.queue_declare("q", passive=True).message_count == 0
    took = time.monotonic() - began
    print(f"4,000 claims counted in {took * 1000:.0f} ms")
    assert took < 5


# -- what has outlived itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("no_ack", [False, True])
def test_expired_messages_are_not_got_and_not_counted(
    connection: kombu.Connection, client: Client, keys: Keys, no_ack: bool
) -> None:
    channel = connection.default_channel
    kombu.Queue("q")(channel).declare()
    put(connection, "q", "old", "older", expiration=0.001)
    put(connection, "q", "new", expiration=60)
    until(lambda: channel.queue_declare("q", passive=True).message_count == 1, 5, "the expired ones do not count")
    assert client.count(keys.messages("q")) == 1
    put(connection, "q", "urgent", priority=9, expiration=0.001)
    got = until(lambda: channel.basic_get("q", no_ack=no_ack), 5, "the one that is left")
    assert got.payload == "new"
    assert channel.basic_get("q", no_ack=no_ack) is None


def test_the_queue_says_how_long_messages_live_also_to_those_who_did_not_declare_it(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    kombu.Queue("q", message_ttl=5)(connection.default_channel).declare()
    fill(client, keys, "q", 2, age=10)
    with connected(etcd, keys, timeout=5) as elsewhere:
        assert elsewhere.default_channel.queue_declare("q", passive=True).message_count == 0
        fill(client, keys, "q", 2, age=10)
        put(connection, "q", "new")
        got: list[Any] = []
        elsewhere.Consumer([kombu.Queue("q", no_declare=True)], on_message=got.append).consume()
        assert [message.payload for message in drained(elsewhere, got, 1)] == ["new"]
        until(lambda: client.count(keys.messages("q")) == 1, 10, "the old ones are removed")


@pytest.mark.usefixtures("quick")
def test_expired_messages_nobody_reaches_are_removed(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    channel = connection.default_channel
    kombu.Queue("ttl", message_ttl=0.2)(channel).declare()
    kombu.Queue("own")(channel).declare()
    for priority in (0, 5, 9):
        put(connection, "ttl", "x", priority=priority)
    put(connection, "own", "first", "second", expiration=0.2)
    put(connection, "own", "stays")
    fill(client, keys, "own", 1)
    put(connection, "own", "behind", expiration=0.2)
    connection.Consumer([kombu.Queue("watcher")], on_message=lambda m: None).consume()
    until(lambda: client.count(keys.messages("ttl")) == 0, 20, "every one that is past the queue's TTL")
    until(lambda: client.count(keys.messages("own")) == 3, 20, "those at the head that are past their own")
    assert channel.basic_get("own").payload == "stays"


def test_of_two_processes_one_does_the_upkeep(etcd: EtcdServer, keys: Keys, client: Client) -> None:
    held = Session(client, keys, ttl=10)
    held.start()
    try:
        with connected(etcd, keys) as connection:
            connection.Consumer([kombu.Queue("q")], on_message=lambda m: None).consume()
            upkeep = connection.default_channel.link.upkeep
            assert upkeep.my_turn() and upkeep.my_turn()
            client.put(keys.upkeep, b"{}", lease=held.lease)  # somebody took it while we were gone
            assert not upkeep.my_turn()
            client.delete(keys.upkeep)
            upkeep._link.session().detach(keys.upkeep)
            assert upkeep.my_turn()
        until(lambda: client.get(keys.upkeep) is None, 10, "who leaves lets go")
    finally:
        held.close()
