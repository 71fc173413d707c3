"""What the transport rests on, on every etcd release at hand: in `make test` the system's and the wheel's.

`make test-etcd` runs far more on more releases (`etcd_versions.py`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.watch import Event, Watcher
from crony.transport_etcd import link
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import ROOT, connected, drained, put, url

JOBS = kombu.Queue("jobs", routing_key="jobs")

HOLD_AND_DIE = """
import os, signal, sys, kombu, crony.transport_etcd
with kombu.Connection(sys.argv[1], transport_options={"session_ttl": 2}) as connection:
    consumer = connection.Consumer([kombu.Queue("jobs", routing_key="jobs")], callbacks=[lambda body, message: None])
    with consumer:
        connection.drain_events(timeout=30)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


def test_session_and_watch_through_a_compaction(each_etcd: EtcdServer, keys: Keys) -> None:
    seen: list[tuple[str, str]] = []

    def note(events: list[Event], revision: int) -> None:
        seen.extend((event.kind, event.key.removeprefix(keys.root)) for event in events)

    with Client([each_etcd.endpoint]) as client:
        watcher = Watcher(client, keys.root, keys.root[:-1] + "0", on_snapshot=lambda *_: None, on_events=note)
        watcher.start()
        assert watcher.synced(10)
        session = Session(client, keys, ttl=5)
        assert session.start() and session.alive
        for number in range(3):
            client.put(f"{keys.root}k{number}", b"x")
            client.compact(client.revision, physical=True)
        assert session.attach(f"{keys.root}mine", b"x")
        session.close()
        gone = {("delete", session.key.removeprefix(keys.root)), ("delete", "mine")}
        until(lambda: gone <= set(seen), 20, f"the lease's keys to go, seen {seen}")
        watcher.stop()
        assert [key for kind, key in seen if kind == "put" and key.startswith("k")] == ["k0", "k1", "k2"]
        assert client.count(keys.root) == 3


def test_publish_claim_ack_and_give_back(each_etcd: EtcdServer, keys: Keys) -> None:
    with connected(each_etcd, keys) as connection, Client([each_etcd.endpoint]) as client:
        JOBS(connection.default_channel).declare()
        put(connection, "jobs", *range(10))
        put(connection, "jobs", "first", priority=9)
        held: list[kombu.Message] = []
        consumer = connection.Consumer([JOBS], prefetch_count=4, on_message=held.append)
        with consumer:
            drained(connection, held, 4)
            assert [message.payload for message in held] == ["first", 0, 1, 2]
            held[0].ack()
            held[1].ack()
            held[2].requeue()
            drained(connection, held, 7)
            redelivered = {message.payload: message.delivery_info["redelivered"] for message in held[4:]}
            assert redelivered == {1: True, 3: False, 4: False}
        connection.default_channel.close()
        link.shut()
        assert client.count(keys.messages("jobs")) == 9
    with connected(each_etcd, keys) as connection:
        rest: list[Any] = []
        with connection.Consumer([JOBS], on_message=lambda message: (rest.append(message.payload), message.ack())):
            assert drained(connection, rest, 9) == list(range(1, 10))
        channel = connection.channel()
        until(lambda: JOBS(channel).queue_declare(passive=True).message_count == 0, 10, "an empty queue")


def test_broadcasts_and_topics(each_etcd: EtcdServer, keys: Keys) -> None:
    fan = kombu.Exchange("fan", type="fanout", durable=False, delivery_mode="transient")
    topic = kombu.Exchange("topic", type="topic")
    flags = {"exclusive": True, "auto_delete": True, "durable": False}
    queues = [kombu.Queue("a", fan, **flags), kombu.Queue("b", fan, **flags), kombu.Queue("c", topic, "news.#")]
    with connected(each_etcd, keys) as connection:
        for queue in queues:
            queue(connection.default_channel).declare()
        producer = connection.Producer()
        for number in range(3):
            producer.publish(number, exchange=fan)
            producer.publish(f"heard {number}", exchange=topic, routing_key=f"news.{number}")
            producer.publish("unheard", exchange=topic, routing_key="weather.0")
        got: list[tuple[str, Any]] = []
        for queue in queues:

            def note(body: Any, message: kombu.Message, name: str = queue.name) -> None:
                got.append((name, body))
                message.ack()

            connection.Consumer([queue], callbacks=[note]).consume()
        drained(connection, got, 9)
        assert [body for name, body in got if name == "a"] == [0, 1, 2]
        assert [body for name, body in got if name == "b"] == [0, 1, 2]
        assert [body for name, body in got if name == "c"] == ["heard 0", "heard 1", "heard 2"]


def test_what_a_killed_consumer_held_goes_to_another(each_etcd: EtcdServer, keys: Keys) -> None:
    with connected(each_etcd, keys) as connection:
        JOBS(connection.default_channel).declare()
        put(connection, "jobs", "held")
        command = [sys.executable, "-c", HOLD_AND_DIE, url(each_etcd, keys)]
        died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert died.returncode == -9, died.stderr
        got: list[kombu.Message] = []
        with connection.Consumer([JOBS], on_message=got.append):
            drained(connection, got, 1, timeout=30)
        assert (got[0].payload, got[0].delivery_info["redelivered"]) == ("held", True)
        got[0].ack()
