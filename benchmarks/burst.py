"""N cron jobs due at the same second: when did the first and the last one start? RedBeat and Celery beat beside it.

Crony: a centre and so many nodes, threads 4 each. The peers: their beat and one worker, threads 4, on Redis. Whoever
has not started them all after some minutes is told as such.
`python -m benchmarks.burst [jobs] [rounds] [nodes]`
"""

from __future__ import annotations

import sys
import time

from benchmarks import celery_beat
from benchmarks.harness import NOOP, crony, median, outcomes, report, until
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.signing import Sealer
from crony.etcd.txn import Txn
from tests.helpers.platform import Platform

TOGETHER = 30


def publish(running: Platform, jobs: int, due: int) -> None:
    """Jobs that are due once a year, at that second, as a web would publish them."""
    moment, now = time.gmtime(due), int(time.time())
    cron = f"{moment.tm_min} {moment.tm_hour} {moment.tm_mday} {moment.tm_mon} *"
    sealer, keys, txn = Sealer(running.web_private), running.keys, Txn()
    for number in range(jobs):
        document = {"name": f"burst/{number}", "schedule": {"cron": cron}, "action": NOOP}
        live = LiveJob.created(ids.job_id(), document, now=now)
        txn.put(keys.job(live.id), sealer.seal(live.payload()))
        txn.put(keys.name(live.name), live.id.encode()).put(keys.done(live.id), Done(upto_at=now).encode())
        if txn.ops >= 3 * TOGETHER or number == jobs - 1:
            running.client.txn(txn)
            txn = Txn()


def measure(jobs: int, concurrency: int, nodes: int = 1) -> tuple[float, float]:
    """(first, last) start in seconds after the second that all are due at."""
    with crony(pool="threads", concurrency=concurrency) as running:
        for number in range(2, nodes + 1):
            running.node(f"n{number}", concurrency=concurrency)
        running.await_nodes(*(f"n{number}" for number in range(1, nodes + 1)))
        due = (int(time.time() + 15 + jobs / 200) // 60 + 1) * 60
        publish(running, jobs, due)
        until(lambda: time.time() > due, 300, "the minute", every=0.05)
        until(lambda: running.client.count(running.keys.outs) >= jobs, 120, "all to end", every=0.2)
        late = sorted(each.started_at - due for each in outcomes(running) if each.started_at is not None)
        assert len(late) == jobs, f"{len(late)} of {jobs} were started"
        return late[0], late[-1]


def main(jobs: int = 1000, rounds: int = 3, nodes: int = 1) -> None:
    """Print the table and the figures."""
    rows, figures = [], {}
    peers = (("celery beat + Redis", celery_beat.measure), ("RedBeat + Redis", celery_beat.redbeat))
    systems = (("crony", lambda jobs, places: measure(jobs, places, nodes)), *peers)
    for name, run in systems:
        measured = []
        for number in range(rounds):
            try:
                measured.append(run(jobs, 4))
            except AssertionError as error:
                print(f"{name}, round {number + 1}: {error}", flush=True)
                continue
            print(f"{name}, round {number + 1}: {measured[-1][0]:.3f} s to {measured[-1][1]:.3f} s", flush=True)
        first, last = (median([each[index] for each in measured]) if measured else -1.0 for index in (0, 1))
        rows.append({"system": name, "jobs": jobs, "rounds": len(measured), "first s": f"{first:.3f}",
                     "last s": f"{last:.3f}"})  # fmt: skip
        figures[name] = {"first_s": round(first, 3), "last_s": round(last, 3)}
    report(f"{jobs} jobs due at the same second", rows, figures)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
