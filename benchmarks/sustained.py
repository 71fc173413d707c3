"""Runs a second, end to end: jobs due each second, run by real nodes, archived in MariaDB.

One centre, one web, so many nodes (threads 4), no-op Python tasks. Told: how many of the due fires of the measured time
have their run in the database when it is over (so the rate that was kept up), how long the rest takes or how much of it
is missing after two minutes, how late they started, and where the CPU went.
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
                schema = made.database_url.rsplit("/", 1)[1].split("?")[0]
                runs, over = rate * seconds, time.time()
                kept_up = done = _archived(server, schema, first, first + seconds)
                while done < runs and time.time() < over + 120:
                    time.sleep(0.5)
                    done = _archived(server, schema, first, first + seconds)
                drained = time.time() - over
                late = _lateness(server, schema, first, first + seconds) or [-1.0]
        finally:
            server.destroy()
            etcd.stop()
    row = {"due/s": rate, "seconds": seconds, "nodes": nodes, "archived/s": f"{kept_up / seconds:.0f}",
           "behind at the end": runs - kept_up, "the rest after s": f"{drained:.1f}", "never": runs - done,
           "p50 ms": f"{1000 * quantile(late, 0.5):.0f}", "p99 ms": f"{1000 * quantile(late, 0.99):.0f}"}  # fmt: skip
    row |= {f"{part} us a run": f"{1e6 * spent / max(1, kept_up):.0f}" for part, spent in used.items()}
    report("runs a second, end to end", [row], {"rate": rate, "seconds": seconds, "archived_per_s":
           round(kept_up / seconds), "behind": runs - kept_up, "drained_s": round(drained, 1), "never": runs - done,
           "p99_ms": round(1000 * quantile(late, 0.99)), "cores": os.cpu_count(),
           "cpu_us_a_run": {part: round(1e6 * spent / max(1, kept_up)) for part, spent in used.items()}})  # fmt: skip


def _due(schema: str, first: int, end: int) -> str:
    """What is asked of the database: the final attempts of runs that were due in that time (kept in milliseconds)."""
    return (
        f"FROM {schema}.runs r JOIN {schema}.attempts a ON a.run_id = r.id "
        f"WHERE a.final AND r.fire_at >= {1000 * first} AND r.fire_at < {1000 * end}"
    )


def _archived(server: MariaServer, schema: str, first: int, end: int) -> int:
    return int(server.root(f"SELECT COUNT(*) {_due(schema, first, end)}")[0][0])


def _lateness(server: MariaServer, schema: str, first: int, end: int) -> list[float]:
    """Seconds from the nominal instant to the start of each archived run that was due in that time, sorted."""
    rows = server.root(f"SELECT a.started_at - r.fire_at {_due(schema, first, end)} AND a.started_at IS NOT NULL")
    return sorted(float(late) / 1000 for (late,) in rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
