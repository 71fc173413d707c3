"""Queues and exchanges: declared, declared again, counted, no longer used; by this process and by others."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import kombu
import pytest
from kombu.pidbox import Mailbox

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from crony.transport_etcd.declared import Declared
from crony.transport_etcd.errors import Locked, NotEquivalent, PreconditionFailed, QueueNotFound
from crony.transport_etcd.upkeep import Upkeep
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import ROOT, connected, drained, put, url

ANOTHER = """
import sys, kombu, crony.transport_etcd
url, name, how = sys.argv[1], sys.argv[2], eval(sys.argv[3])
with kombu.Connection(url, transport_options={"session_ttl": 2}) as connection:
    queue = kombu.Queue(name, **how)(connection.default_channel)
    queue.declare()
    queue.consume(consumer_tag="c", callback=lambda message: None)
    print("consuming", flush=True)
    sys.stdin.read()
"""


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep that looks often."""
    for name, seconds in {"tick": 0.05, "unused_every": 0.1, "contents_every": 0.1, "grace": 0.5}.items():
        monkeypatch.setattr(Upkeep, name, seconds)


@contextmanager
def another(etcd: EtcdServer, keys: Keys, name: str, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that declares and consumes a queue; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", ANOTHER, url(etcd, keys), name, repr(how)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "consuming\n"
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=20)


def names(client: Client, keys: Keys) -> set[str]:
    """Queues that have a record."""
    return {kv.key.removeprefix(keys.queue_records) for kv in client.list(keys.queue_records).kvs}


# -- declared again ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"durable": True}, {"durable": False}, "durable is true there and false here"),
        ({"auto_delete": False}, {"auto_delete": True}, "auto_delete"),
        ({"arguments": {"x-message-ttl": 5000}}, {"arguments": {"x-message-ttl": 6000}}, "5000 there and 6000 here"),
        ({"arguments": {"x-expires": 5000}}, {}, "x-expires is 5000 there and not set here"),
        ({}, {"arguments": {"x-delivery-limit": 3}}, "x-delivery-limit"),
        ({}, {"arguments": {"x-dead-letter": True}}, "x-dead-letter"),
        ({}, {"arguments": {"x-max-length": 3}}, "x-max-length"),
    ],
)
def test_a_declaration_that_differs_is_refused_and_says_in_what(
    connection: kombu.Connection, first: dict[str, Any], second: dict[str, Any], named: str
) -> None:
    channel = connection.default_channel
    channel.queue_declare("q", **{"durable": True, **first})
    with pytest.raises(NotEquivalent, match=named) as caught:
        channel.queue_declare("q", **{"durable": True, **second})
    assert caught.value.reply_code == 406
    assert isinstance(caught.value, connection.channel_errors)
    channel.queue_declare("q", **{"durable": True, **first})


def test_arguments_that_mean_nothing_here_need_not_agree(connection: kombu.Connection) -> None:
    channel = connection.default_channel
    channel.queue_declare("q", durable=True, arguments={"x-max-priority": 9, "x-message-ttl": 1000})
    channel.queue_declare("q", durable=True, arguments={"x-message-ttl": 1000.0, "x-queue-type": "quorum"})


@pytest.mark.parametrize("arguments", [{"x-expires": 0}, {"x-message-ttl": "soon"}, {"x-max-length": -1}])
def test_arguments_that_cannot_be_are_named(connection: kombu.Connection, arguments: dict[str, Any]) -> None:
    with pytest.raises(PreconditionFailed, match=next(iter(arguments))):
        connection.default_channel.queue_declare("q", durable=True, arguments=arguments)


