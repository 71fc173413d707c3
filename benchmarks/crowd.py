"""Many consumers on one shared queue: how evenly is it shared, how many claims are wasted?

They live in a few processes, several connections in each, all up before the first one begins.
`python -m benchmarks.crowd <url> <consumers> <seconds of work> <prefetch> <result> <go>` is one process of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.brokers import Broker
from benchmarks.load import QUEUE, fill
from tests.helpers.wait import until

PROCESSES = 4


def measure(broker: Broker, workers: int, count: int, work: float, prefetch: int) -> dict[str, float]:
    """Share of claims refused (etcd); least and most messages of a consumer by their mean; messages a second."""
    with tempfile.TemporaryDirectory(prefix="crony-crowd-") as name:
        folder, processes = Path(name), []
        go = folder / "go"
        try:
            for number in range(PROCESSES):
                command = [sys.executable, "-m", "benchmarks.crowd", broker.url, str(workers // PROCESSES), str(work)]
                processes.append(subprocess.Popen([*command, str(prefetch), str(folder / f"{number}"), str(go)]))
            fill(broker, count)
            until(lambda: len(list(folder.glob("*.ready"))) == PROCESSES, 180, "the consumers", every=0.2)
            go.touch()
            until(lambda: len(list(folder.glob("*.done"))) == PROCESSES, 300, "the messages", every=0.2)
            found = [each for path in folder.glob("*.done") for each in json.loads(path.read_text())]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    done = [each["done"] for each in found]
    mean = sum(done) / len(done)
    tried = sum(each["tried"] for each in found)
    first, last = min(each["first"] for each in found), max(each["last"] for each in found)
    assert sum(done) == count, f"{sum(done)} of {count} were handled"
    return {
        "wasted": sum(each["refused"] for each in found) / tried if tried else 0.0,
        "least": min(done) / mean,
        "most": max(done) / mean,
        "rate": count / (last - first),
    }


class Consumer(threading.Thread):
    """One of them: takes messages, works for a moment on each, until nothing has come for two seconds."""

    def __init__(self, url: str, work: float, prefetch: int, name: str, go: Path) -> None:
        super().__init__(name=name)
        self.url, self.work, self.prefetch, self.go = url, work, prefetch, go
        self.ready = threading.Event()
        self.facts: dict[str, float] = {"done": 0, "first": 0.0, "last": 0.0, "tried": 0, "refused": 0}

    def handle(self, body: Any, message: Any) -> None:
        """One message."""
        time.sleep(self.work)
        message.ack()
        self.facts["done"] += 1
        self.facts["last"] = time.time()
        self.facts["first"] = self.facts["first"] or self.facts["last"]

    def run(self) -> None:
        """Connect, wait for the start, consume."""
        import kombu

        with kombu.Connection(self.url) as connection:
            channel = connection.channel()
            warm = kombu.Queue(f"warm-{self.name}", channel=channel)
            kombu.Consumer(channel, [warm], callbacks=[self.handle]).consume()
            self.ready.set()
            until(self.go.exists, 240, "the start", every=0.02)
            queue = kombu.Queue(QUEUE, channel=channel, durable=True)
            kombu.Consumer(
                channel, [queue], callbacks=[self.handle], accept=["json"], prefetch_count=self.prefetch
            ).consume()
            while True:
                try:
                    connection.drain_events(timeout=2 if self.facts["done"] else 20)
                except TimeoutError:
                    break
            pump = getattr(connection.transport, "_pump", None)
            if pump is not None:
                self.facts |= {"tried": pump.tried, "refused": pump.refused}


def main(url: str, consumers: int, work: float, prefetch: int, result: Path, go: Path) -> None:
    """One process of them."""
    import crony  # noqa: F401

    crowd = [Consumer(url, work, prefetch, f"{result.name}-{number}", go) for number in range(consumers)]
    for consumer in crowd:
        consumer.start()
    for consumer in crowd:
        consumer.ready.wait(120)
    Path(f"{result}.ready").touch()
    for consumer in crowd:
        consumer.join()
    part = Path(f"{result}.part")
    part.write_text(json.dumps([consumer.facts for consumer in crowd]))
    part.rename(f"{result}.done")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))
