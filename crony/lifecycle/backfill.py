"""Backfills: asked for and stopped by anybody, advanced by the leader of the job (transaction 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from crony.domain.backfill import Backfill, Stop
from crony.domain.join import Join
from crony.domain.outcome import Outcome
from crony.domain.record import UnknownRecord
from crony.domain.run import Request, Wait
from crony.errors import Conflict, NotFound, Unavailable, Unknown
from crony.etcd.client import KV, Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.move import Dispatch, Move, parked, sent

_TRIES = 5


def ask(client: Client, keys: Keys, wanted: Backfill) -> tuple[Backfill, bool]:
    """Put a new backfill, unless one of that id is there; the one that is there then, and whether it is new.

    Raises `Unavailable`, or `Unknown` when the answer was lost and cannot be cleared up.
    """
    key = keys.backfill(wanted.id)
    try:
        if client.txn(Txn().when(mod(key, 0)).put(key, wanted.encode())).succeeded:
            return wanted, True
    except EtcdUnknown:
        pass
    found = client.get(key)
    if found is None:
        raise Unknown("The backfill was asked for, but the answer was lost", hint="look at the backfills of the job")
    there = Backfill.read(found.value)
    return there, replace(there, made=0) == wanted and there.requested_at == wanted.requested_at


def find(client: Client, keys: Keys, ident: str) -> Backfill:
    """One backfill. Raises `NotFound`, `Unavailable`."""
    found = client.get(keys.backfill(ident))
    backfill = None if found is None else _read(found)
    if backfill is None or backfill.rest_of_fires:
        raise NotFound(f"There is no backfill {ident}", hint="those that ended are kept for a week")
    return backfill


def look(client: Client, keys: Keys, job: str | None = None) -> list[Backfill]:
    """Those that people asked for, of one job if given, newest first. Raises `Unavailable`."""
    found = (_read(kv) for kv in client.list(keys.backfill("")).kvs)
    mine = (each for each in found if each is not None and not each.rest_of_fires and job in (None, each.job))
    return sorted(mine, key=lambda each: (each.requested_at, each.id), reverse=True)


def stop(client: Client, keys: Keys, ident: str, how: Stop, *, by: str) -> Backfill:
    """Ask for a backfill to stop; the leader does it. Asking again may widen it to what runs.

    Raises `NotFound`, `Conflict` for one that has ended, `Unavailable`, `Unknown`.
    """
    key = keys.backfill(ident)
    for _ in range(_TRIES):
        found = client.get(key)
        backfill = None if found is None else _read(found)
        if found is None or backfill is None or backfill.rest_of_fires:
            raise NotFound(f"There is no backfill {ident}", hint="those that ended are kept for a week")
        if backfill.stop == how or backfill.stop == Stop.ALL:
            return backfill
        if backfill.ended:
            raise Conflict("The backfill has ended", why=f"it is {backfill.state}")
        asked = replace(backfill, stop=how.value, stopped_by=by)
        if client.txn(Txn().when(mod(key, found.mod)).put(key, asked.encode())).succeeded:
            return asked
    raise Unavailable("The backfill could not be stopped", why="it moved each time it was tried", hint="try again")


def advance(
    keys: Keys,
    after: Backfill,
    *,
    seen: int,
    job: tuple[str, int],
    dispatches: Sequence[Dispatch] = (),
    waits: Sequence[Wait | Join] = (),
    skips: Sequence[Outcome] = (),
    ends: Mapping[str, int] | None = None,
    cancels: Mapping[str, Request] | None = None,
) -> Move:
    """Put the next runs of a backfill and what is left of it then; the rest of a `fire_all` goes with its last fire.

    It holds only for the very record it was made from, so each instant is run once, and for the job as it was seen.
    `ends` are requests, with their revisions, that told of ends of its runs: they go, so each counts once. `cancels`
    are asked for, by request id.
    """
    told = {keys.run_in(request): revision for request, revision in (ends or {}).items()}
    out = sent(keys, dispatches)
    puts = {**out.puts}
    puts |= parked(keys, waits)
    puts |= {keys.out(skip.run, 0): skip.encode() for skip in skips}
    puts |= {keys.run_in(request): wanted.encode() for request, wanted in (cancels or {}).items()}
    key, over = keys.backfill(after.id), after.rest_of_fires and not after.fires
    if not over:
        puts[key] = after.encode()
    deletes: Iterable[str] = (*told, key) if over else told
    rests_on = {**out.seen, key: seen, keys.job(job[0]): job[1], **told}
    return Move(rests_on, out.alive, puts=puts, deletes=tuple(deletes))


def forget(keys: Keys, ident: str, *, seen: int) -> Move:
    """Delete one that ended long ago."""
    return Move({keys.backfill(ident): seen}, deletes=(keys.backfill(ident),))


def give_to_people(keys: Keys, ident: str, *, seen: int, value: bytes) -> Move:
    """Move one that nobody can read to the dead letters."""
    key = keys.backfill(ident)
    return Move({key: seen}, puts={keys.dead("backfill", ident): value}, deletes=(key,))


def _read(kv: KV) -> Backfill | None:
    try:
        return Backfill.read(kv.value)
    except UnknownRecord:
        return None
