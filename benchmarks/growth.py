"""Does a task cost more when there are more queues and bindings, or when more has happened before?

Each step adds to the same server: 10, 1,000 and 10,000 queues, all bound to one exchange; then one, two and three
million messages put, purged and compacted away. After each the same work is measured.
"""

from __future__ import annotations

import time

import kombu

from benchmarks import load
from benchmarks.brokers import Broker, resident_mb
from crony.etcd.client import Client

QUEUES = (10, 1_000, 10_000)
MILLIONS = 3
_TASKS, _PUBLISHED, _LAP = 4000, 1000, 100_000
_EXCHANGE = kombu.Exchange("growth")


def measure(broker: Broker, millions: int) -> dict[str, dict[str, float]]:
    """By step: worker's and server's CPU microseconds a consumed task, publishes a second, the server's memory."""
    found = {}
    for queues in QUEUES:
        _declare(broker, queues)
        found[f"{queues:,} queues"] = _cost(broker)
        print(f"growth: {queues:,} queues done", flush=True)
    for million in range(1, millions + 1):
        for _ in range(1_000_000 // _LAP):
            load.fill(broker, _LAP, "history")
            load.purge(broker, "history")
            _compact(broker)
        found[f"{million} million messages later"] = _cost(broker)
        print(f"growth: {million} million messages done", flush=True)
    return found


def _declare(broker: Broker, queues: int) -> None:
    with load.app_for(broker).connection_for_write() as connection:
        channel = connection.default_channel
        for number in range(queues):
            kombu.Queue(f"growth{number}", _EXCHANGE, f"key{number}")(channel).declare()


def _cost(broker: Broker) -> dict[str, float]:
    consumed = load.consume(broker, "threads", 4, _TASKS)
    one_by_one, cpu = load.publish_one_by_one(broker, _PUBLISHED)
    load.purge(broker)
    return {
        "worker us": consumed["parent"] / _TASKS * 1e6,
        "server us": consumed["server"] / _TASKS * 1e6,
        "publish/s": one_by_one,
        "publish us": cpu * 1e6,
        "by exchange us": _by_exchange(broker),
        "server MB": sum(map(resident_mb, broker.pids)),
        "file MB": _file_mb(broker),
    }


def _by_exchange(broker: Broker) -> float:
    """CPU microseconds of a publish through the exchange that all queues are bound to."""
    with load.app_for(broker).connection_for_write() as connection:
        producer = connection.Producer()
        producer.publish("warm", exchange="growth", routing_key="key1")
        cpu = time.process_time()
        for _ in range(_PUBLISHED):
            producer.publish("x", exchange="growth", routing_key="key1")
        spent = time.process_time() - cpu
        connection.default_channel.queue_purge("growth1")
    return spent / _PUBLISHED * 1e6


def _file_mb(broker: Broker) -> float:
    with _client(broker) as client:
        return client.status().db_size / 2**20


def _compact(broker: Broker) -> None:
    """As the scheduling centre does every minute or two."""
    with _client(broker) as client:
        client.compact(client.status().revision, physical=True)


def _client(broker: Broker) -> Client:
    return Client([f"http://{broker.url.removeprefix('etcd3://').partition('/')[0]}"], timeout=120)


__all__ = ["MILLIONS", "QUEUES", "measure"]
