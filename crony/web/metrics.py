"""`/metrics`: figures of the whole Crony for Prometheus, from whichever web is asked, and those of this web.

Centres and nodes listen on nothing: their records in etcd carry what they count, and live as long as they do. What is
away is missing, and `crony_up` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from crony.clock import SYSTEM
from crony.domain.figures import (
    CENTRE_COUNTS,
    CENTRE_STATES,
    CENTRE_TIMES,
    NODE_COUNTS,
    NODE_STATES,
    SECONDS,
    About,
    Times,
    distributions,
    numbers,
)
from crony.domain.node import NodeFacts
from crony.errors import CronyError
from crony.lifecycle.centres import Centres
from crony.store import runs as archive
from crony.web.live import Node

if TYPE_CHECKING:
    from crony.web.wiring import Web

OUTCOMES = ("succeeded", "failed", "timed_out", "cancelled", "lost", "unknown", "refused", "skipped")
BUCKETS = SECONDS[:11]


class Own:
    """What this web counts itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.callbacks = Histogram(
            "crony_callback_seconds", "Reports of callees that answer later, as this web took them",
            ["call", "status"], buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip


class TimedRoute(APIRoute):
    """Routes of callees' reports: how long each took, and with which status it was answered."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As of FastAPI."""
        handle, call = super().get_route_handler(), self.path.rpartition(":")[2]

        async def timed(request: Request) -> Response:
            begun, status = time.perf_counter(), 500
            try:
                answer = await handle(request)
                status = answer.status_code
                return answer
            except CronyError as error:
                status = error.status
                raise
            finally:
                own: Own = request.app.state.web.own
                own.callbacks.labels(call, str(status)).observe(time.perf_counter() - begun)

        return timed


def exposition(web: Web) -> bytes:
    """Everything, in Prometheus' text format."""
    registry = CollectorRegistry()
    health = web.health()
    up = Gauge("crony_up", "Whether what the web needs is there", ["part"], registry=registry)
    up.labels("etcd").set(not health.etcd)
    up.labels("database").set(not health.database)
    Gauge("crony_halted", "Whether etcd was restored and not recovered", registry=registry).set(bool(health.halted))
    if health.etcd_facts is not None:
        Gauge("crony_etcd_db_bytes", "Size of etcd's store", registry=registry).set(health.etcd_facts.db_size)
    try:
        _live(web, registry)
        registry.register(_Families([*_of_centres(web.live.centres()), *_of_nodes(web.live.nodes().values())]))
    except CronyError:
        pass  # crony_up says so
    try:
        counts = archive.counts(web.db, since=SYSTEM.wall() - 3600)
        hour = Gauge("crony_runs_last_hour", "Runs ended in the last hour", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            hour.labels(outcome).set(counts.get(outcome, 0))
    except CronyError:
        pass
    return generate_latest(registry) + generate_latest(web.own.registry)


def _live(web: Web, registry: CollectorRegistry) -> None:
    runs = Gauge("crony_runs_live", "Runs that have not ended", ["state"], registry=registry)
    for state in ("requested", "waiting", "queued", "running", "accepted"):
        runs.labels(state).set(0)
    for run in web.live.runs():
        runs.labels(str(run.state)).inc()
    Gauge("crony_stopped", "Whether the stop switch is set", registry=registry).set(web.live.switch().stop)
    centres = web.live.centres()
    Gauge("crony_leader", "Whether each shard has a leader", registry=registry).set(not centres.vacant)
    led = Gauge("crony_shards_led", "Shards that a centre leads", ["centre"], registry=registry)
    skew = Gauge("crony_centre_clock_skew_seconds", "Clock of a centre minus etcd's", ["centre"], registry=registry)
    for incarnation, facts in centres.running.items():
        led.labels(facts.name).set(len(centres.led_by(incarnation)))
        skew.labels(facts.name).set(facts.skew)
    Gauge("crony_shards", "Number of shards", registry=registry).set(centres.sharding.count if centres.sharding else 0)
    nodes = Gauge("crony_nodes", "Nodes by state", ["state"], registry=registry)
    for state in ("ready", "cordoned", "draining", "away"):
        nodes.labels(state).set(0)
    for node in web.live.nodes().values():
        nodes.labels(node.state).inc()
    Gauge("crony_outcomes_unarchived", "Runs whose outcome is still in etcd", registry=registry).set(
        len(web.live.outcomes())
    )
    waiting = Gauge("crony_queue_waiting", "Messages nobody has claimed", ["queue"], registry=registry)
    for queue in web.live.queues():
        waiting.labels(queue.name).set(queue.waiting)


class _Families:
    """Figures that were read, for a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """As of a collector."""
        yield from self._families


def _of_centres(centres: Centres) -> Iterator[Metric]:
    told = {facts.name: facts.figures for facts in centres.running.values()}
    yield from _families("centre", told, CENTRE_COUNTS, CENTRE_TIMES, CENTRE_STATES)


def _of_nodes(nodes: Iterable[Node]) -> Iterator[Metric]:
    alive = [node.facts for node in nodes if node.facts is not None]
    told = {facts.name: _with_load(facts) for facts in alive}
    yield from _families("node", told, NODE_COUNTS, {}, NODE_STATES)


def _with_load(facts: NodeFacts) -> dict[str, Any]:
    """What it says in its figures, and what its record says beside them."""
    states = facts.figures.get("s") if isinstance(facts.figures, dict) else None
    own = {"running": {"": facts.running}, "capacity": {"": facts.capacity}}
    return {**(facts.figures or {}), "s": {**(states if isinstance(states, dict) else {}), **own}}


def _families(
    role: str,
    told: dict[str, Any],
    counts: dict[str, About],
    times: dict[str, About],
    states: dict[str, About],
) -> Iterator[Metric]:
    """One family for each figure, with a sample for each process that told it."""
    for part, known, family in (("c", counts, CounterMetricFamily), ("s", states, GaugeMetricFamily)):
        read = {who: numbers(figures, part, known) for who, figures in told.items()}
        for name, about in known.items():
            made = family(about.name, about.text, labels=_labels(role, about))
            for who, values in read.items():
                for label, value in values.get(name, {}).items():
                    made.add_metric([who, label][: 1 + bool(about.label)], value)
            yield made
    spread = {who: distributions(figures, times) for who, figures in told.items()}
    for name, about in times.items():
        histogram = HistogramMetricFamily(about.name, about.text, labels=_labels(role, about))
        for who, found in spread.items():
            for label, row in found.get(name, {}).items():
                histogram.add_metric([who, label][: 1 + bool(about.label)], _cumulative(row), row.total)
        yield histogram


def _labels(role: str, about: About) -> list[str]:
    return [role, about.label] if about.label else [role]


def _cumulative(row: Times) -> list[tuple[str, float]]:
    total, found = 0, []
    for bound, count in zip([*map(str, SECONDS), "+Inf"], row.buckets, strict=True):
        total += count
        found.append((bound, float(total)))
    return found
