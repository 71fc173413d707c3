"""Chains: which jobs run after which, and what the end of a run says to them.

A chain begins with a run that no other run started, and bears that run's id: every run that follows carries it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.record import Record, UnknownRecord

MOST_CHILDREN = 40
"""Most jobs that run after one job: what its end comes to is one transaction."""
FAILURES = frozenset({Kind.FAILED, Kind.TIMED_OUT, Kind.LOST, Kind.UNKNOWN, Kind.REFUSED})


@dataclass(frozen=True, slots=True)
class Link(Record):
    """`obj/chain/<job>`: whose ends a job follows, as published. Not signed: whoever acts on it asks the document."""

    job: str
    name: str
    generation: int
    revision: int
    on: str
    parents: dict[str, str]
    """Id to name."""
    need: int = 1
    """How many of them have to end as awaited."""
    within: float = 86400.0
    """Seconds after their chain began by which the ends of several have to come."""
    results: dict[str, dict[str, str]] = field(default_factory=dict)
    """Parameter to what it is taken from: `job` (an id), `fact`, `path`."""
    given: list[str] = field(default_factory=list)
    """Those of them for which the job has a value of its own."""

    @classmethod
    def of(cls, live: LiveJob) -> Link | None:
        """That of a published job; None: it follows nobody."""
        after = None if live.deleted else live.job.after
        if after is None or not after.ids:
            return None
        parents = dict(zip(after.ids, after.jobs, strict=True))
        of = dict(zip(after.jobs, after.ids, strict=True))
        results = {name: {"job": of[take.job], "fact": take.fact, "path": take.path} for name, take in after.results}
        given = sorted(set(results) & set(live.job.params))
        facts = live.id, live.name, live.generation, live.revision
        return cls(*facts, after.on, parents, after.need, after.within, results, given)

    @property
    def sound(self) -> bool:
        """Whether its parts are what they should be: whoever may write to etcd could have put anything."""
        return (
            all(isinstance(text, str) for text in (self.job, self.name, self.on))
            and all(type(number) is int for number in (self.generation, self.revision, self.need))
            and type(self.within) in (int, float)
            and isinstance(self.parents, dict)
            and 1 <= self.need <= len(self.parents)
            and isinstance(self.given, list)
            and isinstance(self.results, dict)
            and all(isinstance(take, dict) and set(take) == {"job", "fact", "path"} for take in self.results.values())
            and all(isinstance(text, str) for take in self.results.values() for text in take.values())
            and all(isinstance(text, str) for pair in self.parents.items() for text in pair)
        )


class Graph:
    """Which published jobs follow which."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._children: dict[str, set[str]] = {}

    def put(self, job: str, value: bytes) -> None:
        """What is published of a job's parents now. One that cannot be read counts for none."""
        self.drop(job)
        try:
            link = Link.read(value)
        except UnknownRecord:
            return
        if not link.sound or link.job != job:
            return
        self._links[job] = link
        for parent in link.parents:
            self._children.setdefault(parent, set()).add(job)

    def drop(self, job: str) -> None:
        """A job follows nobody any more."""
        link = self._links.pop(job, None)
        for parent in link.parents if link is not None else ():
            children = self._children[parent]
            children.discard(job)
            if not children:
                del self._children[parent]

    def after(self, parent: str) -> list[Link]:
        """The jobs that follow a job, by id."""
        return [self._links[job] for job in sorted(self._children.get(parent, ()))[:MOST_CHILDREN]]

    def parents(self) -> set[str]:
        """The jobs that others follow."""
        return set(self._children)

    def link(self, job: str) -> Link | None:
        """Whose ends a job follows; None: nobody's."""
        return self._links.get(job)

    def follows(self, job: str, ancestor: str) -> bool:
        """Whether a job follows another, directly or through others, or is that one."""
        seen, todo = {job}, [job]
        while todo:
            if (each := todo.pop()) == ancestor:
                return True
            link = self._links.get(each)
            above = set(link.parents) - seen if link is not None else set()
            seen |= above
            todo += above
        return False


class End(NamedTuple):
    """The end of a run, as far as chains go."""

    run: str
    job: str
    name: str
    kind: str
    chain: str
    """The run that its chain began with."""
    chain_at: float = 0.0
    """When that was asked for, or was to begin."""
    fire_at: float | None = None
    to_at: float | None = None
    """Of a record about fires that became no run: the first and the last of them."""
    facts: Mapping[str, Any] = {}
    """What parameters of those that follow may be taken from."""

    def fits(self, on: str) -> bool:
        """Whether it is an end that `on` waits for. What was skipped has not run, and fits nothing."""
        if on == "end":
            return self.kind != Kind.SKIPPED
        return self.kind == Kind.SUCCEEDED if on == "success" else self.kind in FAILURES

    @classmethod
    def of(cls, value: bytes) -> End | None:
        """The end that an outcome is; None: it is none, or its run was asked for without a chain."""
        try:
            told = json.loads(value)
            if not told["final"] or told.get("no_chain"):
                return None
            run = ids.parse_run_id(told["run"])
            if run.part is not None:
                return None
            chain = str(told.get("chain") or told["run"])
            at = float(told.get("chain_at") or told.get("requested_at") or told["ended_at"])
            facts = {name: told.get(name) for name in ("result", "reason", "code", "run")}
            facts["outcome"] = told["kind"]
            last = told.get("to_at")
            first = told.get("fire_at") if last is not None else None
            name, kind = str(told["name"]), str(told["kind"])
            return cls(told["run"], run.job, name, kind, chain, at, first, last, facts)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None


def began_at(key: str, end: End) -> float:
    """When a chain began, the same for each of its ends: the instant of its fire, else when its first run was asked
    for, or was to begin."""
    return float(key) if key.isdigit() else end.chain_at


def key_of(chain: str) -> str:
    """What the runs of one chain have in common: the instant of the fire that it began with, else the first run.

    So jobs that fire at the same second are in one chain for whoever follows several of them.
    """
    try:
        fire = ids.parse_run_id(chain).fire
    except ValueError:
        fire = None
    return chain if fire is None else str(fire)
