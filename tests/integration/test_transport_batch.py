"""`Producer.batch`: many messages in few transactions, in order, each once; and a plain word when that is uncertain."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import kombu
import pytest
from kombu.exceptions import BatchPublishError

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import MAX_BYTES
from crony.transport_etcd import link
from crony.transport_etcd.errors import Refused
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.integration.transport_helpers import answer_lost, application, connected, emptied, revision, written

DIRECT = kombu.Exchange("d", type="direct")
FAN = kombu.Exchange("fan", type="fanout")


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        connection.Producer().publish("warm", routing_key="jobs")
        connection.default_channel.queue_purge("jobs")
        yield connection


def test_a_batch_is_few_transactions_in_order(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    producer = connection.Producer()
    assert producer.supports_batch_publish
    before = revision(client, keys)
    with producer.batch() as batch:
        for number in range(120):
            producer.publish(number, routing_key="jobs")
        assert written(client, keys, before) == 0
        batch.flush()
        assert written(client, keys, before) == 2  # 99 messages and their receipt, then the rest
        producer.publish(120, routing_key="new")
    assert written(client, keys, before) == 3
    producer.publish(121, routing_key="new")
    assert emptied(connection, "jobs") == list(range(120))
    assert emptied(connection, "new") == [120, 121]


def test_everything_that_can_be_published_can_be_in_a_batch(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    channel = connection.default_channel
    for name, exchange in (("a", DIRECT), ("b", DIRECT), ("lasting", FAN)):
        kombu.Queue(name, exchange, "k")(channel).declare()
    for name in ("one", "two"):
        kombu.Queue(name, FAN, exclusive=True, auto_delete=True, durable=False)(channel).declare()
    producer = connection.Producer()
    producer.publish("warm", exchange=FAN)
    producer.publish("warm", exchange=DIRECT, routing_key="k")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    before = revision(client, keys)
    with producer.batch():
        producer.publish(1, exchange=DIRECT, routing_key="k")
        producer.publish(2, exchange=DIRECT, routing_key="k", priority=5)
        producer.publish(3, exchange=FAN)
        producer.publish("unheard", exchange=DIRECT, routing_key="nobody")
        producer.publish("gone", routing_key="no such queue", delivery_mode=1)
        producer.publish("short", routing_key="a", delivery_mode=1)
        producer.publish("later", routing_key="a", headers={"eta": later})
        for number in range(3):
            producer.publish(number, routing_key="made by it")
    assert written(client, keys, before) == 1
    assert emptied(connection, "a") == [2, "warm", 1, "short"]
    assert emptied(connection, "b") == [2, "warm", 1]
    assert emptied(connection, "made by it") == [0, 1, 2]
    heard = [[message.payload for message in iter(lambda: channel.basic_get(name), None)] for name in ("one", "two")]  # noqa: B023
    assert heard == [["warm", 3]] * 2
    assert emptied(connection, "lasting") == ["warm", 3]
    assert client.count(keys.delayed) == 1
    assert client.get(keys.queue_record("no such queue")) is None


def test_a_batch_sends_itself_when_it_is_full_and_forgets_what_was_not_sent(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    producer = connection.Producer()
    with pytest.raises(KeyError), producer.batch(max_size=2), producer.batch():
        for number in range(5):
            producer.publish(number, routing_key="jobs")
        assert client.count(keys.messages("jobs")) == 4
        raise KeyError
    assert emptied(connection, "jobs") == [0, 1, 2, 3]
    batch = connection.default_channel.create_publish_batch(10)
    batch.discard()
    with pytest.raises(RuntimeError, match="aborted"):
        batch.flush()
    batch.close()
    with pytest.raises(RuntimeError, match="closed"):
        batch.flush()


def test_large_messages_are_spread_and_too_large_ones_refused(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    producer = connection.Producer()
    before = revision(client, keys)
    with producer.batch():
        for _ in range(9):
            producer.publish("x" * (MAX_BYTES // 4), routing_key="jobs")
        with pytest.raises(Refused):
            producer.publish("x" * 2**20, routing_key="jobs")
        producer.publish("y" * 1_000_000, routing_key="jobs")
    assert written(client, keys, before) == 4
    assert [len(body) for body in emptied(connection, "jobs")] == [MAX_BYTES // 4] * 9 + [1_000_000]


def test_bindings_that_changed_before_it_was_sent_are_followed(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    producer = connection.Producer()
    kombu.Queue("first", DIRECT, "k")(channel).declare()
    with producer.batch():
        producer.publish(1, exchange=DIRECT, routing_key="k")
        kombu.Queue("second", DIRECT, "k")(channel).declare()
        producer.publish(2, exchange=DIRECT, routing_key="k")
        channel.queue_unbind("first", "d", "k")
    assert emptied(connection, "second") == [1, 2]
    assert emptied(connection, "first") == []


def test_celery_publishes_in_a_batch(etcd: EtcdServer, keys: Keys, client: Client) -> None:
    app = application(etcd, keys)
    with app.producer_or_acquire() as producer, producer.batch():
        for number in range(10):
            app.send_task("judge.note", (str(number),), producer=producer)
        assert client.count(keys.messages("celery")) == 0
    assert client.count(keys.messages("celery")) == 10
    app.close()


# -- a line that breaks ------------------------------------------------------------------------------


@pytest.fixture
def line(etcd: EtcdServer) -> Iterator[Proxy]:
    with Proxy(etcd.endpoint) as line:
        yield line


@pytest.fixture
def far(line: Proxy, keys: Keys, connection: kombu.Connection) -> Iterator[kombu.Connection]:
    url = f"etcd3://127.0.0.1:{line.port}/{keys.namespace}"
    with kombu.Connection(url, transport_options={"timeout": 1.0}) as far:
        far.Producer().publish("warm", routing_key="jobs")
        assert emptied(connection, "jobs") == ["warm"]
        yield far


def test_a_batch_consumed_before_its_answer_is_lost_is_not_put_again(
    etcd: EtcdServer, keys: Keys, connection: kombu.Connection
) -> None:
    producer = connection.Producer()
    got: list[Any] = []
    with connected(etcd, keys, timeout=9.0) as other:
        other.connect()
        client = connection.default_channel.link.client
        with answer_lost(client, lambda: got.extend(emptied(other, "jobs"))), producer.batch():
            for number in range(150):
                producer.publish(number, routing_key="jobs")
        assert got == list(range(99))
        assert emptied(other, "jobs") == list(range(99, 150))


@pytest.mark.parametrize("certain", [True, False])
def test_a_batch_that_fails_says_what_is_certain_and_is_not_used_again(
    connection: kombu.Connection, far: kombu.Connection, line: Proxy, certain: bool
) -> None:
    batch = far.default_channel.create_publish_batch(1000)
    producer = far.Producer()

    def add(count: int) -> None:
        for number in range(count):
            message = far.default_channel.prepare_message(str(number), properties={"delivery_mode": 2})
            batch.publish(message, exchange="", routing_key="jobs", mandatory=False)

    add(5)
    batch.flush()
    add(5)
    if certain:
        line.cut()
        with pytest.raises(BatchPublishError, match=r"5 messages .* no others"):
            batch.flush()
        line.heal()
    else:
        client = far.default_channel.link.client
        with answer_lost(client, lambda: None, 1), pytest.raises(BatchPublishError, match=r"5 messages .* not certain"):
            batch.flush()
    with pytest.raises(BatchPublishError, match="before"):
        add(1)
    with pytest.raises(BatchPublishError, match="before"):
        batch.flush()
    batch.discard()
    batch.close()
    assert emptied(connection, "jobs") == [str(number) for number in range(5)] * (1 if certain else 2)
    producer.publish("after", routing_key="jobs")
    assert emptied(connection, "jobs") == ["after"]
