"""Connections, messages and real worker processes for the tests of the transport."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu
from kombu.serialization import loads

import crony.transport_etcd  # noqa: F401  # registers the scheme
from crony.etcd.client import KV, Client
from crony.etcd.errors import EtcdUnavailable, EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult
from crony.transport_etcd.message import decode
from crony.transport_etcd.queue import read_claim
from tests.helpers import zygote
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

ROOT = Path(__file__).parents[2]
APP = "tests.integration.transport_app"


def url(server: EtcdServer, keys: Keys) -> str:
    """Broker URL of a namespace."""
    return f"etcd3://127.0.0.1:{urlsplit(server.endpoint).port}/{keys.namespace}"


@contextmanager
def connected(server: EtcdServer, keys: Keys, **options: Any) -> Iterator[kombu.Connection]:
    """A Kombu connection, closed at the end."""
    with kombu.Connection(url(server, keys), transport_options=options) as connection:
        yield connection


def put(connection: kombu.Connection, queue: str, *bodies: Any, **options: Any) -> None:
    """Publish through the default exchange."""
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, routing_key=queue, **options)


def drained(connection: kombu.Connection, got: list[Any], count: int, timeout: float = 10.0) -> list[Any]:
    """Deliver until `got` has `count` entries."""

    def more() -> bool:
        if len(got) < count:
            try:
                connection.drain_events(timeout=0.2)
            except TimeoutError:
                pass
        return len(got) >= count

    until(more, timeout, f"{count} messages (have {got})", every=0)
    return got


def emptied(connection: kombu.Connection, queue: str) -> list[Any]:
    """Everything that lies in a lasting queue and nobody holds, in order; the queue is empty then."""
    link = connection.default_channel.link
    prefix, claims = link.keys.messages(queue), link.keys.claims(queue)
    held = {kv.key.removeprefix(claims) for kv in link.client.list(claims).kvs if read_claim(kv).holder}
    found = []
    for kv in link.client.list(prefix).kvs:
        if kv.key.removeprefix(prefix) not in held:
            message = decode(kv.value)
            found.append(loads(message["body"], message["content-type"], message["content-encoding"]))
    connection.default_channel.queue_purge(queue)
    return found


@contextmanager
def answer_lost(client: Client, meanwhile: Callable[[], Any], looks: int = 0) -> Iterator[None]:
    """The next write is carried out, then `meanwhile` happens and its answer is lost, as those of `looks` reads are."""
    txn, get, left = client.txn, client.get, looks

    def lost(what: Txn, **options: Any) -> TxnResult:
        if what.read_only:
            return txn(what, **options)
        client.txn = txn  # type: ignore[method-assign]
        txn(what, **options)
        meanwhile()
        client.get = silent  # type: ignore[method-assign]
        raise EtcdUnknown("no answer")

    def silent(key: str, **options: Any) -> KV | None:
        nonlocal left
        if left <= 0:
            return get(key, **options)
        left -= 1
        raise EtcdUnavailable("no answer to the look either")

    client.txn = lost  # type: ignore[method-assign]
    try:
        yield
    finally:
        client.txn, client.get = txn, get  # type: ignore[method-assign]


def revision(client: Client, keys: Keys) -> int:
    """The store's revision now."""
    return client.range(keys.root, count_only=True).revision


def written(client: Client, keys: Keys, since: int) -> int:
    """How many transactions wrote to this namespace after a revision, as far as their keys are still there."""
    return len({kv.mod for kv in client.list(keys.root).kvs if kv.mod > since})


class Worker:
    """`celery worker` as a process of its own."""

    def __init__(self, server: EtcdServer, keys: Keys, folder: Path, pool: str, **settings: Any) -> None:
        self.name = str(settings.pop("name", "w"))
        self.record = folder / "record"
        self.record.touch()
        self.log = folder / f"{self.name}.log"
        self.concurrency = str(settings.pop("concurrency", 2))
        self.arguments = settings.pop("arguments", ("--without-mingle",))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CRONY_", "CELERY_"))},
            "PYTHONPATH": str(ROOT),
            "JUDGE_BROKER": url(server, keys),
            "JUDGE_RECORD": str(self.record),
            **{f"JUDGE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.pool = pool
        self.process: zygote.Forked | subprocess.Popen[bytes] | None = None

    def start(self) -> Worker:
        """Start it; see `ready`."""
        command = [sys.executable, "-m", "celery", "-A", APP, "worker", "-P", self.pool, "-c", self.concurrency]
        command += ["-n", f"{self.name}@test", "-l", "info", *self.arguments]
        self.process = zygote.start(command, self.environment, self.log, str(ROOT))
        return self

    def ready(self, timeout: float = 40.0) -> Worker:
        """Wait until it consumes."""
        until(lambda: b" ready." in self.log.read_bytes() or self._ended(), timeout, f"{self.log} says ready")
        return self

    def _ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended: {self.log.read_text()[-3000:]}")
        return False

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = 100.0) -> int:
        """Its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGVTALRM)  # its log shows where every thread is
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
            raise

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def lines(self) -> list[str]:
        """What the tasks of all workers with this folder recorded."""
        return self.record.read_text().splitlines()

    def saw(self, *wanted: str, timeout: float = 20.0) -> list[str]:
        """Wait until the tasks recorded these lines; all lines."""
        until(lambda: set(wanted) <= set(self.lines()), timeout, f"{wanted} in {self.record} (have {self.lines()})")
        return self.lines()


@contextmanager
def workers(*made: Worker) -> Iterator[tuple[Worker, ...]]:
    """Started and ready; killed at the end."""
    try:
        for worker in made:
            worker.start()
        yield tuple(worker.ready() for worker in made)
    except BaseException:
        for worker in made:
            print(f"--- {worker.log}\n{worker.log.read_text()[-4000:]}")
        raise
    finally:
        for worker in made:
            worker.kill()


def application(server: EtcdServer, keys: Keys) -> Any:
    """A Celery app of this process that talks to the workers."""
    from celery import Celery

    app = Celery("judge", broker=url(server, keys), set_as_current=False)
    app.conf.update(task_ignore_result=True, broker_connection_timeout=3, accept_content=["json"])
    return app


Predicate = Callable[[], Any]
