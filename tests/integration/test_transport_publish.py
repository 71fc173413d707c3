"""Publishing: once whatever is lost on the way, to every queue in one transaction or to none, within its limits."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kombu
import pytest

from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.transport_etcd import link, receipts
from crony.transport_etcd.errors import Refused
from crony.transport_etcd.exchange import Binding, Exchange
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until
from tests.integration.transport_helpers import answer_lost, application, connected, emptied, revision, written

DIRECT = kombu.Exchange("many", type="direct")


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


@pytest.fixture
def line(etcd: EtcdServer) -> Iterator[Proxy]:
    with Proxy(etcd.endpoint) as line:
        yield line


def left(connection: kombu.Connection, queue: str = "jobs") -> list[Any]:
    """Takes everything out of a queue."""
    channel = connection.default_channel
    return [message.payload for message in iter(lambda: channel.basic_get(queue, no_ack=True), None)]


def taken(connection: kombu.Connection, queue: str = "jobs") -> Any:
    """The first message of a queue, as soon as there is one."""
    return until(lambda: connection.default_channel.basic_get(queue, no_ack=True), 20, f"a message in {queue}").payload


# -- once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [0, 1, 3])
@pytest.mark.parametrize("exchange", ["", "many"])
def test_a_message_consumed_before_its_answer_is_lost_is_not_put_again(
    etcd: EtcdServer, keys: Keys, connection: kombu.Connection, exchange: str, looks: int
) -> None:
    """With `looks` etcd does not tell what became of the first try either, and Kombu itself has to try again."""
    kombu.Queue("jobs", DIRECT, "jobs")(connection.default_channel).declare()
    producer = connection.Producer()
    producer.publish("warm", exchange=exchange, routing_key="jobs")
    assert taken(connection) == "warm"
    got: list[Any] = []
    with connected(etcd, keys, timeout=9.0) as other:
        other.connect()
        client = connection.default_channel.link.client
        with answer_lost(client, lambda: got.append(taken(other)), looks):
            policy = {"interval_start": 0.01, "interval_step": 0.0}
            producer.publish("once", exchange=exchange, routing_key="jobs", retry=True, retry_policy=policy)
        assert got == ["once"]
        assert emptied(other, "jobs") == []


def test_a_request_that_arrives_after_its_repetition_does_nothing(
    connection: kombu.Connection, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = connection.default_channel
    message = channel.prepare_message("late", properties={"delivery_mode": 2})
    under_way: list[Txn] = []

    def slow(txn: Txn, timeout: float | None = None) -> Any:
        under_way.append(txn)
        raise EtcdUnknown("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(channel.link.client, "txn", slow)
        with pytest.raises(EtcdUnknown):
            channel.link.publisher.publish(message, "", "jobs")
    channel.link.publisher.publish(message, "", "jobs")
    assert taken(connection) == "late"
    assert [client.txn(txn).succeeded for txn in under_way] == [False, False]
    assert left(connection) == []


def test_a_receipt_that_ran_out_costs_a_request_and_no_message(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    producer = connection.Producer()
    producer.publish(1, routing_key="jobs")
    (receipt,) = client.list(keys.receipt("")).kvs
    assert receipt.lease
    client.revoke(receipt.lease)
    producer.publish(2, routing_key="jobs")
    producer.publish(3, routing_key="jobs")
    assert left(connection) == [1, 2, 3]
    assert client.count(keys.receipt("")) == 1


def test_idle_receipts_are_not_used_again(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.Producer().publish(1, routing_key="jobs")
    monkeypatch.setattr(receipts, "LIFE", 0.0)
    connection.Producer().publish(2, routing_key="jobs")
    assert client.count(keys.receipt("")) == 2


def test_a_declaration_whose_answers_are_lost_is_repeated(etcd: EtcdServer, line: Proxy, keys: Keys) -> None:
    """By the transport itself: Celery's three retries are used up by other threads' bad luck on the same line."""
    broker = f"etcd3://127.0.0.1:{line.port}/{keys.namespace}"
    with kombu.Connection(broker) as connection:
        channel = connection.default_channel
        channel.queue_declare("warm")
        for lost in range(2):
            queue = kombu.Queue(f"declared{lost}", kombu.Exchange(f"declared{lost}", type="topic"), "#")
            for key in (keys.exchange(queue.exchange.name), keys.queue_record(queue.name)):
                for _ in range(lost + 1):
                    line.lose_answer_about(key)
            queue(channel).declare()
            assert channel.get_table(queue.exchange.name) == [("#", None, queue.name)]
    assert line.lost >= 4


def test_eight_threads_of_celery_over_a_line_that_loses_answers(
    etcd: EtcdServer, connection: kombu.Connection, line: Proxy, keys: Keys
) -> None:
    """`apply_async` with its usual retry while a consumer takes what arrives: each task arrives once."""
    seed = random.randrange(2**32)
    print("seed", seed)
    app = application(etcd, keys)
    app.conf.broker_url = f"etcd3://127.0.0.1:{line.port}/{keys.namespace}"

    @app.task(name="judge.word")
    def task(word: str) -> str:
        return word

    got: list[str] = []
    done = threading.Event()

    def on_message(message: Any) -> None:
        got.append(message.payload[0][0])
        message.ack()

    def consume() -> None:
        with connection.Consumer([kombu.Queue("celery")], on_message=on_message, prefetch_count=50):
            while not (done.is_set() and len(got) >= 8 * 25):
                try:
                    connection.drain_events(timeout=0.2)
                except TimeoutError:
                    if done.is_set():
                        return

    def publish(number: int) -> None:
        dice = random.Random(seed + number)
        for count in range(25):
            if dice.random() < 0.15:
                line.lose_answer(b"/v3/kv/txn")
            if dice.random() < 0.02:
                line.break_links()
            task.apply_async((f"{number}.{count}",), retry=True, retry_policy={"interval_start": 0.02})

    consumer = threading.Thread(target=consume)
    consumer.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(publish, number) for number in range(8)]:
                future.result(120)
    finally:
        done.set()
        consumer.join(30)
        app.close()
    assert line.lost > 5
    assert {word: times for word, times in Counter(got).items() if times != 1} == {}
    assert len(got) == 8 * 25
    for number in range(8):
        mine = [word for word in got if word.startswith(f"{number}.")]
        assert mine == [f"{number}.{count}" for count in range(25)]


# -- to every queue or to none ----------------------------------------------------------------------


def bound(connection: kombu.Connection, count: int, exchange: str = "many", kind: str = "direct") -> list[str]:
    """So many lasting queues bound to an exchange with the key `k`, the cheap way."""
    tables = connection.default_channel.link.tables
    tables.declare(exchange, Exchange(kind))
    names = [f"q{number:03}" for number in range(count)]
    for name in names:
        tables.bind(exchange, Binding(name, "k"))
    return names


@pytest.mark.parametrize("count", [1, 49, 99, 100])
def test_all_queues_get_their_copy_in_one_transaction(
    connection: kombu.Connection, client: Client, keys: Keys, count: int
) -> None:
    names = bound(connection, count)
    producer = connection.Producer()
    producer.publish("warm", exchange="many", routing_key="k")
    before = revision(client, keys)
    producer.publish("x", exchange="many", routing_key="k")
    assert written(client, keys, before) == 1
    assert [client.count(keys.messages(name)) for name in names] == [2] * count


def test_more_than_a_hundred_queues_are_refused_whole(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    bound(connection, 101)
    before = revision(client, keys)
    with pytest.raises(Refused, match=r"101 queues .* 100 are allowed"):
        connection.Producer().publish("x", exchange="many", routing_key="k")
    assert written(client, keys, before) == 0
    with pytest.raises(connection.channel_errors):
        connection.Producer().publish("x", exchange="many", routing_key="k")


def test_copies_that_do_not_fit_are_refused_whole(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    bound(connection, 3)
    before = revision(client, keys)
    with pytest.raises(Refused, match=r"3 copies of 5[0-9]* bytes do not fit"):
        connection.Producer().publish("x" * 500_000, exchange="many", routing_key="k")
    assert written(client, keys, before) == 0
    connection.Producer().publish("x" * 300_000, exchange="many", routing_key="k")
    assert client.count(keys.messages("q002")) == 1


def test_a_lasting_and_a_private_queue_of_a_fan_out_in_one_transaction(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    fan = kombu.Exchange("fan", type="fanout")
    kombu.Queue("private", fan, exclusive=True, auto_delete=True, durable=False)(connection.default_channel).declare()
    names = bound(connection, 2, "fan", "fanout")
    producer = connection.Producer()
    producer.publish("warm", exchange="fan")
    before = revision(client, keys)
    producer.publish("x", exchange="fan")
    assert written(client, keys, before) == 1
    assert [left(connection, name) for name in names] == [["warm", "x"]] * 2
    assert left(connection, "private") == ["warm", "x"]


def test_nobody_bound_is_no_write_and_told_to_who_asked(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    DIRECT(connection.default_channel).declare()
    before = revision(client, keys)
    returned: list[Any] = []
    producer = connection.Producer(on_return=lambda *what: returned.append(what))
    producer.publish("ignored", exchange="many", routing_key="nowhere")
    producer.publish("back", exchange="many", routing_key="nowhere", mandatory=True)
    assert written(client, keys, before) == 0
    ((error, exchange, routing_key, message),) = returned
    assert "NO_ROUTE" in str(error) and (exchange, routing_key) == ("many", "nowhere")
    assert message["body"] == b"back"
