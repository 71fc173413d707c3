"""Idle lateness: one job a second; milliseconds from the nominal instant to the start of its runner.

`python -m benchmarks.lateness [seconds] [rounds]`
"""

from __future__ import annotations

import sys

from benchmarks.harness import NOOP, Collector, crony, median, quantile, report, until


def measure(pool: str, seconds: int) -> tuple[float, float, int]:
    """(p50, p99, fires) in milliseconds over so many fires, the first five left out as warm-up."""
    with crony(pool=pool, concurrency=2) as running:
        running.job({"name": "each-second", "schedule": {"every": "1s"}, "overlap": "allow", "action": NOOP})
        collector = Collector(running)
        until(lambda: collector.poll() >= seconds + 5, seconds + 60, "the fires to end", every=1.0)
        first = sorted(collector.found)[4][0]
        for key in [key for key in collector.found if key[0] <= first]:
            del collector.found[key]
        late = collector.lateness()
        return quantile(late, 0.5) * 1000, quantile(late, 0.99) * 1000, len(late)


def main(seconds: int = 60, rounds: int = 3) -> None:
    """Print the table and the figures."""
    rows, figures = [], {}
    for pool in ("threads", "prefork"):
        measured = [measure(pool, seconds) for _ in range(rounds)]
        p50, p99 = median([m[0] for m in measured]), median([m[1] for m in measured])
        rows.append(
            {"pool": pool, "rounds": rounds, "fires": measured[0][2], "p50 ms": f"{p50:.1f}", "p99 ms": f"{p99:.1f}"}
        )
        figures[pool] = {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}
    report("idle lateness, one job a second", rows, figures)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
