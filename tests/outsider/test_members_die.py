"""Three members, one of them killed, while messages are published and consumed through Kombu."""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import kombu
import pytest

import crony.transport_etcd  # noqa: F401  # registers the scheme
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from tests.helpers.etcd import EtcdCluster, EtcdServer
from tests.helpers.wait import until

JOBS = kombu.Queue("jobs", routing_key="jobs")


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


def connect(cluster: EtcdCluster, keys: Keys, **options: Any) -> kombu.Connection:
    """A connection whose URL names the first member and whose options name all."""
    port = urlsplit(cluster.endpoints[0]).port
    return kombu.Connection(
        f"etcd3://127.0.0.1:{port}/{keys.namespace}", transport_options={"endpoints": cluster.endpoints, **options}
    )


class Publisher(threading.Thread):
    """Publishes numbers, each until it is confirmed, as Celery does."""

    def __init__(self, cluster: EtcdCluster, keys: Keys) -> None:
        super().__init__(daemon=True)
        self._cluster, self._keys = cluster, keys
        self.confirmed: list[int] = []
        self.stopping = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        policy = {"max_retries": 30, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.5}
        try:
            with connect(self._cluster, self._keys) as connection:
                producer = connection.Producer()
                while not self.stopping.is_set():
                    number = len(self.confirmed)
                    producer.publish(number, routing_key="jobs", retry=True, retry_policy=policy)
                    self.confirmed.append(number)
        except Exception as error:
            self.error = error


class Consumer(threading.Thread):
    """Consumes and acknowledges, and connects again after a loss, as a worker does."""

    def __init__(self, cluster: EtcdCluster, keys: Keys) -> None:
        super().__init__(daemon=True)
        self._cluster, self._keys = cluster, keys
        self.seen: Counter[int] = Counter()
        self.again: Counter[int] = Counter()
        self.losses = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            with connect(self._cluster, self._keys, session_ttl=5) as connection:
                try:
                    with connection.Consumer([JOBS], prefetch_count=20, on_message=self._take):
                        while not self.stopping.is_set():
                            try:
                                connection.drain_events(timeout=0.2)
                            except TimeoutError:
                                continue
                except connection.connection_errors:
                    self.losses += 1

    def _take(self, message: kombu.Message) -> None:
        self.seen[message.payload] += 1
        self.again[message.payload] += bool(message.delivery_info["redelivered"])
        message.ack()


def leader_and_follower(cluster: EtcdCluster) -> dict[str, EtcdServer]:
    """The member that leads, and one of the others."""
    states = {}
    for member in cluster.members:
        with Client([member.endpoint], timeout=5) as client:
            status = client.status()
            states[status.member] = (member, status.leader)
    leads = {leader for _, leader in states.values()}
    assert len(leads) == 1, states
    (leader,) = leads
    return {"leader": states[leader][0], "follower": next(m for number, (m, _) in states.items() if number != leader)}


@pytest.mark.slow
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_nothing_is_lost_when_a_member_is_killed(etcd_cluster: EtcdCluster, keys: Keys, who: str) -> None:
    seed = secrets.randbelow(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    publisher, consumer = Publisher(etcd_cluster, keys), Consumer(etcd_cluster, keys)
    publisher.start()
    consumer.start()
    try:
        until(lambda: len(publisher.confirmed) > 50 and len(consumer.seen) > 50, 30, "a start")
        victim = leader_and_follower(etcd_cluster)[who]
        for _ in range(2):
            until(lambda: not chance.randrange(20), 5)
            victim.kill()
            confirmed, seen = len(publisher.confirmed), len(consumer.seen)
            until(
                lambda c=confirmed, s=seen: len(publisher.confirmed) > c + 50 and len(consumer.seen) > s + 50,
                30,
                f"publishing and consuming to go on without the {who} ({publisher.error or 'no error'})",
            )
            victim.start()
        publisher.stopping.set()
        publisher.join(20)
        assert publisher.error is None
        until(lambda: set(consumer.seen) >= set(publisher.confirmed), 40, "every confirmed message to be consumed")
        with Client(etcd_cluster.endpoints) as client:
            until(lambda: client.count(keys.messages("jobs")) == 0, 40, "an empty queue")
    finally:
        publisher.stopping.set()
        consumer.stopping.set()
        publisher.join(20)
        consumer.join(20)
        if not victim.running:
            victim.start()
    unknown = set(consumer.seen) - set(publisher.confirmed)
    assert not unknown, unknown
    doubled = {number: count for number, count in consumer.seen.items() if count > 1}
    print(f"{len(publisher.confirmed)} confirmed, {len(doubled)} delivered again, {consumer.losses} losses")
    # At least once: what comes a second time is marked, and is at most what was in hand at each loss.
    assert all(consumer.again[number] for number in doubled), doubled
    assert len(doubled) <= 20 * max(1, consumer.losses), doubled
