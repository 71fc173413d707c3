"""The parts of a run, each from where it is kept: the archive, or etcd while it lives or is not archived yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crony.domain import ids
from crony.errors import Unavailable
from crony.store import runs as archive
from crony.store.db import Database
from crony.web.live import Live
from crony.web.runs import Run, from_archive, in_etcd
from crony.web.wiring import Web

MOST = 200
"""Parts of one page."""
BRIEF = 24
"""Parts of a run that a list of runs shows."""


@dataclass(frozen=True, slots=True)
class Brief:
    """A part as a list of runs shows it."""

    id: str
    part: int
    status: str
    node: str


def parts(db: Database, live: Live, run: str, *, first: int = 0, limit: int = MOST) -> list[Run]:
    """The parts made so far, of `limit` from number `first` on, in order. Raises `Unavailable` when either is away."""
    found = {view.id: from_archive(view) for view in archive.parts(db, run, first, limit)}
    for each in in_etcd(live):
        if each.part is not None and each.parent == run and first <= each.part < first + limit:
            known = found.get(each.id)
            if known is None or known.live:
                found[each.id] = each
    return sorted(found.values(), key=lambda each: each.part or 0)


def shown(web: Web, runs: Iterable[Run]) -> dict[str, list[Brief]]:
    """The first parts of each run that has parts, for a page that lists runs; without them while something is away."""
    wholes = [run.id for run in runs if run.in_parts]
    try:
        return _brief(web.db, web.live, wholes) if wholes else {}
    except Unavailable:
        return {}


def _brief(db: Database, live: Live, wholes: list[str]) -> dict[str, list[Brief]]:
    found = {view.id: from_archive(view) for view in archive.first_parts(db, wholes, BRIEF)}
    for each in in_etcd(live):
        if each.part is not None and each.part < BRIEF and each.parent in wholes:
            known = found.get(each.id)
            if known is None or known.live:
                found[each.id] = each
    told: dict[str, list[Brief]] = {run: [] for run in wholes}
    for each in sorted(found.values(), key=lambda each: each.part or 0):
        told[ids.whole(each.id)].append(Brief(each.id, each.part or 0, each.status, each.node))
    return told
