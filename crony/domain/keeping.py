"""The field `output` of a job: how much is kept of what its runs print, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crony.domain.check import fields, integer
from crony.domain.shell_action import format_size, parse_size
from crony.errors import Invalid

LEAST = 1 << 10
MOST = 64 << 20
"""Most bytes that the web keeps of one attempt."""
DAYS = 3650


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a job wants kept; 0: as much, or as long, as node and platform keep, which is the most anyway."""

    limit: int = 0
    """Bytes of each attempt."""
    keep: int = 0
    """Days from when the run was asked for."""

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {"limit": format_size(self.limit) if self.limit else None, "keep": self.keep or None}


def parse_keeping(value: Any, field: str = "output") -> Keeping:
    """The section. Raises `Invalid`."""
    if value is None:
        return NOTHING
    given = fields(value, field, ("limit", "keep"))
    limit, keep = given.get("limit"), given.get("keep")
    return Keeping(
        _size(limit, f"{field}.limit") if limit is not None else 0,
        integer(keep, f"{field}.keep", 1, DAYS) if keep is not None else 0,
    )


def _size(value: Any, field: str) -> int:
    """Bytes: a whole number of them, or with a unit."""
    size = parse_size(value, field, least=0) if not isinstance(value, int) else integer(value, field, LEAST, MOST)
    if not LEAST <= size <= MOST:
        hint = f"such as 10MiB; {LEAST} to {MOST} bytes"
        raise Invalid(field, f"must be between {format_size(LEAST)} and {format_size(MOST)}", hint=hint)
    return size


NOTHING = Keeping()
