"""The field `after` of a job: which jobs' ends it follows, what those ends must be, and what it takes from them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crony.domain.check import choice, fields, integer, join, listing, texts
from crony.domain.durations import format_duration, parse_duration
from crony.errors import Invalid

ON = ("success", "failure", "end")
OF = ("all", "any")
MOST_PARENTS = 20
"""Most jobs that one job runs after."""
_NAMES = 200
_FIELDS = ("on", "of", "jobs", "within", "results", "ids")
FACTS = ("result", "outcome", "reason", "code", "run")
MOST_RESULTS = 20
WITHIN = "1d"


@dataclass(frozen=True, slots=True)
class Take:
    """What a parameter is taken from: a fact of a parent's run, or of its result what lies at a path."""

    job: str
    """Name of the parent."""
    fact: str = "result"
    """result | outcome | reason | code | run"""
    path: str = ""
    """Names of fields and numbers of items, with dots between; empty: the whole result."""

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {"job": self.job, "fact": self.fact, **({"path": self.path} if self.path else {})}

    def of(self, facts: Mapping[str, Any]) -> Any:
        """Its value, from the facts of a run. Raises `LookupError` when there is none."""
        found = facts.get(self.fact)
        for step in self.path.split(".") if self.path else ():
            if isinstance(found, Mapping):
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                raise LookupError(step)
        if found is None and not self.path:
            raise LookupError(self.fact)
        return found


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
    results: tuple[tuple[str, Take], ...] = ()
    """Parameters that come from its parents' runs."""
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
        results = {name: take.document() for name, take in self.results}
        within = format_duration(self.within)
        return {"on": self.on, "of": self.of, "jobs": list(self.jobs), "within": within, "results": results, **ids}

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
    of = _of(given.get("of", "all"), f"{field}.of", len(jobs))
    return After(on, jobs, of, within, _results(given.get("results"), f"{field}.results", jobs), ids)


def _results(value: Any, field: str, jobs: Sequence[str]) -> tuple[tuple[str, Take], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping", hint="write {parameter: {job: name, path: total}}")
    if len(value) > MOST_RESULTS:
        raise Invalid(field, f"has {len(value)} parameters; at most {MOST_RESULTS}", hint="take a whole result instead")
    return tuple(
        (texts(name, join(field, name), most=128), _take(take, join(field, name), jobs)) for name, take in value.items()
    )


def _take(value: Any, field: str, jobs: Sequence[str]) -> Take:
    given = fields({"path": value} if isinstance(value, str) else value, field, ("job", "fact", "path"))
    job = given.get("job", jobs[0] if len(jobs) == 1 else None)
    if job is None:
        raise Invalid(f"{field}.job", "is missing", hint="say which of the jobs it comes from")
    if unicodedata.normalize("NFC", texts(job, f"{field}.job", most=4 * _NAMES)) not in jobs:
        raise Invalid(f"{field}.job", "is not among after.jobs", hint=f"write one of {', '.join(jobs)}")
    fact = choice(given.get("fact", "result"), f"{field}.fact", FACTS)
    path = texts(given.get("path", ""), f"{field}.path", least=0, most=200)
    if path and fact != "result":
        raise Invalid(f"{field}.path", "is for results only", hint="leave it out")
    return Take(unicodedata.normalize("NFC", job), fact, path)


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
