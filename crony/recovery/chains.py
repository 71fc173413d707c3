"""Chains in a restored etcd: what ended since the backup has its consequences for the jobs that follow, once.

The backup knows nothing of those ends, and the database does: each is settled here as the leader would have, with ids
that follow from the chain. What the database or etcd already know of a run that follows is left to that: only what is
known nowhere is asked for. Ends that lie in the backup unsettled, and that the database has, are settled here and not
by the leader, which does not ask the database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from crony.domain import gathering, ids
from crony.domain.chain import Graph
from crony.domain.gathering import Gathering
from crony.domain.outcome import Outcome
from crony.domain.record import UnknownRecord
from crony.domain.run import Request
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move
from crony.lifecycle.recover import put_again
from crony.lifecycle.settle import Position
from crony.store import recovery
from crony.store.db import Database


@dataclass(slots=True)
class _Follower:
    """What becomes of one run that is to follow."""

    request: tuple[str, Request] | None = None
    skip: Outcome | None = None
    gathered: Gathering | None = None
    gathers: bool = False


@dataclass(slots=True)
class Chains:
    """One look: `moves` by the job they are about, and how many runs of how many ends are asked for."""

    moves: list[tuple[str, Move]] = field(default_factory=list)
    asked: int = 0
    told: int = 0
    """Records why a run is not asked for."""


def look(client: Client, keys: Keys, database: Database, there: Collection[str], since: float, now: float) -> Chains:
    """What ended since `since` (epoch seconds) comes to. `there`: runs that etcd holds. Raises as client, database."""
    graph, seen, gathered = _links(client, keys), dict[str, int](), dict[str, Gathering]()
    for kv in client.list(keys.run_chain("")).kvs:
        seen[kv.key] = kv.mod
        try:
            record = Gathering.read(kv.value)
        except UnknownRecord:
            continue
        if record.sound:
            gathered[record.run] = record
    parents = graph.parents()
    found, ends = dict[str, _Follower](), list(recovery.ends(database, sorted(parents), since))
    for end, at in ends:
        for each in gathering.consequences(end, graph, gathered, at):
            _take(found, each, gathered)
    outs = {kv.key.removeprefix(keys.outs).split("/")[0]: kv for kv in client.list(keys.outs).kvs}
    known = {*there, *outs, *recovery.runs(database, found)}
    chains = Chains(list(_settled(client, keys, outs, {end.run for end, _ in ends})))
    for run, follower in found.items():
        move = _move(keys, run, follower, seen.get(keys.run_chain(run), 0), wanted=run not in known, now=now)
        if move.operations:
            chains.moves.append((run.split(".", 1)[0], move))
            chains.asked += follower.request is not None and run not in known
            chains.told += follower.skip is not None and run not in known
    return chains


def _links(client: Client, keys: Keys) -> Graph:
    graph, prefix = Graph(), keys.chain("")
    for kv in client.list(prefix).kvs:
        graph.put(kv.key.removeprefix(prefix), kv.value)
    return graph


def _take(found: dict[str, _Follower], each: gathering.Consequence, gathered: dict[str, Gathering]) -> None:
    about = [each.request[1].run] if each.request else [each.skip.run] if each.skip else []
    if each.gathered is not None:
        run, record = each.gathered
        about = [run] if not about or about[0] == run else [*about, run]
        follower = found.setdefault(run, _Follower())
        follower.gathers, follower.gathered = True, record
        gathered.pop(run, None)
        if record is not None:
            gathered[run] = record
    if about:
        follower = found.setdefault(about[0], _Follower())
        follower.request, follower.skip = each.request or follower.request, each.skip or follower.skip


def _move(keys: Keys, run: str, follower: _Follower, seen: int, *, wanted: bool, now: float) -> Move:
    """The records as one step; `seen`: revision of what it has gathered, `wanted`: nothing is known of it."""
    compares, puts, deletes = dict[str, int](), dict[str, bytes](), tuple[str, ...]()
    if follower.gathers:
        key = keys.run_chain(run)
        if follower.gathered is not None and (wanted or seen):  # else all was in before, and some is asked for again
            compares[key], puts[key] = seen, follower.gathered.encode()
        elif seen:
            compares[key], deletes = seen, (key,)
    if wanted and follower.request is not None:
        ident, request = follower.request
        compares[keys.run_in(ident)] = 0
        puts[keys.run_in(ident)] = replace(request, requested_at=now).encode()
    elif wanted and follower.skip is not None:
        compares[keys.out(run, 0)] = 0
        puts[keys.out(run, 0)] = replace(follower.skip, ended_at=now, requested_at=now).encode()
    return Move(compares, puts=puts, deletes=deletes)


def _settled(client: Client, keys: Keys, outs: Mapping[str, KV], ended: Collection[str]) -> Iterator[tuple[str, Move]]:
    """Outcomes of the backup that the leader has still to settle, and that are settled here: nothing follows them."""
    there = client.get(keys.settled)
    try:
        position = Position.read(there.value) if there is not None else Position()
    except UnknownRecord:
        position = Position()
    for run, kv in outs.items():
        if run not in ended or position.covers(kv.mod, kv.key):
            continue
        try:
            outcome = Outcome.read(kv.value)
        except UnknownRecord:
            continue
        if outcome.final and not outcome.no_chain:
            yield ids.parse_run_id(run).job, put_again(kv.key, kv.mod, replace(outcome, no_chain=True).encode())
