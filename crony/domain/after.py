"""The field `after` of a job: which jobs' ends it follows, what those ends must be, and what it takes from them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crony.domain.check import choice, fields, integer, listing, texts
from crony.domain.durations import format_duration, parse_duration
from crony.errors import Invalid

ON = ("success", "failure", "end")
OF = ("all", "any")
MOST_PARENTS = 20
"""Most jobs that one job runs after."""
_NAMES = 200
_FIELDS = ("on", "of", "jobs", "within", "ids")
WITHIN = "1d"


@dataclass(frozen=True, slots=True)
class After:
    """Whose ends a job follows."""

    on: str
    """success | failure | end: which end lets it run"""
    jobs: tuple[str, ...]
    """Names of its parents."""
    of: str | int = "all"
    """all | any | a number: how many of them have to end so"""
    within: float = 86400.0
    """Seconds after their chain began by which the ends of several have to come."""
    ids: tuple[str, ...] = ()
    """Their ids, in the same order; only in what is published, where names could mean another job tomorrow."""

    @property
    def is_filled(self) -> bool:
        """Whether it tells the ids of its parents."""
        return bool(self.ids)

    @property
    def need(self) -> int:
        """How many of its parents have to end as awaited."""
        if isinstance(self.of, int):
            return self.of
        return 1 if self.of == "any" else len(self.jobs)

    def document(self) -> dict[str, Any]:
        """As plain data."""
        ids = {"ids": list(self.ids)} if self.ids else {}
        within = format_duration(self.within)
        return {"on": self.on, "of": self.of, "jobs": list(self.jobs), "within": within, **ids}

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
    ids = _names(given.get("ids") or [], f"{field}.ids")
    if ids and len(ids) != len(jobs):
        raise Invalid(f"{field}.ids", "are not as many as the jobs", hint="leave it out: it is filled in")
    on = choice(given.get("on", "success"), f"{field}.on", ON)
    within = parse_duration(given.get("within", WITHIN), f"{field}.within", least=60, most=30 * 86400)
    return After(on, jobs, _of(given.get("of", "all"), f"{field}.of", len(jobs)), within, ids)


def _of(value: Any, field: str, parents: int) -> str | int:
    if isinstance(value, str):
        return choice(value, field, OF)
    return integer(value, field, 1, parents)


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
