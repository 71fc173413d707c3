"""Expire (transaction 12, by the leader): an accepted run whose callee is late, or has been silent for too long."""

from __future__ import annotations

from collections.abc import Iterable

from crony.domain.outcome import Outcome
from crony.domain.run import Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def expire(
    keys: Keys,
    *,
    accepted_seen: int,
    beat_seen: int | None,
    outcome: Outcome,
    wait: Wait | None,
    also: Iterable[str] = (),
) -> Move:
    """End the attempt while its accepted record is unchanged.

    `beat_seen`: revision of its last sign of life, 0 for none, when it ends for its silence: a beat that has just come
    saves it. None: it ends whatever its callee lets hear. `wait` is how the run goes on; None when it ends here.
    `also`: what else goes, its slots, and the orders about a run that ends.
    """
    run = outcome.run
    seen = {keys.run_acc(run): accepted_seen}
    if beat_seen is not None:
        seen[keys.run_beat(run)] = beat_seen
    puts = {keys.out(run, outcome.attempt): outcome.encode()}
    if wait is not None:
        puts[keys.run_wait(run)] = wait.encode()
    return Move(seen, puts=puts, deletes=(keys.run_acc(run), keys.run_beat(run), *also))
