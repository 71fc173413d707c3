"""Shards: each job belongs to one of `count`, and each shard has a leader of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from crony.domain.record import Record

MOST = 64
"""Most shards: each one costs every centre a thread and a watch of its leader's key."""


def shard_of(job: str, count: int) -> int:
    """The shard of a job among `count`, the same everywhere and for ever."""
    return crc32(job.encode()) % count


@dataclass(frozen=True, slots=True)
class Part:
    """One shard of so many, and with it the jobs it decides."""

    number: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        """Whether its leader also looks after what belongs to no job: alerts, the archive, compaction."""
        return self.number == 0

    def has(self, job: str) -> bool:
        """Whether the job belongs to it."""
        return self.of == 1 or shard_of(job, self.of) == self.number


@dataclass(frozen=True, slots=True)
class Shards(Record):
    """`beat/shards`: how many shards there are, since when (epoch seconds), by whom. Without the key: one."""

    count: int = 1
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class CentreFacts(Record):
    """`beat/centre/<incarnation>`: a centre that runs, as it describes itself; leased."""

    name: str
    host: str = ""
    pid: int = 0
    version: str = ""
    since_at: float = 0.0
    at: float = 0.0
    """Its wall clock when it last said so."""
    skew: float = 0.0
    """Seconds that its wall clock is ahead of etcd's."""
    shards: int = 0
    """What `CRONY_SHARDS` of it says; 0: nothing."""
    tzdata: str = ""
    """Release of the time zone data by which it decides."""
    able: bool = True
    """Whether it may lead now."""
    why: str = ""
    """Why it may not."""
    untrusted: dict[str, str] = field(default_factory=dict)
    """Jobs whose documents its leaders cannot act on, and why; some of them when they are many."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What it counted since its start, and how its leaders stand: see `domain/figures.py`."""
