"""Whether runs that print much slow the others: small runs beside runs that print 1 MiB each, and beside none.

One centre, one web, one node, the archive in MariaDB. Small jobs are due each second, no-op Python tasks. Three times:
alone; beside others that work as much and keep it to themselves; beside others that print it. What printing costs the
small ones is the difference between the last two. Told of the small: how late they began and how long they took; of the
others: whether all they printed has arrived, byte by byte counted, and how long after the last of them had ended.
`python -m benchmarks.output [runs that print] [of them a second] [small runs a second]`
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.bare import cpu
from benchmarks.harness import NOOP, Collector, quantile, report, until
from benchmarks.sustained import children
from crony.domain.ids import parse_run_id
from crony.domain.outcome import Outcome
from tests.helpers.etcd import EtcdServer
from tests.helpers.mariadb import MariaServer
from tests.helpers.platform import Platform, platform

SIZE = 1 << 20
WARM = 5
SMALL = "small"


def action(printing: bool) -> dict[str, Any]:
    """A run that makes 1 MiB of text, and prints it or does not."""
    return {"kind": "python", "task": "benchmarks.noop.lines", "kwargs": {"size": SIZE, "printing": printing}}


def jobs(made: Platform, number: int, name: str, what: dict[str, Any]) -> list[str]:
    """So many jobs that are due each second; their ids."""
    common = {"schedule": {"every": "1s"}, "overlap": "allow", "misfire": {"policy": "fire_all"}}
    return [str(made.job({"name": f"{name}/{each}", "action": what, **common})["id"]) for each in range(number)]


def pause(made: Platform, of: set[str]) -> None:
    """These jobs are not due any more."""
    for job in of:
        made.call("POST", f"jobs/{job}:pause", {})


def measured(made: Platform, small: set[str], others: set[str], seconds: int) -> list[Outcome]:
    """The outcomes of what is due in the next seconds, when all of it has ended."""
    collector, first = Collector(made), int(time.time()) + WARM
    wanted = (len(small) + len(others)) * seconds

    def ended() -> list[Outcome]:
        collector.poll()
        span = range(first, first + seconds)
        return [each for each in collector.found.values() if (parse_run_id(each.run).fire or 0) in span]

    until(lambda: len(ended()) >= wanted, WARM + 10 * seconds + 60, "the runs to end", every=1.0)
    return ended()


def row(how: str, small: set[str], found: list[Outcome]) -> dict[str, object]:
    """What is told of the small runs."""
    mine = [each for each in found if each.job in small and each.started_at is not None]
    late = sorted(float(each.started_at or 0) - (parse_run_id(each.run).fire or 0) for each in mine)
    took = sorted(each.ended_at - float(each.started_at or 0) for each in mine)
    return {
        "small runs": how, "number": len(mine),
        "late ms p50": f"{1000 * quantile(late, 0.5):.1f}", "p99": f"{1000 * quantile(late, 0.99):.1f}",
        "took ms p50": f"{1000 * quantile(took, 0.5):.1f}", "took p99": f"{1000 * quantile(took, 0.99):.1f}",
    }  # fmt: skip


def arrived(server: MariaServer, schema: str, runs: set[str]) -> int:
    """How many of these outputs are there, whole."""
    query = f"SELECT run_id FROM {schema}.outputs WHERE final AND NOT truncated AND size = {SIZE}"
    return len({run for (run,) in server.root(query)} & runs)


def main(runs: int = 1000, rate: int = 10, small_rate: int = 20) -> None:
    """Print the table and the figures."""
    seconds = max(1, runs // rate)
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        folder, server = Path(name), MariaServer()
        etcd = EtcdServer(data_dir=folder / "etcd")
        etcd.start()
        server.start()
        try:
            with platform(folder / "crony", [etcd.endpoint], server.fresh(), leader_ttl=5, node_ttl=10, grace=5,
                          imports="benchmarks.noop") as made:  # fmt: skip
                made.centre("one")
                web, worker = made.web(), made.node("n1", concurrency=8)
                made.await_nodes("n1")
                made.await_leader()
                small = set(jobs(made, small_rate, SMALL, NOOP))
                rows = [row("alone", small, measured(made, small, set(), seconds))]
                silent = set(jobs(made, rate, "silent", action(printing=False)))
                rows.append(row("beside silent ones", small, measured(made, small, silent, seconds)))
                pause(made, silent)
                loud = set(jobs(made, rate, "loud", action(printing=True)))
                parts = {"node": children(worker.pid), "web": [web.pid], "mariadb": [server.pid]}
                used = {part: sum(map(cpu, pids)) for part, pids in parts.items()}
                found = measured(made, small, loud, seconds)
                pause(made, small | loud)
                rows.append(row("beside printing ones", small, found))
                printed = {each.run for each in found if each.job in loud}
                last = max(each.ended_at for each in found)
                schema = made.database_url.rsplit("/", 1)[1].split("?")[0]
                until(lambda: arrived(server, schema, printed) >= len(printed), 900, "the output to arrive", every=0.2)
                behind = time.time() - last
                used = {part: sum(map(cpu, pids)) - used[part] for part, pids in parts.items()}
        finally:
            server.destroy()
            etcd.stop()
    report("small runs beside runs that print 1 MiB each", rows, {
        "printing": len(printed), "a_second": rate, "small_a_second": small_rate, "arrived_after_s": round(behind, 1),
        "cpu_ms_a_mib": {part: round(1000 * spent / len(printed), 1) for part, spent in used.items()}, "rows": rows,
    })  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
