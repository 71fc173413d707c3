"""What etcd says now, read at most once a second for all readers: live runs, fresh outcomes, nodes, queues, centres."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from crony.clock import SYSTEM
from crony.domain.node import NodeControl, NodeFacts
from crony.domain.outcome import Outcome
from crony.domain.pool import Slot
from crony.domain.record import UnknownRecord
from crony.domain.run import Accepted
from crony.errors import CronyError, Unavailable
from crony.etcd.client import Client
from crony.etcd.keys import Keys, decode, prefix_end
from crony.lifecycle import centres
from crony.lifecycle.centres import Centres
from crony.lifecycle.hold import Switch, look
from crony.lifecycle.look import LiveRun, live_runs

T = TypeVar("T")

FRESH = 1.0
"""Seconds an answer is served before etcd is asked again."""
OUTCOMES = 2000
"""Most outcomes read that the archive may not have yet; more wait in etcd only while the database is away."""


class Cached(Generic[T]):
    """One value read by `read` at most every `seconds`; many threads asking at once cause one read."""

    def __init__(self, read: Callable[[], T], seconds: float = FRESH) -> None:
        self._read, self._seconds = read, seconds
        self._lock = threading.Lock()
        self._value: T | None = None
        self._error: Unavailable | None = None
        self._until = float("-inf")

    def __call__(self) -> T:
        """The value; raises what `read` raised, for as long as a value would have been served."""
        with self._lock:
            if SYSTEM.monotonic() >= self._until:
                try:
                    self._value, self._error = self._read(), None
                except CronyError as error:
                    self._error = _as_away(error)
                self._until = SYSTEM.monotonic() + self._seconds
            if self._error is not None:
                raise self._error.with_traceback(None)
            return self._value  # type: ignore[return-value]

    def forget(self) -> None:
        """Read again at the next call: somebody changed something through us."""
        self._until = float("-inf")


@dataclass(frozen=True, slots=True)
class Node:
    """A node: what it says about itself (None: no session), and what people set."""

    name: str
    facts: NodeFacts | None
    control: NodeControl = field(default_factory=NodeControl)
    queued: int = 0

    @property
    def weight(self) -> int:
        """The weight in force."""
        if self.control.weight is not None:
            return self.control.weight
        return self.facts.weight if self.facts else 0

    @property
    def labels(self) -> dict[str, str]:
        """The labels in force."""
        return self.control.over(self.facts.labels if self.facts else {})

    @property
    def machine(self) -> dict[str, float]:
        """How its machine is, as far as it says so in numbers."""
        said = self.facts.machine if self.facts else None
        found = said.items() if isinstance(said, dict) else ()
        return {str(key): value for key, value in found if isinstance(value, int | float)}

    @property
    def used(self) -> dict[str, int]:
        """How much of its machine is in use, percent: cpu (load for each CPU), memory, disk; what is known of it."""
        machine, found = self.machine, {}
        if machine.get("cpus") and "load" in machine:
            found["cpu"] = machine["load"] / machine["cpus"]
        for what in ("memory", "disk"):
            if machine.get(what) and f"{what}_free" in machine:
                found[what] = 1 - machine[f"{what}_free"] / machine[what]
        return {what: round(100 * share) for what, share in found.items()}

    @property
    def state(self) -> str:
        """away, drained, cordoned or ready."""
        if self.facts is None:
            return "away"
        if self.control.drain or self.facts.draining:
            return "draining"
        return "cordoned" if self.control.cordoned or self.weight == 0 else "ready"


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with its messages and claims counted."""

    name: str
    kind: str
    """runs (a node's own, or a shared one) or celery (plain messages)"""
    waiting: int
    claimed: int


