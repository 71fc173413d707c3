"""What waiting costs: N runs whose callee answers later and gives signs of life, then completes them at a fixed rate.

Real etcd, MariaDB, centre, web, node and service. Told: the CPU of each part while all wait, the heartbeats (a second,
and how long one took), then how long a completion took from the moment it was due. None may have ended otherwise.
`python -m benchmarks.waiting [runs] [seconds] [seconds of silence allowed] [completions a second]`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bare import cpu, rss
from benchmarks.harness import quantile, report, until
from benchmarks.sustained import children
from crony.domain.run import Request
from crony.lifecycle.enqueue_many import Item, submit_many
from tests.helpers.etcd import EtcdServer
from tests.helpers.mariadb import MariaServer
from tests.helpers.platform import Platform, platform
from tests.helpers.server import die_with_parent


class Callees:
    """The service, in a process of its own."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen, self.pid = popen, popen.pid
        self.url = f"http://127.0.0.1:{int(self.read())}/"

    def read(self) -> str:
        """One line."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline()

    def order(self, *words: object) -> dict[str, Any]:
        """Have it do something."""
        assert self.popen.stdin is not None
        print(*words, file=self.popen.stdin, flush=True)
        found: dict[str, Any] = json.loads(self.read())
        return found


@contextmanager
def callees() -> Iterator[Callees]:
    """The service, while the body runs."""
    command = [sys.executable, "-m", "benchmarks.callees"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
    ) as popen:
        try:
            yield Callees(popen)
        finally:
            popen.kill()


def ask(made: Platform, job: dict[str, Any], runs: int) -> None:
    """Ask the centre for that many runs."""
    one = Request("run", "", job["id"], name=job["name"], generation=job["generation"], trigger="api")
    for begun in range(0, runs, 1000):
        submit_many(made.client, made.keys, [Item(one) for _ in range(min(1000, runs - begun))])


def main(runs: int = 2000, seconds: int = 60, silence: int = 30, rate: int = 50) -> None:
    """Print the tables and the figures."""
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        folder, server = Path(name), MariaServer()
        etcd = EtcdServer(data_dir=folder / "etcd")
        etcd.start()
        server.start()
        try:
            with callees() as service, platform(folder / "crony", [etcd.endpoint], server.fresh(), leader_ttl=5,
                                                node_ttl=10, grace=5) as made:  # fmt: skip
                centre, web, node = made.centre("one"), made.web(), made.node("n1", concurrency=4)
                made.await_nodes("n1")
                made.await_leader()
                action = {"kind": "http", "method": "POST", "url": service.url}
                later = {"deadline": "1h", "heartbeat": f"{silence}s"}
                job = made.job({"name": "later", "action": action, "overlap": "allow", "async": later})
                begun = time.monotonic()
                ask(made, job, runs)
                until(lambda: made.count("run/acc/") == runs, 120 + runs / 10, "all to be accepted", every=0.2)
                print(f"{runs} accepted after {time.monotonic() - begun:.0f} s", flush=True)
                time.sleep(min(silence, 10))  # the accepting is over, and most have been heard of
                parts = {
                    "centre": [centre.pid], "web": [web.pid], "etcd": [etcd.pid], "mariadb": [server.pid],
                    "node": children(node.pid), "callees": [service.pid],
                }  # fmt: skip
                service.order("reset")
                waited, used = _cpu(parts, seconds)
                told = service.order("tell")
                beats, opened = sorted(told["took"]["heartbeat"]), told["connections"]
                assert set(told["codes"]) == {"heartbeat 200 running"} and told["waiting"] == runs, told["codes"]
                assert made.count("run/acc/") == runs, "some have ended while they waited"
                memory = {part: round(sum(map(rss, pids))) for part, pids in parts.items()}
                begun = time.monotonic()
                service.order("complete", rate)
                ended = {part: sum(map(cpu, pids)) for part, pids in parts.items()}
                completing = time.monotonic() - begun
                told = service.order("tell")
                done = sorted(told["took"]["complete"])
                assert told["codes"]["complete 200 ended"] == runs, told["codes"]
                assert made.count("run/acc/") == made.count("run/beat/") == 0
                spent = {part: 100 * (ended[part] - waited[part]) / completing for part in parts}
        finally:
            server.destroy()
            etcd.stop()
    rows = [
        _row(f"{runs} wait, heard of every {silence / 3:g} s", len(beats) / seconds, beats, used),
        _row(f"completions at {rate}/s", len(done) / completing, done, spent),
    ]
    report("waiting for callees", rows, {
        "runs": runs, "seconds": seconds, "heartbeats_per_s": round(len(beats) / seconds),
        "cpu_percent": {part: round(value, 1) for part, value in used.items()}, "rss_mib": memory,
        "heartbeat_ms": _spread(beats), "completions_per_s": rate, "completion_ms": _spread(done),
        "connections": opened, "cores": os.cpu_count(),
    })  # fmt: skip


def _cpu(parts: dict[str, list[int]], seconds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of CPU used by each part by the end of so long a time, and the percentage of one core in it."""
    before, begun = {part: sum(map(cpu, pids)) for part, pids in parts.items()}, time.monotonic()
    time.sleep(seconds)
    after, took = {part: sum(map(cpu, pids)) for part, pids in parts.items()}, time.monotonic() - begun
    return after, {part: 100 * (after[part] - before[part]) / took for part in parts}


def _spread(took: list[float]) -> dict[str, float]:
    return {name: round(1000 * quantile(took, share), 1) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))}


def _row(what: str, rate: float, took: list[float], used: dict[str, float]) -> dict[str, Any]:
    spread = _spread(took)
    row = {"": what, "calls/s": f"{rate:.0f}", "p50 ms": spread["p50"], "p99 ms": spread["p99"]}
    return row | {f"{part} CPU %": f"{value:.1f}" for part, value in used.items()}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
