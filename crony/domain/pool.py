"""A pool: so many runs of the jobs that name it may be under way at a time, in numbered slots."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from crony.domain.check import fields, integer, listing, texts
from crony.domain.record import Record
from crony.errors import Invalid

LARGEST = 1000
"""Most runs that a pool lets be under way."""
MOST_OF_A_JOB = 8
"""Most pools that one job names."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PREFIX = "pool:"


@dataclass(frozen=True, slots=True)
class Pool(Record):
    """`obj/pool/<name>`, sealed by a web; `deleted` is a tombstone: runs that still name it need no slot."""

    name: str
    limit: int
    description: str = ""
    revision: int = 0
    deleted: bool = False

    def document(self) -> dict[str, Any]:
        """As people write it."""
        return {"name": self.name, "limit": self.limit, "description": self.description}


@dataclass(frozen=True, slots=True)
class Slot(Record):
    """`pool/<name>/<i>`: who holds it, and where that run's message was put."""

    run: str
    queue: str
    place: str


def parse_pool(document: Any) -> Pool:
    """The pool behind a document. Raises `Invalid` naming the field."""
    given = fields(document, "", ("name", "limit", "description"))
    for name in ("name", "limit"):
        if given.get(name) is None:
            raise Invalid(name, "is missing", hint="every pool has a name and a limit")
    return Pool(
        pool_name(given["name"]),
        integer(given["limit"], "limit", 0, LARGEST),
        texts(given.get("description", ""), "description", least=0, most=2000, lines=True),
    )


def pool_name(value: Any, field: str = "name") -> str:
    """A pool's name. Raises `Invalid`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Invalid(field, "is not the name of a pool", hint="use a-z, 0-9 and . _ -, at most 63 characters")
    return value


def parse_limits(value: Any, field: str = "limits") -> tuple[str, ...]:
    """The pools that a job names, as `pool:<name>`. Raises `Invalid`."""
    found: list[str] = []
    for index, item in enumerate(listing([] if value is None else value, field, MOST_OF_A_JOB)):
        at = f"{field}[{index}]"
        if not isinstance(item, str) or not item.startswith(_PREFIX):
            raise Invalid(at, "does not name a pool", hint="write pool:reports")
        name = pool_name(item.removeprefix(_PREFIX), at)
        if name in found:
            raise Invalid(at, "is given twice", hint="remove it")
        found.append(name)
    return tuple(found)


def limits_document(pools: tuple[str, ...]) -> list[str]:
    """As a job's `limits`."""
    return [_PREFIX + name for name in pools]
