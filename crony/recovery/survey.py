"""What a restored etcd holds, for a person who is to decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from crony.clock import rfc3339
from crony.domain.backfill import Backfill
from crony.domain.mark import Seen
from crony.domain.record import UnknownRecord
from crony.domain.run import Done
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle import centres
from crony.lifecycle.look import live_runs
from crony.store import recovery
from crony.store.db import Database

NAMED = 10
"""Backfills that are named; further ones are counted."""


def survey(
    client: Client, keys: Keys, found: Seen, seen: Mapping[str, Seen], reasons: Sequence[str], database: Database | None
) -> list[tuple[str, object]]:
    """Names and values. It only reads; raises as the client."""
    alive = live_runs(client, keys)
    states = Counter(str(run.state) for run in alive)
    ended: object = "not known: no database"
    if database is not None:
        ended = sum(known.ended for known in recovery.runs(database, [run.run for run in alive]).values())
    now = centres.look(client, keys)
    leads = ", ".join(f"{told.name} (shard {told.shard})" for told in now.leaders.values())
    return [
        ("etcd now", _seen(found)),
        *((f"seen by {who}", _seen(kept)) for who, kept in seen.items()),
        ("so", "; ".join(reasons) or "etcd does not look restored"),
        ("jobs", client.count(keys.job(""))),
        ("decided up to", _cursors(client, keys)),
        ("live runs", ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"),
        ("of them ended since", ended),
        ("of them in parts", sum(run.parts > 0 and run.part is None for run in alive)),
        ("backfills under way", _backfills(client, keys)),
        ("leads", leads or "nobody"),
    ]


def _seen(seen: Seen) -> str:
    last = f"marked {rfc3339(seen.at)}" if seen.mod else "never marked"
    return f"revision {seen.revision}, {last}, recovered {seen.epoch} times"


def _cursors(client: Client, keys: Keys) -> str:
    """The latest cursor: about when the backup was made."""
    latest = 0
    for kv in client.list(keys.done("")).kvs:
        try:
            latest = max(latest, Done.read(kv.value).upto_at)
        except (UnknownRecord, CronyError, TypeError):
            continue
    return rfc3339(latest) or "" if latest else "nothing"


def _backfills(client: Client, keys: Keys) -> str:
    """Backfills that go on, and what is left over of fires to be made up for."""
    names: list[str] = []
    for kv in client.list(keys.backfill("")).kvs:
        try:
            record = Backfill.read(kv.value)
        except UnknownRecord:
            continue
        if record.rest_of_fires:
            names.append(f"{len(record.fires)} late fires of {record.name}")
        elif not record.ended:
            names.append(f"{record.id} of {record.name} ({record.made} of {record.total} runs made)")
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join(names[:NAMED] + more) or "none"
