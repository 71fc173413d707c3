"""What the end of a run comes to for the jobs that follow: a run, a record why there is none, or waiting for others.

The leader that settles outcomes puts it in the same transaction as its position. A job that follows several gathers
their ends in `run/chain/<run>`, one record for each chain, until enough of them came or no longer can: then the run is
asked for, or its record put, once. What is decided stays until the last parent is in or the time of the chain is over,
so that a later end starts nothing anew; after that time none does. The run's id follows from the chain, so whoever asks
twice asks for the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from crony.domain import ids
from crony.domain.after import Take
from crony.domain.chain import End, Graph, Link, began_at, key_of
from crony.domain.durations import format_duration
from crony.domain.jsontext import dumps
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.record import Record
from crony.domain.run import Request, Trigger

MARGIN = 60.0
"""Seconds after its time for which a record stays: by then the clocks of all centres say that the time is over."""
LARGEST = 4 * 1024
"""Most bytes of the parameters that one run takes from its parents, as JSON."""
MOST_AT_ONCE = 44
"""Most runs that one end decides on or is noted for; each takes two records at most, and a transaction has 100."""


@dataclass(frozen=True, slots=True)
class Gathering(Record):
    """`run/chain/<run>`: a job that waits for the ends of several others, in one chain."""

    run: str
    job: str
    key: str
    """What the runs that it waits for have in common."""
    chain: str
    """The run that the chain of the first end began with."""
    chain_at: float
    """When it began."""
    until_at: float
    """By when the ends have to come."""
    ends: dict[str, list[str]] = field(default_factory=dict)
    """Parent to how it ended, in which run."""
    params: dict[str, Any] = field(default_factory=dict)
    """Parameters taken from them so far."""
    lacks: dict[str, str] = field(default_factory=dict)
    """Parameters that there is nothing for, and why."""
    decided: bool = False

    @property
    def sound(self) -> bool:
        """Whether its parts are what they should be: whoever may write to etcd could have put anything."""
        return (
            all(isinstance(text, str) for text in (self.run, self.job, self.key, self.chain))
            and all(type(at) in (int, float) for at in (self.chain_at, self.until_at))
            and type(self.decided) is bool
            and all(isinstance(each, dict) for each in (self.ends, self.params, self.lacks))
            and all(isinstance(pair, list) and len(pair) == 2 for pair in self.ends.values())
            and all(isinstance(text, str) for pair in self.ends.values() for text in pair)
        )


class Consequence(NamedTuple):
    """What an end comes to for one job: a request for a run (with its id), the record why there is none, or neither;
    and what becomes of the record that gathers (`gathered`, by run; None: it goes)."""

    request: tuple[str, Request] | None = None
    skip: Outcome | None = None
    gathered: tuple[str, Gathering | None] | None = None


def consequences(end: End, graph: Graph, known: Mapping[str, Gathering], now: float) -> list[Consequence]:
    """What the end of a run comes to, job by job. `known`: the records that gather, by run."""
    found: list[Consequence] = []
    for link in graph.after(end.job):
        if len(link.parents) == 1:
            run = ids.chained_run_id(link.job, link.generation, end.run)
            if end.fits(link.on):
                alone = _noted(Gathering(run, link.job, "", end.chain, end.chain_at, 0.0), link, end)
                found.append(_decided(link, alone, end.run, now))
            elif _worth(link, [end.kind], graph):
                found.append(
                    Consequence(skip=_skip(link, run, end.chain, end.run, _said(link, [end]), now, end.chain_at))
                )
            continue
        found += _gather(link, end, graph, known, now)
    for link, chain in _others(end, graph, known):
        if len(found) >= MOST_AT_ONCE:
            break
        found += _gather(link, end._replace(chain=chain), graph, known, now)
    return found


def _others(end: End, graph: Graph, known: Mapping[str, Gathering]) -> Iterator[tuple[Link, str]]:
    """The chains that wait beside an end's own, whose fires its record speaks of as well."""
    if end.fire_at is None or end.to_at is None:
        return
    links = {link.job: link for link in graph.after(end.job) if len(link.parents) > 1}
    own = key_of(end.chain)
    for each in sorted(known.values(), key=lambda each: (each.key, each.run)):
        if each.job in links and each.key != own and each.key.isdigit() and end.fire_at <= int(each.key) <= end.to_at:
            yield links[each.job], each.chain


