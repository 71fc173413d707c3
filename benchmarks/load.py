"""How the transport benchmark puts messages into queues, and runs workers that take them out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.brokers import Broker
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.transport_etcd.message import task_message
from tests.helpers.wait import until

QUEUE = "bench"
_PUTS = 90


def app_for(broker: Broker) -> Any:
    """A Celery app that publishes to the broker, each message confirmed where the broker can."""
    from celery import Celery

    import crony  # noqa: F401

    app = Celery("bench", broker=broker.url, set_as_current=False)
    app.conf.update(task_ignore_result=True, task_default_queue=QUEUE)
    if broker.name == "RabbitMQ":
        app.conf.broker_transport_options = {"confirm_publish": True}

    def task(*args: Any) -> None:
        pass

    for name in ("noop", "late"):
        app.task(name=f"benchmarks.transport_app.{name}")(task)
    return app


def fill(broker: Broker, count: int, queue: str = QUEUE) -> None:
    """Put `count` no-op tasks into the queue, as fast as the broker takes them."""
    if broker.name == "etcd":
        _fill_etcd(broker, count, queue)
        return
    app = app_for(broker)
    app.conf.broker_transport_options = {}
    task = app.tasks["benchmarks.transport_app.noop"]
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for _ in range(count):
            task.apply_async(producer=producer, queue=queue)


def _fill_etcd(broker: Broker, count: int, queue: str) -> None:
    place = broker.url.removeprefix("etcd3://")
    address, _, namespace = place.partition("/")
    keys, client = Keys(namespace), Client([f"http://{address}"], timeout=30)
    with app_for(broker).connection_for_write() as connection:
        connection.default_channel.queue_declare(queue, durable=True)
        stamps = connection.transport.link.publisher.stamps
        for start in range(0, count, _PUTS):
            txn = Txn()
            for _ in range(min(_PUTS, count - start)):
                value = task_message("benchmarks.transport_app.noop", str(uuid.uuid4()), (), {})
                txn.put(keys.message(queue, f"9{stamps.next()}"), value)
            client.txn(txn)
    client.close()


@contextmanager
def worker(
    broker: Broker, pool: str, concurrency: int, *, queue: str = QUEUE, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker with its usual settings, ended by a signal."""
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.transport_app", "worker", "-P", pool]
    command += ["-c", str(concurrency), "-Q", queue, "-n", f"{pool}@%h"]
    command += os.environ.get("BENCH_WORKER_ARGS", "").split()
    log = open(os.environ.get("BENCH_LOG", os.devnull), "ab")  # noqa: SIM115
    process = subprocess.Popen(
        command, env=os.environ | broker.environment | (environment or {}), stdout=log, stderr=log
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def consume(broker: Broker, pool: str, concurrency: int, count: int, timeout: float = 240) -> dict[str, float]:
    """Fill the queue, start a worker: what its probe measured from the first to the last ack."""
    fill(broker, count)
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as folder:
        result = Path(folder) / "result"
        environment = {"BENCH_EXPECT": str(count), "BENCH_RESULT": str(result)}
        started = time.time()
        with worker(broker, pool, concurrency, environment=environment) as process:
            until(lambda: result.exists() or process.poll() is not None, timeout, "the tasks", every=0.1)
            assert result.exists(), f"the worker ended with {process.returncode}"
            found: dict[str, float] = json.loads(result.read_text())
        found["start"] = found["first_at"] - started
        return found


def publish_one_by_one(broker: Broker, count: int) -> tuple[float, float]:
    """(messages a second, CPU seconds of this process a message): `apply_async`, each confirmed."""
    app = app_for(broker)
    task = app.tasks["benchmarks.transport_app.noop"]
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        task.apply_async(producer=producer)
        return _timed(lambda: [task.apply_async(producer=producer) for _ in range(count)], count)


def publish_threads(broker: Broker, count: int, threads: int) -> tuple[float, float]:
    """As `publish_one_by_one`, by several threads, each with a producer of the app's pool as `delay()` takes it."""
    app = app_for(broker)
    app.conf.broker_pool_limit = threads
    task = app.tasks["benchmarks.transport_app.noop"]
    task.apply_async()

    def one() -> None:
        for _ in range(count // threads):
            task.apply_async()

    def all_() -> None:
        workers = [threading.Thread(target=one) for _ in range(threads)]
        for each in workers:
            each.start()
        for each in workers:
            each.join()

    try:
        return _timed(all_, count)
    finally:
        app.close()


def publish_batches(broker: Broker, count: int, size: int = 100) -> tuple[float, float] | None:
    """As `publish_one_by_one`, through `Producer.batch`; None where the transport has none."""
    app = app_for(broker)
    task = app.tasks["benchmarks.transport_app.noop"]
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        if not hasattr(producer.channel, "create_publish_batch"):
            return None
        task.apply_async(producer=producer)

        def run() -> None:
            for _ in range(count // size):
                with producer.batch(size):
                    for _ in range(size):
                        task.apply_async(producer=producer)

        return _timed(run, count)


def purge(broker: Broker, queue: str = QUEUE) -> None:
    """Empty the queue."""
    with app_for(broker).connection_for_write() as connection:
        connection.default_channel.queue_purge(queue)


def _timed(work: Callable[[], Any], count: int) -> tuple[float, float]:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return count / (time.perf_counter() - started), (time.process_time() - cpu) / count
