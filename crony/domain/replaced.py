"""Schedules that edits of a job replaced, until a leader has decided what was due by them (PROTOCOL S3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Self

from crony.domain.crossing import Due
from crony.domain.schedule import Schedule, parse_schedules, resolved


class Replaced(NamedTuple):
    """A schedule that an edit replaced: instants <= `until_at` (and later than the one before) are due by it."""

    until_at: int
    enabled: bool
    schedule: str
    """The `schedule` field in normal form, as JSON text."""
    paused_until: int = 0
    """Nothing was due by it up to this second."""
    since_at: int = 0
    """Since when it was in force; kept for a delay after the end, which counts from there."""
    extra: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    """Of fires that an edit found between a closed day and where they moved: see `crossing`."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """The one behind a payload."""
        return cls(
            int(raw["until_at"]), bool(raw["enabled"]), compact(raw.get("schedule")), int(raw.get("paused_until", 0)),
            int(raw.get("since_at", 0)), tuple(map(int, raw.get("extra", ()))), tuple(map(int, raw.get("without", ()))),
        )  # fmt: skip

    def payload(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "until_at": self.until_at,
            "enabled": self.enabled,
            "schedule": json.loads(self.schedule),
            **({"paused_until": self.paused_until} if self.paused_until else {}),
            **({"since_at": self.since_at} if self.since_at else {}),
            **({"extra": list(self.extra)} if self.extra else {}),
            **({"without": list(self.without)} if self.without else {}),
        }

    def schedules(self, job: str) -> tuple[Schedule, ...]:
        """The parsed schedules, as the job of that id has them."""
        return resolved(parsed_schedules(self.schedule), job)

    def due(self, job: str) -> Due:
        """What was due by it."""
        return Due(self.schedules(job), self.extra, self.without)


@lru_cache(maxsize=65536)
def parsed_schedules(text: str) -> tuple[Schedule, ...]:
    """A `schedule` field as JSON text, parsed once. Raises `Invalid`."""
    return parse_schedules(json.loads(text))


def compact(value: Any) -> str:
    """Plain data as JSON text without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
