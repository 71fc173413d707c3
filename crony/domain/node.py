"""A node as the centre sees it: facts it publishes itself, and what people set for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crony.domain.record import Record

LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
"""What the name of a label may be."""
VALUE = 63
"""Most characters of a label's value."""
MOST_LABELS = 32
"""Most labels that people may set for one node."""
PERMITS = "permits"
"""It takes a durable permit before the first instruction of work that needs one, and stops on a cut if a job asks."""
ABILITIES = (PERMITS,)
"""What this version can do. An attempt that needs an ability goes to no node that does not say that it has it."""


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
    secret_keys: list[str] = field(default_factory=list)
    """Ids of the keys with which it opens secrets; none: it gets no job that has any."""
    running: int = 0
    started_at: float = 0.0
    seen_at: float = 0.0
    draining: bool = False
    machine: dict[str, float] = field(default_factory=dict)
    """How the machine is (see `workers/machine.py`): cpus, load (of the last minute), memory and memory_free, disk and
    disk_free (of the spool's file system), rss (of the node and its pool); bytes. What is not known is left out."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of Python, Celery and the kernel."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What it counted since its start, and how it stands: see `domain/figures.py`."""
    can: list[str] = field(default_factory=list)
    """What its version knows of the protocol: see `ABILITIES`. A node of an older version does not say."""


@dataclass(frozen=True, slots=True)
class NodeControl(Record):
    """`nodectl/<node>`: what people set; outlives the node."""

    weight: int | None = None
    """Overrides the node's own weight; None: the node's own."""
    cordoned: bool = False
    """No new work."""
    drain: bool = False
    """No new work, and unstarted work goes elsewhere."""
    labels: dict[str, str | None] = field(default_factory=dict)
    """Set over the node's own; None: the node's own one does not count."""
    by: str = ""
    at: float = 0.0

    def over(self, own: Mapping[str, str]) -> dict[str, str]:
        """The labels in force of a node that says `own` of itself."""
        return {key: value for key, value in {**own, **self.labels}.items() if value is not None}