def _gather(link: Link, end: End, graph: Graph, known: Mapping[str, Gathering], now: float) -> Iterator[Consequence]:
    """An end of one of several parents. In one chain the first end of each counts."""
    key = key_of(end.chain)
    run = ids.chained_run_id(link.job, link.generation, key)
    begun = began_at(key, end)
    before = known.get(run) or Gathering(run, link.job, key, end.chain, begun, begun + link.within)
    if end.job in before.ends:
        return
    if run not in known and now > before.until_at:
        late = ids.chained_run_id(link.job, link.generation, f"{key} {end.run}")
        detail = f"{end.name} ended more than {format_duration(link.within)} after its chain began"
        yield Consequence(skip=_skip(link, late, end.chain, end.run, detail, now, begun))
        return
    after = _noted(before, link, end)
    to_come = [parent for parent in link.parents if parent not in after.ends and _may_come(parent, after, graph)]
    request = skip = None
    if not after.decided:
        ends = [_end(parent, link, after) for parent in link.parents if parent in after.ends]
        fit = sum(each.fits(link.on) for each in ends)
        if fit >= link.need:
            request, skip, _ = _decided(link, after, end.run, now)
            after = replace(after, decided=True, params={}, lacks={})
        elif fit + len(to_come) < link.need:
            absent = [link.parents[each] for each in link.parents if each not in after.ends and each not in to_come]
            if absent or _worth(link, [each.kind for each in ends], graph):
                skip = _skip(link, run, after.chain, end.run, _said(link, ends, absent), now, after.chain_at)
            after = replace(after, decided=True, params={}, lacks={})
    yield Consequence(request, skip, (run, after if to_come or not after.decided else None))


def _may_come(parent: str, gathering: Gathering, graph: Graph) -> bool:
    """Whether a run of a parent can still be part of the chain: of one that began with a fire, any job's may."""
    return gathering.key.isdigit() or graph.follows(parent, gathering.chain.split(".")[0])


def _end(parent: str, link: Link, gathering: Gathering) -> End:
    kind, run = gathering.ends[parent]
    return End(run, parent, link.parents[parent], kind, gathering.chain)


def overdue(gathering: Gathering, graph: Graph, now: float) -> Outcome | None:
    """The record of a job whose other parents did not come in time; None: it has run, or exists no more."""
    link = graph.link(gathering.job)
    if gathering.decided or link is None:
        return None
    last = list(gathering.ends.values())[-1][1] if gathering.ends else ""
    missing = [name for parent, name in link.parents.items() if parent not in gathering.ends]
    detail = f"{_listed(missing)} did not end within {format_duration(link.within)} after its chain began"
    return _skip(link, gathering.run, gathering.chain, last, detail, now, gathering.chain_at)


def _worth(link: Link, kinds: list[str], graph: Graph) -> bool:
    """What waits for failures and sees none is not worth a record, unless somebody waits for it in turn."""
    return link.on != "failure" or any(kind != Kind.SUCCEEDED for kind in kinds) or bool(graph.after(link.job))


def _noted(gathering: Gathering, link: Link, end: End) -> Gathering:
    """With another end, and what parameters are taken from it."""
    params, lacks = dict(gathering.params), dict(gathering.lacks)
    for name, take in link.results.items():
        if take["job"] != end.job:
            continue
        try:
            value = Take(end.name, take["fact"], take["path"]).of(end.facts)
        except LookupError:
            where = f"`{take['path']}`" if take["path"] else take["fact"]
            lacks[name] = f"the run of {end.name} has no {where}"
            continue
        if len(dumps({**params, name: value}, "replace")) > LARGEST:
            lacks[name] = f"what is taken from its parents is larger than {LARGEST // 1024} KiB"
        else:
            params[name] = value
    return replace(gathering, ends={**gathering.ends, end.job: [end.kind, end.run]}, params=params, lacks=lacks)


def _decided(link: Link, gathering: Gathering, cause: str, now: float) -> Consequence:
    """The request for a run, or the record of what it lacks, where the job has no value of its own for that."""
    for name, take in link.results.items():
        if name not in gathering.params and name not in link.given:
            why = gathering.lacks.get(name, f"{link.parents.get(take['job'], take['job'])} has not ended")
            detail = f"there is nothing for the parameter {name}; {why}"
            skip = _skip(link, gathering.run, gathering.chain, cause, detail, now, gathering.chain_at)
            return Consequence(skip=skip)
    request = Request(
        "run", run=gathering.run, job=link.job, name=link.name, generation=link.generation,
        trigger=Trigger.CHAIN.value, params=gathering.params, requested_at=now, chain=gathering.chain, cause=cause,
        chain_at=gathering.chain_at,
    )  # fmt: skip
    return Consequence(request=(f"c{gathering.run}", request))


def _skip(link: Link, run: str, chain: str, cause: str, detail: str, now: float, begun: float) -> Outcome:
    return Outcome(
        run=run, job=link.job, name=link.name, generation=link.generation, revision=link.revision, attempt=0,
        kind=Kind.SKIPPED.value, final=True, trigger=Trigger.CHAIN.value, ended_at=now,
        reason=SkipReason.PARENT.value, detail=detail, requested_at=now, chain=chain, cause=cause, chain_at=begun,
    )  # fmt: skip


def _said(link: Link, ends: list[End], absent: list[str] | None = None) -> str:
    """Why a job does not run, piece by piece."""
    bad = [each for each in ends if not each.fits(link.on)]
    said = [f"{each.name} {'was' if each.kind == Kind.SKIPPED else 'ended as'} {each.kind}" for each in bad][:5]
    if absent:
        said.append(f"no run of {_listed(absent)} is part of a chain that began so")
    many = len(link.parents)
    awaited = f"its {link.on} was awaited" if many == 1 else f"{link.on} of {link.need} of {many} was awaited"
    return "; ".join([*said, awaited])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
