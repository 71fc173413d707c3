"""A node as the centre sees it: facts it publishes itself, and what people set for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from crony.domain.run import Record


@dataclass(frozen=True, slots=True)
class NodeFacts(Record):
    """`node/<node>`: written by the node under its session's lease, renewed every few seconds with its load."""

    name: str
    incarnation: str
    queue: str
    """Its run queue, `run.<node>`."""
    hostname: str
    pid: int
    boot_id: str
    version: str
    capacity: int
    """Attempts it runs at a time."""
    weight: int = 100
    labels: dict[str, str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    """Action kinds it runs: shell only when its own switch allows it."""
    queues: list[str] = field(default_factory=list)
    """Names of the shared queues it takes from."""
    running: int = 0
    started_at: float = 0.0
    seen_at: float = 0.0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class NodeControl(Record):
    """`nodectl/<node>`: what people set; outlives the node."""

    weight: int | None = None
    """Overrides the node's own weight; None: the node's own."""
    cordoned: bool = False
    """No new work."""
    drain: bool = False
    """No new work, and unstarted work goes elsewhere."""
    by: str = ""
    at: float = 0.0
