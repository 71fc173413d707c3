"""`x-max-length`: the newest messages stay, whoever publishes; what cannot be kept is refused at the declaration."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kombu
import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from crony.transport_etcd.errors import Refused
from crony.transport_etcd.max_length import Limits
from tests.helpers.etcd import EtcdServer
from tests.integration.transport_helpers import connected, emptied, put


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


def limited(connection: kombu.Connection, length: int, name: str = "short") -> None:
    kombu.Queue(name, max_length=length)(connection.default_channel).declare()


def test_the_newest_stay(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    limited(connection, 5)
    for number in range(12):
        put(connection, "short", number)
        assert client.count(keys.messages("short")) <= 5
    assert emptied(connection, "short") == [7, 8, 9, 10, 11]


def test_at_the_head_are_the_higher_priorities_as_in_rabbitmq(connection: kombu.Connection) -> None:
    limited(connection, 2)
    for number, priority in enumerate((0, 9, 0, 0)):
        put(connection, "short", number, priority=priority)
    assert emptied(connection, "short") == [2, 3]


def test_what_somebody_holds_does_not_count(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    limited(connection, 3)
    put(connection, "short", 0, 1)
    held = [connection.default_channel.basic_get("short") for _ in range(2)]
    put(connection, "short", *range(2, 8), priority=9)  # before those that are held
    assert client.count(keys.messages("short")) == 5
    for message in held:
        message.ack()
    assert emptied(connection, "short") == [5, 6, 7]


def test_a_publisher_that_never_declared_the_queue_keeps_its_length(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    exchange = kombu.Exchange("x", type="topic")
    kombu.Queue("short", exchange, "#", max_length=2)(connection.default_channel).declare()
    link.shut()
    with connected(etcd, keys) as other:
        producer = other.Producer()
        for number in range(4):
            producer.publish(number, exchange="x", routing_key="a")
        with producer.batch():
            for number in range(4, 9):
                producer.publish(number, routing_key="short")
        assert emptied(other, "short") == [7, 8]


def test_several_publishers_overshoot_by_little_and_not_for_long(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    limited(connection, 20)

    def publish(number: int) -> None:
        producer = connection.Producer(connection.channel())
        for count in range(40):
            producer.publish(f"{number}.{count}", routing_key="short")

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(publish, number) for number in range(4)]:
            future.result(60)
    assert client.count(keys.messages("short")) <= 24
    put(connection, "short", "last")
    found = emptied(connection, "short")
    assert len(found) == 20 and found[-1] == "last"


def test_two_that_make_room_at_once_drop_nothing_twice(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one lists the queue when the first has shortened it already."""
    limited(connection, 5)
    link = connection.default_channel.link
    first, second = (Limits(client, keys, link.queues) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(Limits, "grown", lambda self, queue, more=1: None)
        put(connection, "short", *range(8))
    counted = client.range

    def overtaken(*args: Any, **options: Any) -> Any:
        page = counted(*args, **options)
        if options.get("count_only"):
            monkeypatch.setattr(client, "range", counted)
            first.grown("short")
        return page

    monkeypatch.setattr(client, "range", overtaken)
    second.grown("short")
    assert first.dropped == 3
    assert emptied(connection, "short") == [3, 4, 5, 6, 7]


def test_a_queue_far_from_its_limit_is_rarely_counted(
    connection: kombu.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(connection, 10_000)
    counted: list[str] = []
    shorten = Limits._shorten

    def spy(self: Limits, queue: str, limit: int) -> int:
        counted.append(queue)
        return shorten(self, queue, limit)

    monkeypatch.setattr(Limits, "_shorten", spy)
    put(connection, "short", *range(100))
    put(connection, "unlimited", *range(10))
    assert counted == ["short"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"x-max-length": 5, "x-overflow": "reject-publish"}, "x-overflow 'reject-publish' is not supported"),
        ({"x-max-length-bytes": 5}, "x-max-length-bytes is not supported"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    connection: kombu.Connection, client: Client, keys: Keys, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        kombu.Queue("bad", queue_arguments=arguments)(connection.default_channel).declare()
    assert client.get(keys.queue_record("bad")) is None
