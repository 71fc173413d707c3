"""A consumer that hears nothing notices it by itself, says so, and hears again after it has reconnected."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.watch import Event
from crony.transport_etcd import hooks, link
from crony.transport_etcd.errors import BrokerUnavailable
from crony.transport_etcd.reader import QueueReader
from tests.helpers.etcd import EtcdServer
from tests.integration.transport_helpers import connected, drained, put

AFTER = 1.0


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bool]]:
    """Whether queue readers swallow what their watch tells them."""
    state = {"deaf": False}
    hears = QueueReader._on_events

    def on_events(self: QueueReader, events: list[Event], revision: int) -> None:
        if not state["deaf"]:
            hears(self, events, revision)

    monkeypatch.setattr(QueueReader, "_on_events", on_events)
    yield state


def consume(connection: Any, got: list[Any], prefetch: int = 10) -> Any:
    channel = connection.channel()
    channel.basic_qos(0, prefetch, False)
    consumer = connection.Consumer(
        [kombu.Queue("jobs")], channel=channel, callbacks=[lambda body, message: (got.append(body), message.ack())]
    )
    consumer.consume()
    return consumer


def drain(connection: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            connection.drain_events(timeout=0.2)
        except TimeoutError:
            pass


def test_a_deaf_consumer_reconnects(
    etcd: EtcdServer, keys: Keys, deaf: dict[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Any] = []
    with connected(etcd, keys, deaf_after=AFTER) as connection, connected(etcd, keys) as other:
        consume(connection, got)
        put(other, "jobs", "heard")
        drained(connection, got, 1)
        deaf["deaf"] = True
        put(other, "jobs", "unheard")
        with pytest.raises(BrokerUnavailable, match="deaf: queue jobs"), caplog.at_level(logging.ERROR):
            drain(connection, 20)
        assert "reconnecting" in caplog.text
        assert connection.info()["transport_options"]["counters"]["deaf"] == 1
        assert not connection.connected
        connection.collect()
        deaf["deaf"] = False
        consume(connection, got)
        assert drained(connection, got, 2) == ["heard", "unheard"]


@pytest.mark.parametrize("why", ["no credit", "held by others", "told not to", "nothing there"])
def test_who_has_a_reason_is_not_deaf(
    etcd: EtcdServer, keys: Keys, client: Client, deaf: dict[str, bool], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    got: list[Any] = []
    with connected(etcd, keys, deaf_after=0.4) as connection, connected(etcd, keys) as other:
        if why == "told not to":
            monkeypatch.setattr(hooks, "may_claim", lambda queue: False)
        consumer = consume(connection, got, prefetch=1)
        if why == "no credit":
            consumer.callbacks[:] = [lambda body, message: got.append(body)]
            put(other, "jobs", 1, 2)
            drained(connection, got, 1)
        elif why == "held by others":
            deaf["deaf"] = True
            put(other, "jobs", 1)
            assert other.default_channel.basic_get("jobs") is not None
        elif why == "told not to":
            put(other, "jobs", 1)
        drain(connection, 1.2)
        assert connection.connected and connection.info()["transport_options"]["counters"]["deaf"] == 0
        assert len(got) == (why == "no credit")
