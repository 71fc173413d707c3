"""The transport against Redis and RabbitMQ: no-op Celery tasks, in the same run, on the same machine.

`python -m benchmarks.transport [--rounds 5] [--count 8000] [--only consume,publish,latency,deep,crowd] [--deep 500000]`

Rounds are interleaved, figures are medians. Compare the rows of one run: absolute figures depend on the machine and on
what else it does. CPU time a task depends far less on that than tasks a second. etcd writes to disk and syncs; Redis
keeps everything in memory; RabbitMQ confirms the publishes and is given no-op tasks that are not synced.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import brokers, crowd, growth, load
from benchmarks.brokers import Broker, resident_mb
from benchmarks.harness import median, quantile, report
from tests.helpers.wait import until

POOLS = (("threads", 4), ("prefork", 2))
SECTIONS = ("consume", "publish", "latency", "deep", "crowd", "growth")
_WARM_UP, _PACED = 20, 400
Figures = dict[str, dict[str, list[float]]]


def consume(broker: Broker, count: int, found: Figures) -> None:
    """Tasks a second, CPU microseconds a task."""
    for pool, concurrency in POOLS:
        measured = load.consume(broker, pool, concurrency, count)
        row = found[f"{broker.name} {pool}"]
        row["tasks/s"].append(count / measured["at"])
        row["worker us"].append((measured["parent"] + measured["children"]) / count * 1e6)
        row["server us"].append(measured["server"] / count * 1e6)
        row["writes/task"].append(measured["revision"] / count)


def publish(broker: Broker, count: int, found: Figures) -> None:
    """Messages a second: one by one, eight threads, batches."""
    row = found[broker.name]
    for name, measured in (
        ("one by one/s", load.publish_one_by_one(broker, count)),
        ("8 threads/s", load.publish_threads(broker, count, 8)),
        ("batches/s", load.publish_batches(broker, count)),
    ):
        if measured is not None:
            row[name].append(measured[0])
            row[name.replace("/s", " us")].append(measured[1] * 1e6)
    load.purge(broker)


def latency(broker: Broker, found: Figures) -> None:
    """Milliseconds from publish to the start of the task, one task every 30 ms."""
    row = found[broker.name]
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as folder:
        late = Path(folder) / "late"
        late.touch()
        with load.worker(broker, "threads", 4, environment={"BENCH_LATE": str(late)}):
            app = load.app_for(broker)
            task = app.tasks["benchmarks.transport_app.late"]
            with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
                for warm_up in range(1, 1 + _WARM_UP):  # the first ones meet a worker that is still starting
                    task.apply_async((time.time(),), producer=producer)
                    until(lambda: len(late.read_text().split()) >= warm_up, 60, "the worker")  # noqa: B023
                for _ in range(_PACED):
                    task.apply_async((time.time(),), producer=producer)
                    time.sleep(0.03)
            until(lambda: len(late.read_text().split()) == _WARM_UP + _PACED, 30, "the last task")
            times = sorted(float(line) * 1000 for line in late.read_text().split()[_WARM_UP:])
        row["p50 ms"].append(quantile(times, 0.5))
        row["p99 ms"].append(quantile(times, 0.99))


def deep(broker: Broker, messages: int, found: Figures) -> None:
    """A long queue: seconds from the worker's first request for it to the first ack, and the worker's memory."""
    load.fill(broker, messages)
    row = found[f"{broker.name} {messages:,} messages"]
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as folder:
        result = Path(folder) / "result"
        environment = {"BENCH_EXPECT": "5000", "BENCH_RESULT": str(result)}
        with load.worker(broker, "threads", 4, environment=environment) as process:
            until(result.exists, 300, "5,000 tasks", every=0.2)
            measured: dict[str, Any] = json.loads(result.read_text())
            row["first task after s"].append(measured["first_at"] - measured["consuming_at"])
            row["tasks/s"].append(5000 / measured["at"])
            row["worker MB"].append(resident_mb(process.pid))
    load.purge(broker)


def crowded(broker: Broker, found: Figures) -> None:
    """20 consumers on one queue."""
    for name, value in crowd.measure(broker, 20, 4000, 0.05, 4).items():
        found[f"{broker.name}, 20 consumers"][name].append(value)


def grown(broker: Broker, millions: int, found: Figures) -> None:
    """More queues, bindings and history."""
    for step, cells in growth.measure(broker, millions).items():
        for name, value in cells.items():
            found[step][name].append(value)


def main() -> None:
    """Print the tables and the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transport")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=8000, help="tasks a round")
    parser.add_argument("--deep", type=int, default=500_000, help="messages of the long queue")
    parser.add_argument("--millions", type=int, default=growth.MILLIONS, help="messages of the history")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections to measure")
    parser.add_argument("--brokers", default=",".join(brokers.ALL))
    given = parser.parse_args()
    sections = given.only.split(",")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with us
    absent = brokers.missing()
    for name, need in absent.items():
        print(f"{name} is not measured: {need}")
    figures: dict[str, Any] = {"cpus": os.cpu_count(), "load_before": os.getloadavg()[0]}
    with ExitStack() as stack:
        running = []
        for name in given.brokers.split(","):
            if name not in absent:
                running.append(stack.enter_context(brokers.ALL[name]()))
        figures["servers"] = {broker.name: broker.server for broker in running}
        for section in SECTIONS:
            if section not in sections:
                continue
            found: Figures = defaultdict(lambda: defaultdict(list))
            once = section in ("deep", "crowd", "growth")
            for number in range(1 if once else given.rounds):
                for broker in running:
                    if section == "consume":
                        consume(broker, given.count, found)
                    elif section == "publish":
                        publish(broker, given.count // 4, found)
                    elif section == "latency":
                        latency(broker, found)
                    elif section == "deep" and broker.name == "etcd":
                        deep(broker, given.deep, found)
                    elif section == "crowd":
                        crowded(broker, found)
                    elif section == "growth" and broker.name == "etcd":
                        grown(broker, given.millions, found)
                print(f"{section}, round {number + 1} done, load {os.getloadavg()[0]:.1f}", flush=True)
            figures[section] = _show(section, found)
    figures["load_after"] = os.getloadavg()[0]
    print(json.dumps({"benchmark": "transport", **figures}))


def _show(section: str, found: Figures) -> dict[str, dict[str, float]]:
    medians = {row: {name: round(median(values), 3) for name, values in cells.items()} for row, cells in found.items()}
    columns = list(dict.fromkeys(name for cells in medians.values() for name in cells))
    rows = [{"": row, **{name: f"{cells.get(name, 0):,.6g}" for name in columns}} for row, cells in medians.items()]
    report(section, rows, medians)
    return medians


if __name__ == "__main__":
    main()
