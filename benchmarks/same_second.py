"""N cron jobs due in the same second, a centre alone: how long until all are dispatched, and what that takes.

`python -m benchmarks.same_second [jobs] [nodes]`
"""

from __future__ import annotations

import sys
import time

from benchmarks.bare import bare, cpu, rss
from benchmarks.harness import report, until

ACTION = {"kind": "shell", "command": ["true"]}


def main(jobs: int = 100_000, nodes: int = 10) -> None:
    """Print the table and the figures."""
    with bare() as made:
        due = (int(time.time() + jobs / 1000 + 45) // 60 + 1) * 60
        moment = time.gmtime(due)
        cron = f"{moment.tm_min} {moment.tm_hour} {moment.tm_mday} {moment.tm_mon} *"
        for number in range(nodes):
            made.node(f"n{number}")
        one = made.centre("one")
        made.jobs({"name": f"same/{n}", "schedule": {"cron": cron}, "action": ACTION} for n in range(jobs))
        print(f"{jobs} jobs published, due in {due - time.time():.0f} s", flush=True)
        until(lambda: time.time() >= due - 1, 300, "the second", every=0.05)
        before, term = cpu(one.pid), made.client.get(made.keys.leader(0))
        until(lambda: time.time() >= due, 10, "the second", every=0.005)
        half = most = 0.0
        while (count := made.queued()) < jobs and time.time() < due + 600:
            half = half or (time.time() - due if count >= jobs / 2 else 0.0)
            most = max(most, rss(one.pid))
            time.sleep(0.05)
        last = time.time() - due
        leader = made.client.get(made.keys.leader(0))
        kept = leader is not None and term is not None and leader.create == term.create
        used = cpu(one.pid) - before
        row = {
            "jobs": jobs, "nodes": nodes, "half after s": f"{half or last:.2f}", "all after s": f"{last:.2f}",
            "fires/s": f"{jobs / last:.0f}", "CPU us a fire": f"{1e6 * used / jobs:.0f}",
            "most RSS MiB": f"{max(most, rss(one.pid)):.0f}", "kept its lease": kept,
        }  # fmt: skip
        report("due in the same second", [row], {"jobs": jobs, "all_s": round(last, 2),
               "fires_per_s": round(jobs / last), "cpu_us_a_fire": round(1e6 * used / jobs),
               "rss_mib": round(max(most, rss(one.pid))), "kept_lease": kept})  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
