"""A callee's sign of life, and how far it is: a put of `run/beat/<r>` that compares the accepted record (A4).

Beside the record and not in it: a heartbeat never stands in the way of a completion, and costs its own few bytes. One
that comes after the end finds the record gone and writes nothing; the leader, ending a silent attempt, compares it.
"""

from __future__ import annotations

from crony.domain.callback import Token
from crony.domain.run import Beat
from crony.errors import Unavailable
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.complete import TRIES, Told
from crony.lifecycle.standing import Archive, InCall, Over, Waits, cancel_ordered, find


def heartbeat(
    client: Client,
    keys: Keys,
    run: str,
    attempt: int,
    token: Token,
    *,
    percent: float | None = None,
    message: str | None = None,
    archive: Archive = lambda: None,
) -> Told:
    """Note that the callee is alive; `percent` and `message` stay as they were unless given.

    Before the call was answered nothing is noted: nobody counts silence yet. Raises `NotTheirs`, `NotFound`,
    `Unavailable`, `Unknown`: repeating it is harmless.
    """
    for _ in range(TRIES):
        found = find(client, keys, run, attempt, token, archive=archive)
        if not isinstance(found, Waits):
            return how(client, keys, run, found)
        before = found.beat if found.beat is not None and found.beat.of(attempt) else Beat(0.0)
        beat = Beat(
            client.now(),
            before.percent if percent is None else percent,
            before.message if message is None else message,
            attempt,
        )
        if client.txn(transaction(keys, run, found, beat)).succeeded:
            return Told("running")
    raise Unavailable("The attempt changes all the time", hint="try again")


def transaction(keys: Keys, run: str, found: Waits, beat: Beat) -> Txn:
    """The put as a transaction. The last beat is compared, too: of two at a time none undoes the other's progress."""
    txn = Txn().when(mod(keys.run_acc(run), found.seen), mod(keys.run_beat(run), found.beat_seen))
    return txn.put(keys.run_beat(run), beat.encode())


def how(client: Client, keys: Keys, run: str, found: Waits | InCall | Over) -> Told:
    """What a callee is told that changes nothing: whether to stop, above all."""
    if isinstance(found, Over):
        return Told("ended", found.outcome, cancel=not found.report)
    return Told("running", cancel=isinstance(found, InCall) and cancel_ordered(client, keys, run, found))
