"""Chains as people see them: the jobs that run after each other, and the runs of one chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from crony.catalog.chains import Around, around
from crony.catalog.views import JobView
from crony.clock import rfc3339
from crony.domain import ids
from crony.errors import Unavailable
from crony.store import runs as archive
from crony.web import shapes
from crony.web.jobs import parsed
from crony.web.runs import Run, find, from_archive, from_live, from_outcomes
from crony.web.wiring import Web

MOST = 500
"""Most runs of one chain that are shown."""
DEEPEST = 20
"""Most links between a job and the one whose fire is asked about."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The runs of one chain, and of jobs that did not run in it the records why, in order of time."""

    root: str
    """The run that it began with."""
    runs: list[Run]
    jobs: Around
    """The jobs that are connected with the first one."""
    away: list[Unavailable] = field(default_factory=list)


def chain_of(web: Web, run: str) -> Chain:
    """The chain that a run is in. Raises `NotFound`; `Unavailable` when it cannot be told."""
    found, away = find(web.db, web.live, run)
    root = found.chain or run
    known: dict[str, Run] = {found.id: found}
    jobs = Around(())
    try:
        known |= {each.id: from_archive(each) for each in archive.in_chain(web.db, root, MOST)}
        jobs = around(web.db, ids.parse_run_id(root).job)
    except Unavailable as error:
        away.append(error)
    try:
        for each in _in_etcd(web):
            if root in (each.chain, each.id) and each.part is None and (each.live or each.id not in known):
                known[each.id] = each
    except Unavailable as error:
        away.append(error)
    ordered = sorted(known.values(), key=lambda each: (each.requested_at or each.ended_at or 0.0, each.id))
    first = [each for each in ordered if each.id == root]
    return Chain(root, [*first, *(each for each in ordered if each.id != root)][:MOST], jobs, away)


def _in_etcd(web: Web) -> Iterator[Run]:
    yield from (from_live(each) for each in web.live.runs())
    for outcomes in web.live.outcomes().values():
        ended = [each for each in outcomes if each.final]
        if ended:
            yield from_outcomes(ended)


def followed_at(web: Web, view: JobView, second: int) -> list[str]:
    """The runs that a job would have had in the chain of the fires of this second, whichever way it follows one."""
    jobs = {member.id: member for member in around(web.db, view.id).members}
    generations = {view.id: view.generation}

    def generation(job: str) -> int:
        if job not in generations:
            generations[job] = web.catalog.get(job).generation
        return generations[job]

    def of(job: str, depth: int) -> list[str]:
        member = jobs.get(job)
        if member is None or not member.parents or depth > DEEPEST:
            return []
        if len(member.parents) > 1:
            return [ids.chained_run_id(job, generation(job), str(second))]
        (parent,) = member.parents
        above = [ids.fire_run_id(parent, generation(parent), second), *of(parent, depth + 1)]
        return [ids.chained_run_id(job, generation(job), each) for each in above]

    return of(view.id, 0)


def is_chained(web: Web, job: str) -> bool:
    """Whether a job follows others or is followed."""
    try:
        return bool(around(web.db, job).members)
    except Unavailable:
        return False


def graph_body(web: Web, view: JobView) -> dict[str, Any]:
    """The graph around a job, as the API gives it."""
    found = around(web.db, view.id)
    last = archive.last_runs(web.db, [member.id for member in found.members])
    names = {member.id: member.name for member in found.members}
    job = parsed(view.document)
    return {
        "job": view.id,
        "name": view.name,
        "after": job.after.document() if job is not None and job.after is not None else None,
        "jobs": [
            {
                "id": member.id,
                "name": member.name,
                "enabled": member.enabled,
                "on": member.on or None,
                "need": member.need or None,
                "after": [names[parent] for parent in member.parents if parent in names],
                "last_run": shapes.run(from_archive(last[member.id][0])) if member.id in last else None,
            }
            for member in found.members
        ],
        "more": found.more,
    }


def chain_body(found: Chain) -> dict[str, Any]:
    """A chain, as the API gives it."""
    return {
        "chain": found.root,
        "runs": [shapes.run(each) for each in found.runs],
        "began_at": rfc3339(found.runs[0].fire_at or found.runs[0].requested_at) if found.runs else None,
    }
