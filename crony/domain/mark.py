"""The mark: by it a restored etcd is told from one that went on (M6).

The leader of shard 0 puts `beat/mark` every few seconds, each time with a new nonce. Who keeps the last one it saw (on
disk, in the database) and finds an earlier one, or another at the same revision, knows that etcd's data went back, even
when its revision has been passed again meanwhile or was raised on purpose. `crony recover` raises the epoch: from then
on what was seen before counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from crony.clock import rfc3339
from crony.domain.record import Record


@dataclass(frozen=True, slots=True)
class Mark(Record):
    """`beat/mark`."""

    epoch: int = 0
    """How often the namespace was recovered."""
    nonce: str = ""
    at: float = 0.0
    """When it was put, by etcd's clock."""
    archived: int = 0
    """Revision of the mark that the database had confirmed by then: one that knows less was restored itself."""


@dataclass(frozen=True, slots=True)
class Seen(Record):
    """How far etcd was seen: its mark with the revision of it (0: none yet), etcd's own revision, and its cluster."""

    epoch: int = 0
    nonce: str = ""
    mod: int = 0
    at: float = 0.0
    revision: int = 0
    cluster: str = ""
    archived: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Later ones are greater."""
        return self.epoch, self.mod, self.revision


def past(kept: Seen, found: Seen) -> str:
    """Why what is found is older than what was seen before, or of another history; empty: it is not."""
    if found.epoch != kept.epoch:
        return "" if found.epoch > kept.epoch else f"recovery {kept.epoch} is missing from it"
    if kept.cluster and found.cluster and kept.cluster != found.cluster:
        return f"cluster {found.cluster} answers where {kept.cluster} was"
    if found.revision < kept.revision:
        return f"its revision is {found.revision}, {kept.revision} was seen before"
    if found.mod < kept.mod:
        return f"its last mark is of {rfc3339(found.at) if found.mod else 'never'}, {rfc3339(kept.at)} was seen before"
    if found.mod == kept.mod and found.nonce != kept.nonce:
        return "the same revision holds other data than before"
    return ""


def behind(kept: Seen | None, found: Seen) -> str:
    """Why the database, which knows `kept`, is older than what it confirmed once; empty: it is not."""
    if not found.archived or (kept is not None and (kept.epoch, kept.mod) >= (found.epoch, found.archived)):
        return ""
    last = rfc3339(kept.at) if kept is not None else "never"
    return f"its last note of etcd is of {last}, a later one was confirmed by it"
