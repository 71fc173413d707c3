"""Queues over a real etcd: order, credit, claims and their fences, what survives and what does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from kombu.exceptions import OperationalError

from crony.domain.run import Claim
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.txn import Txn, exists
from crony.transport_etcd import hooks, link
from crony.transport_etcd.errors import BrokerUnavailable, NotEquivalent, QueueNotFound, Refused
from crony.transport_etcd.message import task_message
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.wait import until, within
from tests.integration.transport_helpers import ROOT, connected, drained, put, url

Q = kombu.Queue("jobs", routing_key="jobs")


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def other(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


def bodies(messages: list[Any]) -> list[Any]:
    return [message.payload for message in messages]


def consume(connection: kombu.Connection, queue: Any, got: list[Any], **options: Any) -> kombu.Consumer:
    consumer = connection.Consumer([queue], on_message=got.append, **options)
    consumer.consume()
    return consumer


# -- order and credit ------------------------------------------------------------------------------


def test_in_order_and_higher_priorities_first(connection: kombu.Connection) -> None:
    Q(connection.default_channel).declare()
    for body, priority in (("a", 0), ("b", 9), ("c", 0), ("d", 5), ("e", 9)):
        put(connection, "jobs", body, priority=priority)
    got: list[Any] = []
    consume(connection, Q, got)
    assert bodies(drained(connection, got, 5)) == ["b", "e", "d", "a", "c"]


def test_only_as_many_as_the_prefetch_count_are_claimed(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    put(connection, "jobs", *range(10))
    got: list[Any] = []
    consumer = consume(connection, Q, got, prefetch_count=3)
    drained(connection, got, 3)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.2)
    assert client.count(keys.claims("jobs")) == 3
    got[0].ack()
    assert bodies(drained(connection, got, 4)) == [0, 1, 2, 3]
    consumer.qos(prefetch_count=5)
    assert bodies(drained(connection, got, 6)) == [0, 1, 2, 3, 4, 5]


def test_nothing_is_hoarded_without_a_prefetch_count(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    got: list[Any] = []
    consume(connection, Q, got)
    put(connection, "jobs", "x")
    drained(connection, got, 1)
    put(connection, "jobs", "y")
    assert connection.default_channel.basic_get("jobs").payload == "y"


def test_more_messages_than_the_window_holds(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    stamp = int(time.time() * 1e6)
    total = 1080
    for start in range(0, total, 90):
        txn = Txn()
        for number in range(start, start + 90):
            place = f"9{stamp + number:016x}.m{number}"
            txn.put(keys.message("jobs", place), task_message("t", str(number), [], {}))
        client.txn(txn)
    seen: list[str] = []

    def on_message(message: Any) -> None:
        seen.append(message.headers["id"])
        message.ack()

    connection.Consumer([Q], on_message=on_message, prefetch_count=200).consume()
    drained(connection, seen, total, 30)
    assert seen == [str(number) for number in range(total)]
    until(lambda: client.count(keys.queue("jobs")) == 0, what="everything is acknowledged")


# -- settling ----------------------------------------------------------------------------------------


def test_requeue_keeps_the_place_and_says_redelivered(connection: kombu.Connection, keys: Keys) -> None:
    put(connection, "jobs", "a", "b", "c")
    got: list[Any] = []
    consume(connection, Q, got, prefetch_count=2)
    drained(connection, got, 2)
    first = [message.properties["crony"] for message in got]
    assert [message.delivery_info["redelivered"] for message in got] == [False, False]
    for message in list(got):
        message.requeue()
    got.clear()
    drained(connection, got, 2)
    assert sorted(bodies(got)) == ["a", "b"]
    assert [message.delivery_info["redelivered"] for message in got] == [True, True]
    again = {message.properties["crony"]["place"]: message.properties["crony"] for message in got}
    for facts in first:
        assert again[facts["place"]]["count"] == facts["count"] + 1
        assert again[facts["place"]]["fence"] > facts["fence"]


def test_an_ack_after_a_takeover_removes_nothing(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    put(connection, "jobs", "a")
    message = connection.default_channel.basic_get("jobs")
    facts = message.properties["crony"]
    client.put(keys.claim("jobs", facts["place"]), Claim(incarnation="somebody", count=2).encode())
    message.ack()
    connection.default_channel.link.settler.flush(5)
    assert connection.default_channel.link.settler.stale >= 1
    assert client.get(keys.message("jobs", facts["place"])) is not None


def test_closing_gives_back_what_was_not_acknowledged(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys
) -> None:
    put(connection, "jobs", "a", "b", "c")
    got: list[Any] = []
    consume(connection, Q, got, prefetch_count=3)
    drained(connection, got, 3)
    got[1].ack()
    connection.release()
    again: list[Any] = []
    consume(other, Q, again, prefetch_count=9)
    assert bodies(drained(other, again, 2)) == ["a", "c"]


def test_what_a_pool_still_has_is_not_given_back(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(connection, "jobs", "a", "b")
    got: list[Any] = []
    consume(connection, Q, got, prefetch_count=2)
    drained(connection, got, 2)
    running = got[0]
    monkeypatch.setattr(hooks, "in_pool", lambda: {running.delivery_tag})
    settler = connection.default_channel.link.settler
    connection.release()
    settler.flush(5)
    held = {Claim.read(kv.value).incarnation != "" for kv in client.list(keys.claims("jobs")).kvs}
    assert held == {True, False}
    running.ack()
    until(lambda: client.count(keys.messages("jobs")) == 1, what="an ack after the connection still counts")


def test_no_ack_consumers_get_one_message_a_time(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    put(connection, "jobs", 1, 2, 3)
    got: list[Any] = []
    consume(connection, Q, got, no_ack=True)
    for count in (1, 2, 3):
        connection.drain_events(timeout=5)
        assert len(got) == count
    assert client.count(keys.queue("jobs")) == 0


# -- declarations --------------------------------------------------------------------------------------


def test_passive_declare_of_a_missing_queue_is_a_channel_error(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    with pytest.raises(QueueNotFound):
        channel.queue_declare("nowhere", passive=True)
    with pytest.raises(QueueNotFound):
        channel.exchange_declare("nowhere", passive=True)
    assert issubclass(QueueNotFound, connection.channel_errors)
    channel.queue_declare("here", durable=True)
    put(connection, "here", "x")
    assert channel.queue_declare("here", passive=True) == ("here", 1, 0)


def test_an_exchange_cannot_change_its_type(connection: kombu.Connection) -> None:
    connection.default_channel.exchange_declare("ex", type="topic")
    connection.default_channel.exchange_declare("ex", type="topic")
    with pytest.raises(NotEquivalent):
        connection.default_channel.exchange_declare("ex", type="direct")
    with pytest.raises(Refused):
        connection.default_channel.exchange_declare("hx", type="headers")


def test_unknown_queues_transient_messages_vanish_lasting_ones_make_it(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    put(connection, "gone", "x", delivery_mode="transient")
    assert client.count(keys.root) == client.count(keys.sessions)
    put(connection, "kept", "x")
    assert client.get(keys.queue_record("kept")) is not None
    assert client.count(keys.messages("kept")) == 1


def test_purge_and_delete(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    channel = connection.default_channel
    queue = kombu.Queue("p", kombu.Exchange("pe"), routing_key="k")(channel)
    queue.declare()
    put(connection, "p", *range(5))
    channel.basic_get("p")
    assert queue.purge() == 4
    assert queue.purge() == 0
    assert client.count(keys.messages("p")) == 1
    queue.delete()
    assert client.count(keys.queue("p")) == 0
    assert client.get(keys.queue_record("p")) is None
    assert list(channel.list_bindings()) == []


def test_exclusive_queues_go_with_their_connection(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    channel = connection.default_channel
    queue = kombu.Queue("mine", kombu.Exchange("ex"), "k", exclusive=True, auto_delete=True, durable=False)(channel)
    queue.declare()
    record = client.get(keys.queue_record("mine"))
    assert record is not None and record.lease
    connection.Producer().publish("x", exchange="ex", routing_key="k")
    (message,) = client.list(keys.messages("mine")).kvs
    assert message.lease
    connection.release()
    assert client.get(keys.queue_record("mine")) is None
    assert client.count(keys.queue("mine")) == 0


# -- publishing ----------------------------------------------------------------------------------------


def test_publishing_again_after_a_lost_answer_changes_nothing(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    channel = connection.default_channel
    properties: dict[str, Any] = {"delivery_mode": 2}
    first = channel.prepare_message("x", properties=properties)
    again = channel.prepare_message("x", properties=properties)
    channel.link.publisher.publish(first, "", "jobs")
    channel.basic_publish(again, "", "jobs")
    assert client.count(keys.messages("jobs")) == 1
    channel.basic_publish(channel.prepare_message("x", properties=properties), "", "jobs")
    assert client.count(keys.messages("jobs")) == 2


def test_a_message_too_large_is_a_clear_channel_error(connection: kombu.Connection) -> None:
    with pytest.raises(Refused, match="allowed") as caught:
        put(connection, "jobs", "x" * 1024 * 1024)
    assert isinstance(caught.value, connection.channel_errors)
    assert not isinstance(caught.value, connection.recoverable_connection_errors)
    put(connection, "jobs", "x" * 1000 * 1000)
    assert len(connection.default_channel.basic_get("jobs").payload) == 1000 * 1000


def test_large_messages_come_through_together(connection: kombu.Connection) -> None:
    put(connection, "jobs", *[letter * 500_000 for letter in "abcdefghijkl"])
    got: list[Any] = []
    consume(connection, Q, got, prefetch_count=50)
    drained(connection, got, 12, 30)
    assert [body[0] for body in bodies(got)] == list("abcdefghijkl")


def test_expired_messages_are_not_delivered(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    put(connection, "jobs", "old", expiration=0.001)
    put(connection, "jobs", "new", expiration=60)
    got: list[Any] = []
    consume(connection, Q, got, prefetch_count=5)
    assert bodies(drained(connection, got, 1)) == ["new"]
    until(lambda: client.count(keys.messages("jobs")) == 1, what="the expired one is removed")


def test_two_virtual_hosts_do_not_see_each_other(etcd: EtcdServer, keys: Keys, client: Client) -> None:
    elsewhere = Keys(keys.namespace + "-b")
    with connected(etcd, keys) as here, connected(etcd, elsewhere) as there:
        put(here, "jobs", "x")
        exchange = kombu.Exchange("ex", type="fanout")
        bound = kombu.Queue("f", exchange, exclusive=True, auto_delete=True, durable=False)
        bound(there.default_channel).declare()
        here.Producer().publish("y", exchange=exchange)
        assert there.default_channel.basic_get("jobs") is None
        assert there.default_channel.basic_get("f") is None
        assert here.default_channel.basic_get("jobs").payload == "x"
    assert client.count(keys.fan("ex")) == client.count(elsewhere.fan("ex")) == 0


# -- holders that are gone -------------------------------------------------------------------------------


def test_a_plain_claim_of_a_dead_holder_is_taken_over(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    dead = Session(client, keys, ttl=5)
    dead.start()
    put(connection, "jobs", "a", "b")
    first = client.list(keys.messages("jobs")).kvs[0].key.rsplit("/", 1)[1]
    claim = Claim(incarnation=dead.incarnation, count=1).encode()
    client.txn(Txn().when(exists(dead.key)).put(keys.claim("jobs", first), claim))
    got: list[Any] = []
    consume(connection, Q, got, prefetch_count=5)
    assert bodies(drained(connection, got, 1)) == ["b"]
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.3)
    ended = time.monotonic()
    dead.close()
    assert bodies(drained(connection, got, 2)) == ["b", "a"]
    assert time.monotonic() - ended > 0.9
    assert got[1].properties["crony"]["count"] == 2


# -- run queues --------------------------------------------------------------------------------------------

RUNS = kombu.Queue("run.n1", no_declare=True)


def run_message(client: Client, keys: Keys, number: int) -> str:
    place = f"9{number:016x}.r{number}"
    client.put(keys.message("run.n1", place), task_message("crony.run", f"r{number}:1", ["sealed"], {}))
    return place


def test_on_run_queues_nothing_deletes(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[tuple[dict[str, Any], bytes]] = []
    monkeypatch.setattr(hooks, "let_go", lambda facts, value: let_go.append((facts, value)))
    places = [run_message(client, keys, number) for number in range(4)]
    channel = connection.default_channel
    got: list[Any] = []
    consume(connection, RUNS, got, prefetch_count=4)
    drained(connection, got, 4)
    got[0].ack()
    got[1].reject()
    channel.queue_purge("run.n1")
    channel.queue_delete("run.n1")
    until(lambda: len(let_go) == 2, what="the hook is told")
    assert client.count(keys.messages("run.n1")) == 4
    assert {facts["place"] for facts, _ in let_go} == set(places[:2])
    facts, value = let_go[0]
    stored, held = client.get(keys.message("run.n1", facts["place"])), client.get(keys.claim("run.n1", facts["place"]))
    assert stored is not None and stored.value == value
    assert held is not None and held.mod == facts["fence"]
    assert keys.message("run.n1", places[0]).startswith(keys.run)


def test_the_hook_is_not_told_when_the_attempt_was_ended(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[Any] = []
    monkeypatch.setattr(hooks, "let_go", lambda facts, value: let_go.append(facts["place"]))
    ended, lost = run_message(client, keys, 1), run_message(client, keys, 2)
    got: list[Any] = []
    consume(connection, RUNS, got, prefetch_count=2)
    drained(connection, got, 2)
    client.txn(Txn().delete(keys.message("run.n1", ended)).delete(keys.claim("run.n1", ended)))
    for message in got:
        message.ack()
    until(lambda: let_go, what="the hook is told of the other one")
    assert let_go == [lost]


def test_runs_given_back_unbegun_are_claimable_and_begun_ones_are_asked_for(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def requeued(facts: dict[str, Any], value: bytes) -> bool:
        asked.append(facts["place"])
        return facts["place"] == places[0]

    monkeypatch.setattr(hooks, "requeued", requeued)
    places = [run_message(client, keys, number) for number in range(3)]
    got: list[Any] = []
    consumer = consume(connection, RUNS, got, prefetch_count=3)
    drained(connection, got, 3)
    consumer.cancel()
    got[0].requeue()
    got[1].requeue()
    connection.default_channel.link.settler.flush(5)
    assert asked == places[:2]
    holders = {kv.key.rsplit("/", 1)[1]: Claim.read(kv.value) for kv in client.list(keys.claims("run.n1")).kvs}
    assert [bool(holders[place].incarnation) for place in places] == [True, False, True]
    assert holders[places[1]].count == 1


def test_runs_held_by_the_dead_are_left_to_the_leader(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    place = run_message(client, keys, 1)
    client.put(keys.claim("run.n1", place), Claim(incarnation="nobody", count=1).encode())
    run_message(client, keys, 2)
    got: list[Any] = []
    consume(connection, RUNS, got, prefetch_count=2)
    drained(connection, got, 1)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=1.6)
    assert got[0].headers["id"] == "r2:1"


def test_a_node_that_may_not_claim_claims_nothing(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "may_claim", lambda queue: not queue.startswith("run."))
    run_message(client, keys, 1)
    got: list[Any] = []
    consume(connection, RUNS, got, prefetch_count=2)
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.3)
    monkeypatch.setattr(hooks, "may_claim", None)
    drained(connection, got, 1)


def test_nobody_else_publishes_runs(connection: kombu.Connection) -> None:
    with pytest.raises(Refused, match="run queue"):
        put(connection, "run.n1", "x")


def test_an_unreadable_message_is_quarantined(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    client.put(keys.message("run.n1", "90.bad"), b"not a message")
    run_message(client, keys, 1)
    got: list[Any] = []
    consume(connection, RUNS, got, prefetch_count=5)
    drained(connection, got, 1)
    dead = until(lambda: client.get(keys.dead("run.n1", "90.bad")), what="quarantined")
    assert dead.value == b"not a message"
    assert client.get(keys.message("run.n1", "90.bad")) is None
    assert client.get(keys.claim("run.n1", "90.bad")) is None


# -- connections -------------------------------------------------------------------------------------------


def test_a_dead_address_fails_within_the_connect_timeout(keys: Keys) -> None:
    (port,) = free_ports(1)
    with within(4, "giving up (Kombu tries twice)"), pytest.raises(ConnectionError) as caught:
        kombu.Connection(f"etcd3://127.0.0.1:{port}/{keys.namespace}", connect_timeout=2).connect()
    assert isinstance(caught.value, BrokerUnavailable)


def test_an_etcd_that_does_not_answer_is_given_up_in_time(own_etcd: EtcdServer, keys: Keys) -> None:
    with connected(own_etcd, keys) as connection:
        put(connection, "jobs", "a", "b")
        got: list[Any] = []
        consume(connection, Q, got, prefetch_count=2)
        drained(connection, got, 2)
        own_etcd.pause()
        try:
            got[0].ack()
            with within(6, "the release"):
                connection.release()
            with pytest.raises((OSError, OperationalError)):
                kombu.Connection(url(own_etcd, keys), connect_timeout=1).connect()
        finally:
            own_etcd.resume()
    with connected(own_etcd, keys) as connection:
        again: list[Any] = []
        consume(connection, Q, again, prefetch_count=2)
        assert bodies(drained(connection, again, 1)) == ["b"]


def test_a_forked_child_only_forgets_and_publishes_on_its_own(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    put(connection, "jobs", "a")
    got: list[Any] = []
    consume(connection, Q, got, prefetch_count=1)
    drained(connection, got, 1)
    session = connection.default_channel.link.session()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            held = got[0].channel
            connection.collect()
            held.close()
            put(connection, "jobs", "from the child")
            connection.release()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert session.alive and client.get(session.key) is not None
    held_by_us = client.get(keys.claim("jobs", got[0].properties["crony"]["place"]))
    assert held_by_us is not None and held_by_us.mod == got[0].properties["crony"]["fence"]
    got[0].ack()
    assert bodies(drained(connection, got, 2)) == ["a", "from the child"]


def test_the_password_is_not_shown(etcd: EtcdServer, keys: Keys) -> None:
    shown = kombu.Connection(url(etcd, keys).replace("127.0.0.1", "me:secret@127.0.0.1")).as_uri()
    assert "secret" not in shown
    assert shown.startswith("etcd3://me:")


def test_the_scheme_resolves_without_importing_crony(etcd: EtcdServer, keys: Keys, client: Client) -> None:
    code = "import sys, celery; celery.Celery(broker=sys.argv[1]).send_task('t', queue='jobs')"
    subprocess.run([sys.executable, "-c", code, url(etcd, keys)], check=True, timeout=30, cwd=ROOT)
    assert client.count(keys.messages("jobs")) == 1