def test_a_queue_made_by_a_message_takes_the_first_declaration(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    put(connection, "q", "x")
    connection.default_channel.queue_declare("q", durable=True, arguments={"x-delivery-limit": 3})
    stored = client.get(keys.queue_record("q"))
    assert stored is not None and Declared.read(stored.value).limit(0) == 3
    with pytest.raises(NotEquivalent):
        connection.default_channel.queue_declare("q", durable=True)
    assert connection.default_channel.basic_get("q").payload == "x"


def test_a_queue_deleted_elsewhere_is_made_again(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    queue = kombu.Queue("q", kombu.Exchange("ex"), "k")
    queue(connection.default_channel).declare()
    client.delete_prefix(keys.queue_records)
    client.delete_prefix(keys.bindings)
    queue(connection.default_channel).declare()
    connection.Producer().publish("x", exchange="ex", routing_key="k")
    assert connection.default_channel.basic_get("q").payload == "x"


def test_exclusive_to_another_process(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    private = {"exclusive": True, "durable": False, "auto_delete": True}
    channel = connection.default_channel
    with another(etcd, keys, "mine", **private):
        for how in ({"durable": True}, {"exclusive": True}):
            with pytest.raises(Locked) as caught:
                channel.queue_declare("mine", **how)
            assert caught.value.reply_code == 405
        # The same declaration is let in: it may be the same node, back before its lease has ended.
        assert channel.queue_declare("mine", **private).consumer_count == 1
    # It is ours now, and does not go with the one that was killed.
    until(lambda: client.count(keys.consumer("mine")) == 0, 30, "the other's lease ends")
    assert client.get(keys.queue_record("mine")) is not None


# -- consumers -----------------------------------------------------------------------------------------


def test_consumers_are_counted_in_all_processes(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    channel = connection.default_channel

    def count() -> int:
        return int(channel.queue_declare("q", passive=True).consumer_count)

    consumer = connection.Consumer([kombu.Queue("q", no_ack=True), kombu.Queue("q")], on_message=lambda m: None)
    consumer.consume()
    assert count() == 1  # Kombu takes queues of one name for one
    with another(etcd, keys, "q"):
        assert count() == 2
        with pytest.raises(PreconditionFailed, match="2 consumers") as caught:
            channel.queue_delete("q", if_unused=True)
        assert caught.value.reply_code == 406
        consumer.cancel()
        assert count() == 1
    until(lambda: count() == 0, 30, "the lease of the killed one ends")
    put(connection, "q", "x", "y")
    assert channel.basic_get("q") is not None
    with pytest.raises(PreconditionFailed, match="2 messages"):
        channel.queue_delete("q", if_empty=True)
    assert channel.queue_delete("q", if_unused=True) == 2
    with pytest.raises(QueueNotFound) as missing:
        channel.queue_declare("q", passive=True)
    assert missing.value.reply_code == 404
    assert channel.queue_delete("q") == 0


def test_remote_control_warns_of_two_workers_with_one_name(etcd: EtcdServer, keys: Keys) -> None:
    def listen(connection: kombu.Connection) -> Any:
        mailbox = Mailbox("celery", type="fanout", connection=connection, queue_expires=10, queue_ttl=300)
        return mailbox.Node("w@host").listen(channel=connection.default_channel)

    with connected(etcd, keys) as first, connected(etcd, keys) as second:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            consumer = listen(first)
        with pytest.warns(UserWarning, match="already using this process mailbox"):
            listen(second).cancel()
        consumer.cancel()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            listen(second).cancel()


# -- no longer used --------------------------------------------------------------------------------------


def test_the_last_consumer_takes_an_auto_delete_queue_with_it(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    queue = kombu.Queue("q", kombu.Exchange("ex"), "k", auto_delete=True)
    consumer = connection.Consumer([queue], on_message=lambda m: None)
    consumer.consume()
    with another(etcd, keys, "q", auto_delete=True) as process:
        consumer.cancel()
        assert names(client, keys) == {"q"}
        process.communicate("", timeout=20)
    assert names(client, keys) == set()
    assert list(connection.default_channel.list_bindings()) == []


@pytest.mark.usefixtures("quick")
def test_an_auto_delete_queue_whose_consumer_crashed_does_not_stay(
    etcd: EtcdServer, connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    connection.Consumer([kombu.Queue("watcher")], on_message=lambda m: None).consume()
    with another(etcd, keys, "q", auto_delete=True):
        put(connection, "q", "x")
        kombu.Queue("unused", auto_delete=True)(connection.default_channel).declare()
    until(lambda: names(client, keys) == {"watcher", "unused"}, 30, "only what had no consumer yet stays")
    assert client.count(keys.queue("q")) == 0
    until(lambda: connection.default_channel.link.upkeep.deleted == 1, 10, "it is counted")


@pytest.mark.usefixtures("quick")
def test_a_queue_expires_only_while_nobody_uses_it(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    channel = connection.default_channel
    expiring = {name: kombu.Queue(name, expires=2.5) for name in ("consumed", "fetched", "declared", "idle")}
    for queue in expiring.values():
        queue(channel).declare()
    put(connection, "idle", "x")
    consumer = connection.Consumer([expiring["consumed"]], on_message=lambda m: None)
    consumer.consume()

    def used() -> bool:
        channel.basic_get("fetched")
        expiring["declared"](channel).declare()
        return "idle" not in names(client, keys)

    until(used, 40, "the idle one expires")
    assert names(client, keys) == {"consumed", "fetched", "declared"}
    assert client.count(keys.queue("idle")) == 0
    connection.Consumer([kombu.Queue("watcher")], on_message=lambda m: None).consume()
    consumer.cancel()
    until(lambda: names(client, keys) == {"watcher"}, 40, "the others expire when they are not used any more")


@pytest.mark.usefixtures("quick")
def test_an_exclusive_queue_expires_too_unless_it_is_consumed(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    private: dict[str, Any] = {"exclusive": True, "auto_delete": True, "durable": False, "expires": 0.5}
    kombu.Queue("idle", **private)(connection.default_channel).declare()
    connection.Consumer([kombu.Queue("consumed", **private)], on_message=lambda m: None).consume()
    until(lambda: names(client, keys) == {"consumed"}, 20, "the idle one expires")
    kombu.Queue("idle", **private)(connection.default_channel).declare()
    assert names(client, keys) == {"consumed", "idle"}


def test_a_consumer_that_comes_while_the_last_one_goes_keeps_the_queue(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys
) -> None:
    """Whatever the order, a queue that is consumed has its record and its binding, and gets its messages."""
    exchange = kombu.Exchange("ex")
    for number in range(8):
        queue = kombu.Queue(f"q{number}", exchange, f"k{number}", auto_delete=True)
        leaving = connection.Consumer([queue], on_message=lambda m: None)
        leaving.consume()
        got: list[Any] = []
        coming = other.Consumer([queue], on_message=got.append)
        going = threading.Thread(target=leaving.cancel)
        going.start()
        coming.consume()
        going.join(10)
        other.Producer().publish(number, exchange=exchange, routing_key=f"k{number}")
        assert [m.payload for m in drained(other, got, 1)] == [number]
        assert queue.name in names(client, keys)
        coming.cancel()
        assert queue.name not in names(client, keys)


@pytest.mark.parametrize("by_another_process", [False, True])
def test_a_queue_that_went_after_its_declaration_is_made_again_with_its_binding(
    connection: kombu.Connection, other: kombu.Connection, client: Client, keys: Keys, by_another_process: bool
) -> None:
    exchange = kombu.Exchange("ex")
    queue = kombu.Queue("q", exchange, "k", auto_delete=True)
    leaving = connection.Consumer([queue], on_message=lambda m: None)
    leaving.consume()
    queue(other.default_channel).declare()
    if by_another_process:
        client.delete_prefix(keys.queue_records)
        client.delete_prefix(keys.bindings)
    else:
        leaving.cancel()
    assert names(client, keys) == set()
    got: list[Any] = []
    other.Consumer([queue], on_message=got.append, auto_declare=False).consume()
    exchange(other.default_channel).declare()
    other.Producer().publish("x", exchange="ex", routing_key="k")
    assert [message.payload for message in drained(other, got, 1)] == ["x"]
    assert names(client, keys) == {"q"}


# -- exchanges and bindings ----------------------------------------------------------------------------------


def test_exchanges_in_use_and_no_longer_used(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    channel = connection.default_channel
    for name, gone in (("stays", False), ("goes", True)):
        exchange = kombu.Exchange(name, "topic", auto_delete=gone)
        for key in ("a", "b"):
            kombu.Queue(f"q.{key}", exchange, key)(channel).declare()
    with pytest.raises(PreconditionFailed, match="has bindings"):
        channel.exchange_delete("stays", if_unused=True)
    for name in ("stays", "goes"):
        channel.queue_unbind("q.a", name, "a")
        channel.exchange_declare(name, passive=True)
        channel.queue_unbind("q.b", name, "b")
    channel.exchange_declare("stays", passive=True)
    with pytest.raises(QueueNotFound):
        channel.exchange_declare("goes", passive=True)
    channel.queue_unbind("q.a", "goes", "a")
    assert client.count(keys.bind("goes")) == 0
    channel.exchange_delete("stays", if_unused=True)
    assert client.count(keys.bindings) == 0


def test_bindings_are_read_from_etcd(etcd: EtcdServer, connection: kombu.Connection, keys: Keys) -> None:
    exchange = kombu.Exchange("a/b", "topic")
    for key in ("x.#", "ü"):
        kombu.Queue("q/1", exchange, key)(connection.default_channel).declare()
    expected = [{"destination": "q/1", "source": "a/b", "routing_key": key} for key in ("x.#", "ü")]
    with connected(etcd, keys, timeout=5) as elsewhere:
        assert sorted(elsewhere.manager.get_bindings(), key=lambda each: each["routing_key"]) == expected
        assert sorted(elsewhere.default_channel.get_table("a/b")) == [("x.#", None, "q/1"), ("ü", None, "q/1")]
        assert elsewhere.default_channel.get_exchanges() == ["a/b"]
        assert elsewhere.default_channel.events["basic_return"] == set()
    code = "import celery, sys; app = celery.Celery(broker=sys.argv[1]); app.start(['--quiet', 'list', 'bindings'])"
    done = subprocess.run(
        [sys.executable, "-c", code, url(etcd, keys)], check=True, timeout=40, cwd=ROOT, capture_output=True, text=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["q/1", "a/b", "x.#"] in rows and ["celery", "celery", "celery"] in rows


@pytest.mark.usefixtures("quick")
def test_unbound_and_unknown_queues(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    channel, producer = connection.default_channel, connection.Producer()
    exchange = kombu.Exchange("ex")
    kombu.Queue("q", exchange, "k")(channel).declare()
    channel.queue_unbind("q", "ex", "k")
    channel.queue_unbind("q", "ex", "never bound")
    channel.queue_unbind("nowhere", "unknown", "k")
    producer.publish("x", exchange=exchange, routing_key="k")
    producer.publish("x", exchange="never declared", routing_key="k")
    put(connection, "unknown", "reply", delivery_mode="transient")
    assert client.count(keys.plain_queues) == 0 and names(client, keys) == {"q"}
    put(connection, "unknown", "task")
    assert names(client, keys) == {"q", "unknown"}
    # This process knows the queue; when somebody else deletes it, a task for it must still not vanish from sight.
    client.delete_prefix(keys.queue_records)
    put(connection, "unknown", "task")
    connection.Consumer([kombu.Queue("watcher")], on_message=lambda m: None).consume()
    until(lambda: "unknown" in names(client, keys), 20, "upkeep gives it a record again")
