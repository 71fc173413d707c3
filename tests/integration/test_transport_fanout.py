"""Exchanges: broadcasts are one put and lose nothing from the binding on; topics and events cost nothing unheard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from kombu.asynchronous.hub import Hub

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import connected, drained

FAN = kombu.Exchange("fan", type="fanout", durable=False, delivery_mode="transient")


def private(name: str, exchange: kombu.Exchange = FAN, routing_key: str = "") -> kombu.Queue:
    return kombu.Queue(name, exchange, routing_key, exclusive=True, auto_delete=True, durable=False, message_ttl=300)


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


@pytest.fixture
def other(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


def test_a_broadcast_is_one_put_and_reaches_every_subscriber_from_its_binding_on(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys
) -> None:
    producer = other.Producer()
    producer.publish("nobody listens", exchange=FAN)
    assert client.count(keys.fan("fan")) == 0
    for name in ("a", "b"):
        private(name)(connection.default_channel).declare()
    before = client.range(keys.root, count_only=True).revision
    producer.publish(0, exchange=FAN)
    assert client.count(keys.fan("fan")) == 1
    assert client.count(keys.queue("a")) == client.count(keys.queue("b")) == 0
    assert client.range(keys.root, count_only=True).revision == before + 1
    for number in range(1, 20):
        producer.publish(number, exchange=FAN)
    got: dict[str, list[Any]] = {"a": [], "b": []}
    for name, into in got.items():
        consumer = connection.Consumer([private(name)], no_ack=True)
        consumer.register_callback(lambda body, message, into=into: into.append(body))
        consumer.consume()
    for number in range(20, 25):
        producer.publish(number, exchange=FAN)
    drained(connection, got["a"], 25)
    drained(connection, got["b"], 25)
    assert got["a"] == got["b"] == list(range(25))


def test_broadcasts_have_a_bounded_life(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys
) -> None:
    private("a")(connection.default_channel).declare()
    other.Producer().publish("x", exchange=FAN)
    (kept,) = client.list(keys.fan("fan")).kvs
    assert kept.lease


def test_compacted_history_loses_only_what_has_expired(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys
) -> None:
    private("a")(connection.default_channel).declare()
    for number in range(3):
        other.Producer().publish(number, exchange=FAN)
    client.compact(client.put(keys.control, b"{}"))
    got: list[Any] = []
    connection.Consumer([private("a")], no_ack=True, on_message=lambda m: got.append(m.payload)).consume()
    other.Producer().publish(3, exchange=FAN)
    assert drained(connection, got, 4) == [0, 1, 2, 3]


def test_a_lasting_queue_gets_a_copy_that_can_be_given_back(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys
) -> None:
    lasting = kombu.Queue("lasting", FAN)
    lasting(connection.default_channel).declare()
    other.Producer().publish("x", exchange=FAN, delivery_mode="persistent")
    assert client.count(keys.fan("fan")) == 0
    connection.default_channel.basic_get("lasting").requeue()
    assert connection.default_channel.basic_get("lasting").delivery_info["redelivered"]


def test_topics_match_words(connection: kombu.Connection, other: kombu.Connection) -> None:
    topic = kombu.Exchange("t", type="topic")
    for name, pattern in (("one", "a.*"), ("all", "#"), ("exact", "a.b"), ("none", "b.*")):
        kombu.Queue(name, topic, pattern)(connection.default_channel).declare()
    other.Producer().publish("x", exchange=topic, routing_key="a.b")
    found = {name for name in ("one", "all", "exact", "none") if connection.default_channel.basic_get(name)}
    assert found == {"one", "all", "exact"}


def test_a_binding_made_elsewhere_is_seen_at_once(connection: kombu.Connection, other: kombu.Connection) -> None:
    direct = kombu.Exchange("d", type="direct")
    producer = other.Producer()
    for name in ("first", "second", "third"):
        kombu.Queue(name, direct, "k")(connection.default_channel).declare()
        producer.publish(name, exchange=direct, routing_key="k")
    channel = connection.default_channel
    found = {name: [m.payload for m in iter(lambda: channel.basic_get(name), None)] for name in ("first", "third")}  # noqa: B023
    assert found == {"first": ["first", "second", "third"], "third": ["third"]}
    channel.queue_unbind("first", "d", "k")
    producer.publish("late", exchange=direct, routing_key="k")
    assert channel.basic_get("first") is None
    assert channel.basic_get("third").payload == "late"


def test_queues_whose_owner_died_get_nothing(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys
) -> None:
    direct = kombu.Exchange("replies", type="direct", durable=False)
    private("r", direct, "k")(connection.default_channel).declare()
    other.Producer().publish("x", exchange=direct, routing_key="k", delivery_mode="transient")
    assert client.count(keys.messages("r")) == 1
    owner = connection.default_channel.link.session()
    owner.may_renew = lambda: False  # as dead as can be: it would put back what it had, under a new lease
    client.revoke(owner.lease)
    until(lambda: client.count(keys.queue("r")) == 0, what="its messages went with it")
    other.Producer().publish("y", exchange=direct, routing_key="k", delivery_mode="transient")
    assert client.count(keys.queue("r")) == 0


def test_events_nobody_listens_to_cost_no_request_in_a_loop(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    events = kombu.Exchange("ev", type="topic", durable=False)
    channel = connection.default_channel
    producer = connection.Producer(channel)
    hub = Hub()
    connection.register_with_event_loop(hub)
    try:
        events(channel).declare()
        outbox = channel.link.publisher.outbox
        producer.publish({"type": "x"}, exchange=events, routing_key="worker.heartbeat", delivery_mode="transient")
        assert outbox.flush(5)
        revision = client.range(keys.root, count_only=True).revision
        for _ in range(50):
            producer.publish({"type": "x"}, exchange=events, routing_key="worker.heartbeat", delivery_mode="transient")
        assert outbox.flush(5)
        assert client.range(keys.root, count_only=True).revision == revision
        queue = kombu.Queue("listener", events, "worker.#")
        queue(channel).declare()

        def heard() -> bool:
            producer.publish("now", exchange=events, routing_key="worker.heartbeat", delivery_mode="transient")
            outbox.flush(5)
            return client.count(keys.messages("listener")) > 0

        until(heard, 5, "a listener that joins is noticed")
        assert outbox.dropped == 0
    finally:
        hub.close()


def test_an_event_loop_is_woken_for_each_message(
    connection: kombu.Connection, other: kombu.Connection, keys: Keys
) -> None:
    hub = Hub()
    got: list[Any] = []

    def on_message(message: Any) -> None:
        got.append(message.payload)
        message.ack()

    consumer = connection.Consumer([kombu.Queue("loop")], on_message=on_message, prefetch_count=2)
    consumer.consume()
    connection.register_with_event_loop(hub)
    try:
        for number in range(120):
            other.Producer().publish(number, routing_key="loop")

        def turned() -> bool:
            hub.run_once()
            return len(got) == 120

        until(turned, 20, "all came through the loop", every=0)
        assert got == list(range(120))
    finally:
        hub.close()
