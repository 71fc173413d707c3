"""Runs a second, end to end: jobs due each second, run by real nodes, archived in MariaDB.

One centre, one web, so many nodes (threads 4), no-op Python tasks. Told: how many of the due fires of the measured time
have their run in the database, how late they started, and where the CPU went.
`python -m benchmarks.sustained [runs a second] [seconds] [nodes]`
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bare import cpu
from benchmarks.harness import NOOP, quantile, report, until
from tests.helpers.etcd import EtcdServer
from tests.helpers.mariadb import MariaServer
from tests.helpers.platform import platform

WARM = 10


def children(pid: int) -> list[int]:
    """A process and all its descendants."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += [child for child, parent in parents if parent == found[-1]]
    return found


def main(rate: int = 200, seconds: int = 60, nodes: int = 1) -> None:
    """Print the table and the figures."""
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        folder, server = Path(name), MariaServer()
        etcd = EtcdServer(data_dir=folder / "etcd")
        etcd.start()
        server.start()
        try:
            with platform(folder / "crony", [etcd.endpoint], server.fresh(), leader_ttl=5, node_ttl=10, grace=5,
                          imports="benchmarks.noop") as made:  # fmt: skip
                centre = made.centre("one")
                made.web()
                names = [f"n{number}" for number in range(nodes)]
                workers = [made.node(each, concurrency=4) for each in names]
                made.await_nodes(*names)
                made.await_leader()
                for number in range(rate):
                    made.job({"name": f"each-second/{number}", "schedule": {"every": "1s"}, "overlap": "allow",
                              "action": NOOP, "misfire": {"policy": "fire_all"}})  # fmt: skip
                first = int(time.time()) + WARM
                until(lambda: time.time() >= first, 60, "the beginning", every=0.05)
                parts = {
                    "centre": [centre.pid],
                    "nodes": [pid for worker in workers for pid in children(worker.pid)],
                    "etcd": [etcd.pid],
                    "mariadb": [server.pid],
                }
                used = {part: sum(map(cpu, pids)) for part, pids in parts.items()}
                until(lambda: time.time() >= first + seconds, seconds + 60, "the end", every=0.2)
                used = {part: sum(map(cpu, pids)) - used[part] for part, pids in parts.items()}
                late = _lateness(server, made.database_url, first, first + seconds)
                behind = rate * seconds - len(late)
                until(
                    lambda: len(_lateness(server, made.database_url, first, first + seconds)) >= rate * seconds,
                    120, "all to be archived", every=1.0,
                )  # fmt: skip
                drained = time.time() - (first + seconds)
                late = _lateness(server, made.database_url, first, first + seconds)
        finally:
            server.destroy()
            etcd.stop()
    runs = rate * seconds
    row = {"runs/s": rate, "seconds": seconds, "nodes": nodes, "archived at the end": runs - behind,
           "the rest after s": f"{drained:.1f}", "p50 ms": f"{1000 * quantile(late, 0.5):.0f}",
           "p99 ms": f"{1000 * quantile(late, 0.99):.0f}"}  # fmt: skip
    row |= {f"{part} us a run": f"{1e6 * spent / runs:.0f}" for part, spent in used.items()}
    report("runs a second, end to end", [row], {"rate": rate, "seconds": seconds, "behind": behind,
           "drained_s": round(drained, 1), "p99_ms": round(1000 * quantile(late, 0.99)),
           "cpu_us_a_run": {part: round(1e6 * spent / runs) for part, spent in used.items()},
           "cores": os.cpu_count()})  # fmt: skip


def _lateness(server: MariaServer, url: str, first: int, end: int) -> list[float]:
    """Seconds from the nominal instant to the start of each archived run that was due in that time, sorted."""
    schema = url.rsplit("/", 1)[1].split("?")[0]
    rows = server.root(
        f"SELECT a.started_at - r.fire_at FROM {schema}.runs r JOIN {schema}.attempts a ON a.run_id = r.id "
        f"WHERE a.final AND r.fire_at >= {first} AND r.fire_at < {end} AND a.started_at IS NOT NULL"
    )
    return sorted(float(late) for (late,) in rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
