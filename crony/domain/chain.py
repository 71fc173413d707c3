"""Chains: jobs that run after others, and what becomes of them when a parent's run ends.

A chain begins with a run that no other run started, and bears that run's id: every run that follows carries it. The
leader that settles outcomes asks for the run of a child, or records why there is none, in the same transaction. The
child's run id follows from what it runs after, so whoever asks twice asks for the same run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.run import Record, Request, Trigger, UnknownRecord

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

    @classmethod
    def of(cls, live: LiveJob) -> Link | None:
        """That of a published job; None: it follows nobody."""
        after = None if live.deleted else live.job.after
        if after is None or not after.ids:
            return None
        parents = dict(zip(after.ids, after.jobs, strict=True))
        return cls(live.id, live.name, live.generation, live.revision, after.on, parents)

    @property
    def sound(self) -> bool:
        """Whether its parts are what they should be: whoever may write to etcd could have put anything."""
        return (
            all(isinstance(text, str) for text in (self.job, self.name, self.on))
            and all(type(number) is int for number in (self.generation, self.revision))
            and isinstance(self.parents, dict)
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


class End(NamedTuple):
    """The end of a run, as far as chains go."""

    run: str
    job: str
    name: str
    kind: str
    chain: str
    """The run that its chain began with."""

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
            return cls(told["run"], run.job, str(told["name"]), str(told["kind"]), chain)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None


class Consequence(NamedTuple):
    """What an end comes to for one child: a request for a run of it, or the record why it does not run."""

    request: tuple[str, Request] | None = None
    """With its id."""
    skip: Outcome | None = None


def consequences(end: End, links: Iterable[Link], graph: Graph, now: float) -> list[Consequence]:
    """What the end of a run comes to, child by child."""
    found = []
    for link in links:
        run = ids.chained_run_id(link.job, link.generation, end.run)
        if fits(link.on, end.kind):
            found.append(Consequence(request=(f"c{run}", _request(link, run, end, now))))
        elif link.on != "failure" or end.kind != Kind.SUCCEEDED or graph.after(link.job):
            # What waits for failures and sees none is not worth a record, unless somebody waits for it in turn.
            found.append(Consequence(skip=skipped(link, run, end, now)))
    return found


def fits(on: str, kind: str) -> bool:
    """Whether an end of this kind is one that `on` waits for. What was skipped has not run, and fits nothing."""
    if on == "end":
        return kind != Kind.SKIPPED
    return kind == Kind.SUCCEEDED if on == "success" else kind in FAILURES


def _request(link: Link, run: str, end: End, now: float) -> Request:
    return Request(
        "run", run=run, job=link.job, name=link.name, generation=link.generation, trigger=Trigger.CHAIN.value,
        requested_at=now, chain=end.chain, cause=end.run,
    )  # fmt: skip


def skipped(link: Link, run: str, end: End, now: float) -> Outcome:
    """The record of a child that does not run, because of how its parent's run ended."""
    how = "was skipped" if end.kind == Kind.SKIPPED else f"ended as {end.kind}"
    wanted = {"success": "its success", "failure": "its failure", "end": "its end"}.get(link.on, link.on)
    return Outcome(
        run=run, job=link.job, name=link.name, generation=link.generation, revision=link.revision, attempt=0,
        kind=Kind.SKIPPED.value, final=True, trigger=Trigger.CHAIN.value, ended_at=now,
        reason=SkipReason.PARENT.value, detail=f"{end.name} {how}, and {wanted} was awaited", requested_at=now,
        chain=end.chain, cause=end.run,
    )  # fmt: skip
