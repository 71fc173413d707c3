"""What the benchmarks share: servers of their own, a platform of real processes, figures and tables."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crony.domain.ids import parse_run_id
from crony.domain.outcome import Outcome
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, platform
from tests.helpers.wait import until

NOOP = {"kind": "python", "task": "benchmarks.noop.noop"}


@contextmanager
def crony(*, pool: str, concurrency: int) -> Iterator[Platform]:
    """One etcd, one centre, one web and one node in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="crony-bench-") as name:
        folder = Path(name)
        etcd = EtcdServer(data_dir=folder / "etcd")
        etcd.start()
        try:
            with platform(
                folder / "crony", [etcd.endpoint], leader_ttl=5, node_ttl=10, grace=5, imports="benchmarks.noop"
            ) as running:
                running.centre("one")
                running.web()
                running.node("n1", pool=pool, concurrency=concurrency)
                running.await_nodes("n1")
                running.await_leader()
                yield running
        finally:
            etcd.stop()


def outcomes(running: Platform) -> list[Outcome]:
    """All outcomes still in etcd (they stay a minute after they were archived)."""
    return [Outcome.read(kv.value) for kv in running.client.list(running.keys.outs).kvs]


class Collector:
    """Gathers outcomes by polling etcd, since they are deleted a minute after the archive has them."""

    def __init__(self, running: Platform) -> None:
        self.running = running
        self.found: dict[tuple[str, int], Outcome] = {}

    def poll(self) -> int:
        """Look once; how many are known now."""
        for outcome in outcomes(self.running):
            self.found[outcome.run, outcome.attempt] = outcome
        return len(self.found)

    def lateness(self, nominal: int | None = None) -> list[float]:
        """Seconds from the nominal instant of each fire to the start of its runner, sorted."""
        found = []
        for outcome in self.found.values():
            fire = parse_run_id(outcome.run).fire
            if fire is not None and outcome.started_at is not None and (nominal is None or fire == nominal):
                found.append(outcome.started_at - fire)
        return sorted(found)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0-1) of the sorted values lie."""
    return values[min(len(values) - 1, int(share * len(values)))]


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def report(title: str, rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> None:
    """Print a table of `rows` (first row names the columns) and the figures as the last line, JSON."""
    columns = list(rows[0])
    widths = [
        max(len(str(row[column])) for row in [dict(zip(columns, columns, strict=True)), *rows]) for column in columns
    ]
    print(f"\n{title}")
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        print("  ".join(str(row[column]).ljust(width) for column, width in zip(columns, widths, strict=True)))
    print(json.dumps({"benchmark": title, **figures}))


__all__ = ["NOOP", "Collector", "crony", "median", "outcomes", "quantile", "report", "until"]
