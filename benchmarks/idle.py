"""What jobs that are not due cost: N of them and one that is due each second, a centre alone.

CPU and memory of the centre, ticks missed, start until the first dispatch, an edit until it is dispatched by, and the
takeover by a second centre after SIGKILL. `python -m benchmarks.idle [jobs] [seconds]`
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
    until(lambda: max(ticks(made, job), default=0) > after, 60, "a dispatch", every=0.02)
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


def main(jobs: int = 100_000, seconds: int = 60) -> None:
    """Print the table and the figures."""
    with bare() as made:
        began = time.monotonic()
        made.jobs(documents(jobs))
        (tick,) = made.jobs([{"name": "tick", "schedule": {"every": "1s"}, "action": ACTION, "overlap": "allow"}])
        print(f"{jobs} jobs published in {time.monotonic() - began:.1f} s", flush=True)
        made.node("n1")
        began, before = time.monotonic(), int(time.time())
        one = made.centre("one")
        first_tick(made, tick, before)
        start = time.monotonic() - began
        time.sleep(15)  # what is done once after the start is not idle
        used, at, low = cpu(one.pid), time.monotonic(), int(time.time())
        time.sleep(seconds)
        share, high = (cpu(one.pid) - used) / (time.monotonic() - at), int(time.time())
        memory = rss(one.pid)
        fired = ticks(made, tick)
        missed = sum(1 for second in range(low, high) if second not in fired)
        edit = edit_live(made)
        made.centre("two")
        time.sleep(20)
        os.killpg(one.pid, signal.SIGKILL)
        killed = time.time()
        takeover = first_tick(made, tick, int(killed) + 1) - killed
        row = {
            "jobs": jobs,
            "CPU %": f"{100 * share:.1f}",
            "RSS MiB": f"{memory:.0f}",
            f"missed in {seconds} s": missed,
            "start to dispatch s": f"{start:.1f}",
            "edit live ms": f"{1000 * edit:.0f}",
            "takeover s": f"{takeover:.1f}",
        }
        report("idle jobs", [row], {"jobs": jobs, "cpu_percent": round(100 * share, 2), "rss_mib": round(memory),
               "missed": missed, "start_s": round(start, 2), "edit_ms": round(1000 * edit),
               "takeover_s": round(takeover, 2)})  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