class Live:
    """Cached reads of one namespace. Every method raises `Unavailable` when etcd is away."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client, self.keys = client, keys
        self._runs: Cached[tuple[list[LiveRun], dict[str, list[Outcome]]]] = Cached(self._read_runs)
        self.nodes: Cached[dict[str, Node]] = Cached(self._read_nodes)
        self.queues: Cached[list[Queue]] = Cached(self._read_queues, 2.0)
        self.switch: Cached[Switch] = Cached(lambda: look(client, keys))
        self.slots: Cached[dict[str, dict[int, str]]] = Cached(self._read_slots)
        self.centres: Cached[Centres] = Cached(lambda: centres.look(client, keys))

    def runs(self) -> list[LiveRun]:
        """Every live run, oldest first."""
        return self._runs()[0]

    def outcomes(self) -> dict[str, list[Outcome]]:
        """Outcomes still in etcd, by run; one look with `runs`, so that no run is in neither while it ends."""
        return self._runs()[1]

    def run(self, run: str) -> LiveRun | None:
        """The run if it lives, read now."""
        try:
            found = live_runs(self.client, self.keys, run=run)
        except CronyError as error:
            raise _as_away(error) from error
        return found[0] if found else None

    def accepted(self, run: str) -> int | None:
        """The attempt that a callee has accepted and not ended yet, read now; None: none, or etcd is away."""
        try:
            found = self.client.get(self.keys.run_acc(run))
        except CronyError:
            return None
        record = _record(Accepted, found.value) if found is not None else None
        return record.attempt if record is not None else None

    def outcomes_of(self, run: str) -> list[Outcome]:
        """Outcomes of one run still in etcd, by attempt."""
        return sorted(_outcomes(self.client.list(f"{self.keys.outs}{run}/").kvs), key=lambda o: (o.attempt, o.final))

    def forget(self) -> None:
        """Something was changed through this process: show it at once."""
        for cached in (self._runs, self.nodes, self.queues, self.switch, self.slots, self.centres):
            cached.forget()

    def _read_runs(self) -> tuple[list[LiveRun], dict[str, list[Outcome]]]:
        alive = live_runs(self.client, self.keys)
        return alive, self._read_outcomes()  # in this order: a run that ends in between is in both, not in neither

    def _read_outcomes(self) -> dict[str, list[Outcome]]:
        page = self.client.range(self.keys.outs, prefix_end(self.keys.outs), limit=OUTCOMES)
        found: dict[str, list[Outcome]] = {}
        for outcome in _outcomes(page.kvs):
            found.setdefault(outcome.run, []).append(outcome)
        return found

    def _read_nodes(self) -> dict[str, Node]:
        root = self.keys.root
        nodes: dict[str, Node] = {}
        for kv in self.client.list(f"{root}node/").kvs:
            facts = _record(NodeFacts, kv.value)
            name = decode(kv.key.removeprefix(f"{root}node/"))
            if facts is not None:
                nodes[name] = Node(name, facts)
        for kv in self.client.list(f"{root}nodectl/").kvs:
            control = _record(NodeControl, kv.value)
            name = decode(kv.key.removeprefix(f"{root}nodectl/"))
            if control is not None:
                nodes[name] = replace(nodes.get(name, Node(name, None)), control=control)
        for queue in self.queues():
            name = queue.name.removeprefix("run.")
            if queue.kind == "runs" and name in nodes:
                nodes[name] = replace(nodes[name], queued=queue.waiting)
        return dict(sorted(nodes.items()))

    def _read_slots(self) -> dict[str, dict[int, str]]:
        """Pool -> number of each slot that is held, and the run that holds it."""
        found: dict[str, dict[int, str]] = {}
        for kv in self.client.list(self.keys.pools).kvs:
            pool, _, number = kv.key.removeprefix(self.keys.pools).rpartition("/")
            slot = _record(Slot, kv.value)
            if number.isdigit():
                found.setdefault(decode(pool), {})[int(number)] = slot.run if slot else "?"
        return found

    def _read_queues(self) -> list[Queue]:
        counts: dict[tuple[str, str], list[int]] = {}
        for prefix, kind in ((f"{self.keys.run}q/", "runs"), (f"{self.keys.root}q/", "celery")):
            for kv in self.client.list(prefix, keys_only=True).kvs:
                queue, part, _ = kv.key.removeprefix(prefix).split("/", 2)
                count = counts.setdefault((decode(queue), kind), [0, 0])
                count[1 if part == "c" else 0] += 1
        return [
            Queue(name, kind, max(0, messages - claims), claims)
            for (name, kind), (messages, claims) in sorted(counts.items())
        ]


def _as_away(error: CronyError) -> Unavailable:
    """Whatever keeps etcd from answering (halted, no gateway, no rights) is the same to a reader: it is not there."""
    if isinstance(error, Unavailable):
        return error
    return Unavailable(error.what, why=error.why, hint=error.hint)


def _outcomes(kvs: list[Any]) -> list[Outcome]:
    return [outcome for kv in kvs if (outcome := _record(Outcome, kv.value)) is not None]


def _record(kind: type[T], value: bytes) -> T | None:
    """The record, or None for one this version cannot read: a page must not fail because of one key."""
    try:
        return kind.read(value)  # type: ignore[attr-defined, no-any-return]
    except UnknownRecord:
        return None
