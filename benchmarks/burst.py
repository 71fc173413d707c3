"""1,000 cron jobs due at the same second: when did the first and the last one start? Celery beat on Redis beside it.

`python -m benchmarks.burst [jobs] [rounds]`
"""

from __future__ import annotations

import sys
import time

from benchmarks import celery_beat
from benchmarks.harness import NOOP, Collector, crony, median, report, until


def measure(jobs: int, concurrency: int) -> tuple[float, float]:
    """(first, last) start in seconds after the second that all are due at."""
    with crony(pool="threads", concurrency=concurrency) as running:
        until(lambda: time.time() % 60 < 15, 60, "a fresh minute", every=0.2)
        due = (int(time.time()) // 60 + 1) * 60
        for number in range(jobs):
            running.job(
                {"name": f"burst/{number}", "schedule": {"cron": "* * * * *"}, "overlap": "allow", "action": NOOP}
            )
        if time.time() > due - 2:
            due += 60
        until(lambda: time.time() > due, 130, "the minute", every=0.05)
        collector = Collector(running)
        until(lambda: collector.poll() and len(collector.lateness(due)) >= jobs, 60, "all to start", every=2)
        late = collector.lateness(due)
        return late[0], late[-1]


def main(jobs: int = 1000, rounds: int = 3) -> None:
    """Print the table and the figures."""
    rows, figures = [], {}
    for name, run in (("crony", measure), ("celery beat + Redis", celery_beat.measure)):
        measured = []
        for number in range(rounds):
            measured.append(run(jobs, 4))
            print(f"{name}, round {number + 1}: {measured[-1][0]:.3f} s to {measured[-1][1]:.3f} s", flush=True)
        first, last = median([m[0] for m in measured]), median([m[1] for m in measured])
        rows.append(
            {"system": name, "jobs": jobs, "rounds": rounds, "first s": f"{first:.3f}", "last s": f"{last:.3f}"}
        )
        figures[name] = {"first_s": round(first, 3), "last_s": round(last, 3)}
    figures["ratio_last"] = round(figures["celery beat + Redis"]["last_s"] / figures["crony"]["last_s"], 2)  # type: ignore[assignment]
    report(f"{jobs} jobs due at the same second", rows, figures)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
