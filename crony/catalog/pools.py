"""Pools as people edit them; leaders keep to what is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crony.catalog.objects import Objects, ObjectView
from crony.domain.pool import Pool, parse_pool
from crony.store.objects import Newest


@dataclass(frozen=True, slots=True)
class PoolView(ObjectView):
    """A pool as saved, and the names of the jobs that name it."""

    @property
    def limit(self) -> int:
        """So many runs at a time."""
        return int(self.document["limit"])


class Pools(Objects[Pool, PoolView]):
    """The pools of one namespace."""

    kind = "pool"
    shape = PoolView

    def parse(self, document: Mapping[str, Any]) -> Pool:
        """As `parse_pool`."""
        return parse_pool(document)

    def told(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Its limit."""
        return {"limit": document["limit"]}

    def record(self, found: Newest) -> Pool:
        """The pool as leaders see it."""
        made = parse_pool(found.document)
        return Pool(found.name, made.limit, made.description, found.revision, found.deleted)

    def stored(self, payload: Mapping[str, Any]) -> Newest:
        """The published one as it was stored."""
        made = Pool.read(payload)
        return Newest(made.name, made.revision, made.document(), made.deleted)
