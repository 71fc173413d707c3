"""A callee's sign of life, and how far it is: a put of `run/beat/<r>` that compares the accepted record (A4).

Beside the record and not in it: a heartbeat never stands in the way of a completion, and costs its own few bytes. One
that comes after the end finds the record gone and writes nothing; the leader, ending a silent attempt, compares it.

Who remembers how the attempt stood may put the next one without looking: both records are compared, so that a memory
that is out of date writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from crony.domain.callback import Token, line
from crony.domain.run import Beat, Envelope
from crony.domain.signing import peek
from crony.errors import Unavailable
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult, mod
from crony.lifecycle.complete import TRIES, Told
from crony.lifecycle.standing import Archive, InCall, Over, Waits, cancel_ordered, find


@dataclass(frozen=True, slots=True)
class Sign:
    """What is said: that the callee lives, and how far it is; None stays as it was."""

    percent: float | None = None
    message: str | None = None

    def after(self, before: Beat | None, attempt: int, now: float) -> Beat:
        """What stands when this attempt said it `now` (epoch seconds)."""
        last = before if before is not None and before.of(attempt) else Beat(0.0)
        percent = last.percent if self.percent is None else self.percent
        message = line(self.message)
        return Beat(now, percent, last.message if message is None else message, attempt)


def heartbeat(
    client: Client,
    keys: Keys,
    run: str,
    attempt: int,
    token: Token,
    sign: Sign = Sign(),
    *,
    archive: Archive = lambda: None,
    commit: Callable[[Txn], TxnResult] | None = None,
    hide: Callable[[Envelope, str], str] = lambda told, message: message,
    remember: Callable[[Waits], None] = lambda waits: None,
) -> Told:
    """Note that the callee is alive. `hide`: what is kept of a message. `remember` is told how it stands then.

    Before the call was answered nothing is noted: nobody counts silence yet. Raises `NotTheirs`, `NotFound`,
    `Unavailable`, `Unknown`: repeating it is harmless.
    """
    for _ in range(TRIES):
        found = find(client, keys, run, attempt, token, archive=archive)
        if not isinstance(found, Waits):
            return how(client, keys, run, found)
        if sign.message:
            sign = replace(sign, message=hide(Envelope.read(peek(found.record.envelope)), sign.message))
        beat = sign.after(found.beat, attempt, client.now())
        result = (commit or client.txn)(transaction(keys, run, found, beat))
        if result.succeeded:
            remember(heard(found, beat, result))
            return Told("running")
    raise Unavailable("The attempt changes all the time", hint="try again")


def heard(before: Waits, beat: Beat, result: TxnResult) -> Waits:
    """How it stands after a `transaction` that succeeded."""
    return replace(before, beat=beat, beat_seen=result.revision)


def transaction(keys: Keys, run: str, found: Waits, beat: Beat) -> Txn:
    """The put as a transaction. The last beat is compared, too: of two at a time none undoes the other's progress."""
    txn = Txn().when(mod(keys.run_acc(run), found.seen), mod(keys.run_beat(run), found.beat_seen))
    return txn.put(keys.run_beat(run), beat.encode())


def how(client: Client, keys: Keys, run: str, found: Waits | InCall | Over) -> Told:
    """What a callee is told that changes nothing: whether to stop, above all."""
    if isinstance(found, Over):
        return Told("ended", found.outcome, cancel=not found.report)
    return Told("running", cancel=isinstance(found, InCall) and cancel_ordered(client, keys, run, found))
