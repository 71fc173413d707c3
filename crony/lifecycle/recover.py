"""Recover (transaction 23): what a restored etcd holds becomes what may go on from here.

Under the terms of all shards, so that nobody dispatches meanwhile. Cursors move by `note`; each record of a run is
compared, so that its holder's own end, coming at the same moment, wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crony.domain.outcome import Outcome
from crony.domain.run import Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def set_back(
    keys: Keys,
    records: Mapping[str, int],
    *,
    wait: Wait | None = None,
    outcomes: Iterable[tuple[int | str, Outcome]] = (),
    orders: Iterable[str] = (),
) -> Move:
    """Take all `records` of a run (key -> revision) away; it waits as `wait` says, or is over.

    `outcomes` are put under the run's attempt numbers, or `end`. Without any it is dropped: the archive has its end.
    """
    puts = {keys.out(outcome.run, slot): outcome.encode() for slot, outcome in outcomes}
    if wait is not None:
        puts[keys.run_wait(wait.run)] = wait.encode()
    deletes = tuple(key for key, revision in records.items() if revision and key not in puts)
    return Move(dict(records), puts=puts, deletes=(*deletes, *orders))


def put_again(key: str, seen: int, value: bytes) -> Move:
    """Another value of a record that nobody changed."""
    return Move({key: seen}, puts={key: value})
