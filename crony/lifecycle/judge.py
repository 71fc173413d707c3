"""Judge (after quarantine, 19): the leader decides what becomes of a run whose message was set aside."""

from __future__ import annotations

from crony.domain.outcome import Outcome
from crony.domain.run import Wait
from crony.etcd.keys import Keys
from crony.lifecycle.move import Move


def revive(keys: Keys, dead_key: str, *, dead_seen: int, attempt: int, wait: Wait) -> Move:
    """The message was genuine: the run waits for a fresh one, the attempt not used up.

    Neither the attempt nor the run may have ended: a letter that is put there again must not run anything again.
    """
    ended = dict.fromkeys((keys.out(wait.run, attempt), keys.out(wait.run, "end")), 0)
    return Move(
        {dead_key: dead_seen, keys.run_wait(wait.run): 0, **ended},
        puts={keys.run_wait(wait.run): wait.encode()},
        deletes=(dead_key,),
    )


def bury(keys: Keys, dead_key: str, *, dead_seen: int, record: bytes, outcome: Outcome | None = None) -> Move:
    """The run ends with `outcome` (None: it needs none); the letter stays for a person, with the judgement in it."""
    if outcome is None:
        return Move({dead_key: dead_seen}, puts={dead_key: record})
    end = keys.out(outcome.run, "end")
    return Move({dead_key: dead_seen, end: 0}, puts={dead_key: record, end: outcome.encode()})
