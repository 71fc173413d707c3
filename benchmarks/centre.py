"""How the cost of a centre grows: with jobs that are not due, and with nodes, which here exist as keys only.

Jobs: `benchmarks.idle` for each number. Nodes: CPU of routing one fire, and of hearing what each node says of itself
every few seconds. `python -m benchmarks.centre [most jobs] [most nodes]`; a million jobs take many minutes and 8 GiB of
etcd's quota.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bare import Bare, bare, cpu
from benchmarks.harness import report
from benchmarks.idle import busy, filled, measure, settled, table
from crony.beat.book import Book
from crony.beat.router import Router
from crony.domain import ids
from crony.domain.node import NodeFacts
from crony.domain.run import Envelope
from crony.etcd.client import Client
from crony.etcd.keys import Keys

JOBS = (1_000, 10_000, 100_000, 1_000_000)
NODES = (1, 10, 100, 500)
SAYS = 5.0
"""Seconds between two things that a node says of itself."""
ROUTED = 2000


def facts(name: str, capacity: int = 4) -> NodeFacts:
    """What a node would say of itself."""
    return NodeFacts(
        name=name, incarnation=ids.incarnation(), queue=f"run.{name}", hostname="bench", pid=1, boot_id="b",
        version="0", capacity=capacity, kinds=["shell", "http", "python"],
    )  # fmt: skip


def routing(nodes: int) -> float:
    """CPU microseconds of choosing the node of one run."""
    keys = Keys("bench")
    book = Book(keys)
    for number in range(nodes):
        told = facts(f"n{number}")
        book.put(keys.session(told.incarnation), b"{}", 1 + number)
        book.put(keys.node(told.name), told.encode(), 1 + number)
    router, job = Router(book, time.monotonic), ids.job_id()
    told_to = [
        Envelope(run=f"{job}.1.{second}", job=job, name="x", generation=1, revision=1, attempt=1, queue="",
                 incarnation="", trigger="schedule", action={"kind": "shell"})
        for second in range(ROUTED)
    ]  # fmt: skip
    began = time.process_time()
    for envelope in told_to:
        assert router.route(envelope) is not None
    return (time.process_time() - began) / ROUTED * 1e6


@contextmanager
def saying(made: Bare, nodes: int) -> Iterator[None]:
    """So many nodes that say what they have to every few seconds."""
    over = threading.Event()
    client = Client([made.endpoint])
    lease = client.grant(600)
    told = [facts(f"n{number}") for number in range(nodes)]
    for each in told:
        client.put(made.keys.session(each.incarnation), b"{}", lease=lease)

    def say() -> None:
        while not over.is_set():
            for each in told:
                client.put(made.keys.node(each.name), each.encode(), lease=lease)
                if over.wait(SAYS / nodes):
                    return

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        client.close()


def with_nodes(nodes: int, seconds: int = 15) -> dict[str, object]:
    """One row."""
    with bare() as made:
        filled(made, 1)
        centre = made.centre("one")
        made.leads("one")
        with saying(made, nodes):
            settled(centre.pid, 30)
            share = busy(centre.pid, seconds)
        return {
            "nodes": nodes,
            "routing a run us": f"{routing(nodes):.0f}",
            "node records a second": f"{nodes / SAYS:.1f}",
            "CPU % of the centre": f"{100 * share:.1f}",
            "CPU s in all": f"{cpu(centre.pid):.1f}",
        }


def main(most_jobs: int = 100_000, most_nodes: int = 500) -> None:
    """Print both tables."""
    rows = []
    for nodes in (count for count in NODES if count <= most_nodes):
        rows.append(with_nodes(nodes))
        print(rows[-1], flush=True)
    if rows:
        report("a centre and its nodes", rows, {"nodes": rows})
    rows = []
    for jobs in (count for count in JOBS if count <= most_jobs):
        with bare(quota=8 << 30) as made:
            rows.append(table(measure(made, jobs, filled(made, jobs), 20)))
        print(rows[-1], flush=True)
    if rows:
        report("a centre and its jobs", rows, {"jobs": rows})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
