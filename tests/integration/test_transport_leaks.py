"""Nothing is left behind by a connection that is gone: descriptors, threads, readers and timers over 50 reconnects."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from kombu.asynchronous import Hub

from crony.etcd.keys import Keys
from crony.transport_etcd import link
from crony.transport_etcd.errors import SessionLost
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until
from tests.integration.transport_helpers import Worker, application, connected, put, url, workers

RECONNECTS = 50
IDLE = 3
"""Idle sockets come and go; a connection that leaks leaves more than that."""


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    """Threads of earlier tests of this process are not ours to count."""
    _others.update(threading.enumerate())
    yield
    link.shut()
    _others.clear()


_others: set[threading.Thread] = set()


def ours() -> list[threading.Thread]:
    """Crony's threads that these tests have begun."""
    return [each for each in threading.enumerate() if each.name.startswith("crony") and each not in _others]


def census(hub: Hub) -> dict[str, int]:
    """What there is of everything that can leak."""
    gc.collect()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(ours()),
        "readers": len(hub.readers),
        "writers": len(hub.writers),
        "timers": len(hub.timer._queue),
    }


def names() -> Counter[str]:
    """How many threads there are of each name."""
    return Counter(thread.name for thread in ours())


def turn(hub: Hub, got: list[Any], count: int) -> None:
    """Run the loop until `count` messages are here."""
    loop = hub.create_loop()
    deadline = time.monotonic() + 20
    while len(got) < count:
        assert time.monotonic() < deadline, f"only {got}"
        hub.call_soon(lambda: None)
        next(loop)
        time.sleep(0.001)


class Consumer:
    """What a worker has: a hub, a task queue, a mailbox bound to a fan-out exchange."""

    def __init__(self, hub: Hub, address: str) -> None:
        self.hub, self.got = hub, []  # type: tuple[Hub, list[Any]]
        self.connection = kombu.Connection(address, transport_options={"session_ttl": 30})

    def connect(self) -> None:
        self.connection = self.connection.clone()
        self.connection.ensure_connection(max_retries=3)
        self.connection.transport.register_with_event_loop(self.connection.connection, self.hub)
        tasks = kombu.Queue("tasks")
        box = kombu.Queue("box", kombu.Exchange("all", "fanout", durable=False), exclusive=True, auto_delete=True)
        for queue, no_ack in ((tasks, False), (box, True)):
            channel = self.connection.channel()
            channel.basic_qos(0, 4, False)
            kombu.Consumer(channel, [queue], no_ack=no_ack, callbacks=[self._took]).consume()

    def _took(self, body: Any, message: Any) -> None:
        self.got.append(body)
        if message.delivery_info["exchange"] != "all":
            message.ack()


def test_fifty_reconnects_leave_nothing_behind(etcd: EtcdServer, keys: Keys) -> None:
    hub = Hub()
    with Proxy(etcd.endpoint) as proxy, connected(etcd, keys) as other:
        consumer = Consumer(hub, url(etcd, keys).replace(str(etcd.port), str(proxy.port)))
        fanout = other.Producer(exchange=kombu.Exchange("all", "fanout", durable=False))
        marks = []
        for number in range(RECONNECTS):
            consumer.connect()
            put(other, "tasks", f"t{number}")
            fanout.publish(f"b{number}")
            turn(hub, consumer.got, 2 * number + 2)
            if number == 4:
                marks.append(census(hub))
            # What a worker does when the connection fails under it.
            if number % 10 == 6:
                proxy.break_links()  # not each time: the client rests a moment after each
            consumer.connection.transport.fail(SessionLost("as a test asks"))
            with pytest.raises(SessionLost):
                turn(hub, consumer.got, 2 * number + 3)
            consumer.connection.collect()
            hub.reset()
        assert sorted(consumer.got) == sorted(f"{kind}{number}" for number in range(RECONNECTS) for kind in "tb")
        consumer.connect()
        put(other, "tasks", "last")
        turn(hub, consumer.got, 2 * RECONNECTS + 1)

        def level() -> bool:
            now = census(hub)
            return all(now[name] <= most for name, most in marks[0].items())

        try:
            until(level, 10, "back to where it was", every=0.1)
        except AssertionError:
            raise AssertionError(f"after 5: {marks[0]}, after {RECONNECTS}: {census(hub)}; {names()}") from None
        its_link = consumer.connection.transport.link
        consumer.connection.close()
        assert not hub.readers
        link.shut()
        try:
            until(lambda: census(hub)["threads"] == 0, 10, "every thread has ended")
        except AssertionError:
            raise AssertionError(f"left: {names()}") from None
        assert its_link.client.closed, "else its idle sockets stay open until it is collected"
    hub.close()


def test_a_worker_that_loses_etcd_again_and_again(etcd: EtcdServer, keys: Keys, tmp_path: Path) -> None:
    app = application(etcd, keys)
    with Proxy(etcd.endpoint) as proxy:
        worker = Worker(etcd, keys, tmp_path, "threads", ttl=2, arguments=())
        worker.environment["JUDGE_BROKER"] = url(etcd, keys).replace(str(etcd.port), str(proxy.port))
        with workers(worker):
            inspect = app.control.inspect(timeout=3, destination=["w@test"])
            marks: list[dict[str, int]] = []

            def counted() -> dict[str, int] | None:
                return (inspect._request("census") or {}).get("w@test")

            for number in range(3):
                app.send_task("judge.note", (str(number),))
                worker.saw(str(number), timeout=30)
                marks.append(until(counted, 30, "it answers", every=0.2))
                if number < 2:
                    proxy.cut()
                    lost = worker.log.read_text().count("Trying to re-establish")
                    until(
                        lambda lost=lost: worker.log.read_text().count("Trying to re-establish") > lost,
                        30,
                        "it notices",
                    )
                    proxy.heal()
            most = {**marks[1], "descriptors": marks[1]["descriptors"] + IDLE}
            level = lambda now: now is not None and all(now[name] <= most[name] for name in most)  # noqa: E731
            until(lambda: level(counted()), 20, f"not more than {most}, now {counted()}", every=0.2)
            assert inspect.stats()["w@test"]["broker"]["transport_options"]["counters"]["sessions_lost"] >= 2
