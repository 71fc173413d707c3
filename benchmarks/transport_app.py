"""The Celery app of the transport benchmark, and the probe inside its worker: first ack, last ack, CPU in between.

The worker writes one line of JSON to `BENCH_RESULT` when `BENCH_EXPECT` messages are acknowledged. For etcd the last
ack counts when etcd has confirmed it; the peers' acks count when they are written to the socket.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import kombu.message
import kombu.messaging
from celery import Celery
from celery.signals import worker_process_init

import crony  # noqa: F401  (makes etcd3:// known)
from benchmarks.brokers import cpu_seconds, resident_mb

app = Celery("bench", broker=os.environ.get("BENCH_BROKER", "memory://"))
app.conf.update(
    task_ignore_result=True,
    task_default_queue="bench",
    worker_prefetch_multiplier=int(os.environ.get("BENCH_MULTIPLIER", "4")),
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task
def noop() -> None:
    """Nothing: what is measured is the way there."""


@app.task
def late(published: float) -> None:
    """Note how long it took to get here."""
    with open(os.environ["BENCH_LATE"], "a") as lines:
        lines.write(f"{time.time() - published}\n")


class Probe:
    """Counts acks; at the first and at the last one it looks at the clocks."""

    def __init__(self) -> None:
        self.expected = int(os.environ.get("BENCH_EXPECT", "0"))
        self.seen = 0
        self.first: dict[str, float] = {}
        self.consuming = 0.0

    def ack(self) -> None:
        """One more."""
        self.seen += 1
        if self.seen == 1:
            self.first = self.clocks()
        elif self.seen == self.expected:
            links = sys.modules.get("crony.transport_etcd.link")
            for link in list(links._links.values()) if links else ():
                link.settler.flush(60)
            last = self.clocks()
            result = {name: last[name] - self.first[name] for name in self.first}
            result["rss"] = resident_mb(os.getpid())
            result["first_at"], result["consuming_at"] = self.first["at"], self.consuming
            part = Path(os.environ["BENCH_RESULT"] + ".part")
            part.write_text(json.dumps(result))
            part.rename(os.environ["BENCH_RESULT"])

    @staticmethod
    def clocks() -> dict[str, float]:
        """Wall clock, CPU of this process, of its children, of the server; etcd's transactions."""
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        links = sys.modules.get("crony.transport_etcd.link")
        clients = [link.client for link in links._links.values()] if links else []
        return {
            "at": time.time(),
            "parent": cpu_seconds(os.getpid()),
            "children": sum(cpu_seconds(int(pid)) for pid in children),
            "server": sum(cpu_seconds(int(pid)) for pid in os.environ.get("BENCH_SERVER_PIDS", "").split()),
            "revision": float(sum(client.revision for client in clients)),
        }


if "BENCH_EXPECT" in os.environ:
    probe = Probe()
    original = kombu.message.Message.ack

    def counted(self: Any, multiple: bool = False) -> None:
        original(self, multiple)
        probe.ack()

    kombu.message.Message.ack = counted
    begin = kombu.messaging.Consumer.consume

    def beginning(self: Any, *args: Any, **kwargs: Any) -> Any:
        probe.consuming = probe.consuming or time.time()
        return begin(self, *args, **kwargs)

    kombu.messaging.Consumer.consume = beginning

    @worker_process_init.connect
    def _forget(**_: Any) -> None:
        kombu.message.Message.ack = original
