"""The field `after` of a job: which jobs' ends it follows, what those ends must be, and what it takes from them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crony.domain.check import choice, fields, listing, texts
from crony.errors import Invalid

ON = ("success", "failure", "end")
MOST_PARENTS = 20
"""Most jobs that one job runs after."""
_NAMES = 200
_FIELDS = ("on", "jobs", "ids")


@dataclass(frozen=True, slots=True)
class After:
    """Whose ends a job follows."""

    on: str
    """success | failure | end: which end lets it run"""
    jobs: tuple[str, ...]
    """Names of its parents."""
    ids: tuple[str, ...] = ()
    """Their ids, in the same order; only in what is published, where names could mean another job tomorrow."""

    @property
    def is_filled(self) -> bool:
        """Whether it tells the ids of its parents."""
        return bool(self.ids)

    def document(self) -> dict[str, Any]:
        """As plain data."""
        ids = {"ids": list(self.ids)} if self.ids else {}
        return {"on": self.on, "jobs": list(self.jobs), **ids}

    def filled(self, known: Mapping[str, str]) -> After:
        """With the ids of its parents, by name. Raises `KeyError` when one is missing."""
        return replace(self, ids=tuple(known[name] for name in self.jobs))


def parse_after(value: Any, field: str = "after") -> After | None:
    """The field as a person (or a publish) wrote it. Raises `Invalid`."""
    if value is None:
        return None
    given = fields(value, field, _FIELDS)
    if given.get("jobs") is None:
        raise Invalid(f"{field}.jobs", "is missing", hint="name the jobs that it runs after")
    jobs = _names(given["jobs"], f"{field}.jobs")
    if len(jobs) > 1:
        raise Invalid(f"{field}.jobs", "more than one job is not available yet", hint="name one job")
    ids = _names(given.get("ids") or [], f"{field}.ids")
    if ids and len(ids) != len(jobs):
        raise Invalid(f"{field}.ids", "are not as many as the jobs", hint="leave it out: it is filled in")
    return After(choice(given.get("on", "success"), f"{field}.on", ON), jobs, ids)


def _names(value: Sequence[Any], field: str) -> tuple[str, ...]:
    found: list[str] = []
    for index, item in enumerate(listing(value, field, MOST_PARENTS)):
        name = unicodedata.normalize("NFC", texts(item, f"{field}[{index}]", most=4 * _NAMES))
        if name in found:
            raise Invalid(f"{field}[{index}]", "is given twice", hint="remove it")
        found.append(name)
    if not found and field.endswith("jobs"):
        raise Invalid(field, "names no job", hint="name the jobs that it runs after")
    return tuple(found)
