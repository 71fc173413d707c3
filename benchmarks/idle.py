"""What jobs that are not due cost: N of them and one that is due each second, a centre alone, then one that stands by.

CPU and memory of the centre (just started, and settled), ticks missed, start until the first dispatch, an edit until it
is dispatched by, and the takeover by the second centre after SIGKILL. Times on the wall are those of this machine with
all else that it does; so the CPU that each took is told beside them. `python -m benchmarks.idle [jobs] [seconds]`
"""

from __future__ import annotations

import os
import signal
import sys
import time

from benchmarks.bare import Bare, bare, cpu, rss
from benchmarks.harness import report, until
from crony.domain.ids import parse_run_id, place_ident
from crony.domain.livejob import LiveJob
from crony.lifecycle.publish import publish

ACTION = {"kind": "shell", "command": ["true"]}


def documents(count: int) -> list[dict[str, object]]:
    """Jobs of a real mixture of texts, none of them due within the day."""
    month = time.gmtime(time.time() + 5 * 30 * 86400).tm_mon
    return [
        {
            "name": f"idle/{number}",
            "schedule": {"cron": f"{number % 60} {number // 60 % 24} {number % 28 + 1} {month} *"},
            "action": ACTION,
        }
        for number in range(count)
    ]


def ticks(made: Bare, job: str) -> set[int]:
    """Nominal seconds of a job's fires that were dispatched."""
    pairs = made.client.list(f"{made.keys.run}q/", keys_only=True).kvs
    runs = (parse_run_id(place_ident(kv.key.rsplit("/", 1)[1])) for kv in pairs if "/m/" in kv.key)
    return {run.fire for run in runs if run.job == job and run.fire is not None}


def first_tick(made: Bare, job: str, after: int) -> float:
    """Wait for the first dispatch of an instant later than `after`; the wall clock then."""
    until(lambda: max(ticks(made, job), default=0) > after, 300, "a dispatch", every=0.02)
    return time.time()


def edit_live(made: Bare) -> float:
    """Seconds from the acknowledged save of a job that was far from due to the dispatch that follows from it."""
    (ident,) = made.jobs([{"name": "edited", "schedule": {"cron": "0 0 1 1 *"}, "action": ACTION}])
    time.sleep(2)  # the centre has taken it in: what is measured is the edit
    at = int(time.time()) + 2
    every = {"name": "edited", "schedule": {"every": "1s"}, "action": ACTION, "overlap": "allow"}
    until(lambda: time.time() >= at - 0.15, 10, "the moment before a second", every=0.002)
    publish(made.client, made.keys, made.sealer, LiveJob.created(ident, every, revision=2, now=time.time()))
    saved = time.time()
    return max(0.0, first_tick(made, ident, int(saved)) - (int(saved) + 1))


def settled(pid: int, most: float = 90.0) -> float:
    """Wait until a centre does nothing any more but wait; its share of a CPU in the first ten seconds."""
    first, until_, window = 0.0, time.monotonic() + most, 10.0
    while time.monotonic() < until_:
        share = busy(pid, window)
        first = first or share
        if share < 0.03:
            break
        window = 5.0
    return first


def busy(pid: int, seconds: float) -> float:
    """The share of a CPU that a process uses."""
    used, at = cpu(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu(pid) - used) / (time.monotonic() - at)


def measure(made: Bare, jobs: int, tick: str, seconds: int) -> dict[str, float]:
    """All figures. The jobs are there, and `tick`, which is due each second."""
    began, before = time.monotonic(), int(time.time())
    one = made.centre("one")
    first_tick(made, tick, before)
    start, start_cpu = time.monotonic() - began, cpu(one.pid)
    after_start = settled(one.pid)
    low = int(time.time())
    share = busy(one.pid, seconds)
    high, memory, fired = int(time.time()), rss(one.pid), ticks(made, tick)
    missed = sum(1 for second in range(low, high) if second not in fired)
    edit = edit_live(made)
    two = made.centre("two")
    until(lambda: "stands by" in made.log("two"), 60 + jobs / 1000, "the other to know all", every=0.2)
    settled(two.pid)
    standby, standby_memory, used = busy(two.pid, 10), rss(two.pid), cpu(two.pid)
    os.killpg(one.pid, signal.SIGKILL)
    killed = time.time()
    takeover = first_tick(made, tick, int(killed) + 1) - killed
    takeover_cpu = cpu(two.pid) - used
    return {
        "jobs": jobs, "start_s": start, "start_cpu_s": start_cpu, "cpu_after_start_percent": 100 * after_start,
        "cpu_percent": 100 * share, "rss_mib": memory, "missed": missed, "edit_ms": 1000 * edit,
        "standby_cpu_percent": 100 * standby, "standby_rss_mib": standby_memory,
        "takeover_s": takeover, "takeover_cpu_s": takeover_cpu,
        "etcd_mib": made.client.status().db_in_use / 2**20,
    }  # fmt: skip


def table(found: dict[str, float]) -> dict[str, object]:
    """One row."""
    return {
        "jobs": int(found["jobs"]),
        "CPU % settled (at first)": f"{found['cpu_percent']:.1f} ({found['cpu_after_start_percent']:.0f})",
        "RSS MiB": f"{found['rss_mib']:.0f}",
        "missed": int(found["missed"]),
        "start to dispatch s (CPU s)": f"{found['start_s']:.1f} ({found['start_cpu_s']:.1f})",
        "edit live ms": f"{found['edit_ms']:.0f}",
        "stands by: CPU %, RSS MiB": f"{found['standby_cpu_percent']:.1f}, {found['standby_rss_mib']:.0f}",
        "takeover s (CPU s)": f"{found['takeover_s']:.1f} ({found['takeover_cpu_s']:.2f})",
        "etcd MiB": f"{found['etcd_mib']:.0f}",
    }


def filled(made: Bare, jobs: int) -> str:
    """Publish the jobs, and the one that is due each second: its id."""
    began = time.monotonic()
    made.jobs(documents(jobs))
    (tick,) = made.jobs([{"name": "tick", "schedule": {"every": "1s"}, "action": ACTION, "overlap": "allow"}])
    print(f"{jobs} jobs published in {time.monotonic() - began:.1f} s", flush=True)
    made.node("n1")
    return tick


def main(jobs: int = 100_000, seconds: int = 60) -> None:
    """Print the table and the figures."""
    with bare() as made:
        found = measure(made, jobs, filled(made, jobs), seconds)
        report("idle jobs", [table(found)], {name: round(value, 2) for name, value in found.items()})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
