"""How an asynchronous attempt stands when its callee speaks, and whether it is its callee who speaks.

Read at one revision: accepted record and last sign of life, claim and message where the token says the call was made
from, outcome. What is found says which record a change has to compare. Nothing is written here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from crony.domain.callback import TOKEN_GRACE, Token
from crony.domain.ids import place_ident
from crony.domain.outcome import Outcome
from crony.domain.record import Record, UnknownRecord
from crony.domain.run import Accepted, Beat, Claim, Envelope, Wait
from crony.domain.signing import peek
from crony.errors import CronyError, Forbidden, NotFound
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, decode
from crony.etcd.txn import Txn
from crony.transport_etcd import message as wire

R = TypeVar("R", bound=Record)


class NotTheirs(Forbidden):
    """Not the token of this attempt, or not any more. It is never said which."""

    status = 401


@dataclass(frozen=True, slots=True)
class Waits:
    """It is accepted: `run/acc/<r>` stands at revision `seen`."""

    record: Accepted
    seen: int
    beat: Beat | None
    beat_seen: int

    def may_speak(self, attempt: int, token: Token, now: float) -> bool:
        """Whether `token` is that of this attempt, `now` by etcd's clock; takes the same time for others."""
        record = self.record
        theirs = token.fits(record.secret) and (record.attempt, record.fence) == (attempt, token.fence)
        return theirs and now <= record.deadline_at + TOKEN_GRACE


@dataclass(frozen=True, slots=True)
class InCall:
    """The call has not been answered yet: the claim stands at the token's fence."""

    told: Envelope
    sealed: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class Over:
    """It has ended: how, by whose secret it could have been completed, and by which report it was (empty: by none)."""

    outcome: str
    secret: str
    report: str


Archive = Callable[[], Over | None]
"""Looks an ended attempt up where outcomes are kept for good. Raises `Unavailable`."""


def find(
    client: Client, keys: Keys, run: str, attempt: int, token: Token, *, archive: Archive = lambda: None
) -> Waits | InCall | Over:
    """How the attempt stands. Raises `NotTheirs`, `NotFound`, `Unavailable`, `Unknown`."""
    if place_ident(token.place) != run:
        raise NotTheirs("Not the token of this attempt")
    message, claim = keys.message(token.queue, token.place), keys.claim(token.queue, token.place)
    look = Txn().get(keys.run_acc(run)).get(keys.run_beat(run)).get(claim).get(message).get(keys.out(run, attempt))
    acc, beat, held, sent, out = (found[0] if found else None for found in client.txn(look).responses)
    waits = read(Accepted, acc)
    if acc is not None and waits is not None and waits.attempt == attempt:
        standing = Waits(waits, acc.mod, read(Beat, beat), beat.mod if beat else 0)
        if not standing.may_speak(attempt, token, client.now()):
            raise NotTheirs("Not the token of this attempt")
        return standing
    holds, told = read(Claim, held), _told(sent)
    if held is not None and holds is not None and told is not None and held.mod == token.fence:
        if not token.fits(holds.secret) or told[0].run != run or told[0].attempt != attempt:
            raise NotTheirs("Not the token of this attempt")
        return InCall(*told, holds)
    ended = read(Outcome, out)
    over = archive() if ended is None else Over(ended.kind, ended.secret, ended.report)
    if over is None:
        raise NotFound("There is no such attempt, or nothing is known of it any more")
    if not token.fits(over.secret):
        raise NotTheirs("Not the token of this attempt")
    return over


def cancel_ordered(client: Client, keys: Keys, run: str, found: InCall) -> bool:
    """Whether somebody wants a run stopped that is still on its node."""
    return client.get(keys.cmd(found.claim.node, run)) is not None


def latest_attempt(client: Client, keys: Keys, run: str) -> int:
    """The highest number of an attempt of which etcd knows, under way or ended; 0: none. Costs a look at all queues."""
    outs = client.list(keys.out(run, ""), keys_only=True).kvs
    numbers = [int(number) for kv in outs if (number := kv.key.rsplit("/", 1)[1]).isdigit()]
    acc, wait = read(Accepted, client.get(keys.run_acc(run))), read(Wait, client.get(keys.run_wait(run)))
    numbers += [acc.attempt] if acc else []
    numbers += [wait.finished] if wait else []
    prefix = f"{keys.run}q/"
    for kv in client.list(prefix, keys_only=True).kvs:
        queue, kind, place = kv.key.removeprefix(prefix).split("/", 2)
        if kind == "m" and place.endswith(f".{run}"):
            told = _told(client.get(keys.message(decode(queue), place)))
            numbers += [told[0].attempt] if told else []
    return max(numbers, default=0)


def read(kind: type[R], kv: KV | None) -> R | None:
    """The record behind a key; None when there is none, or none that can be read."""
    try:
        return kind.read(kv.value) if kv is not None else None
    except UnknownRecord:
        return None


def _told(kv: KV | None) -> tuple[Envelope, str] | None:
    """The envelope of a run message, for its facts only, and as it was sealed."""
    try:
        sealed = str(json.loads(wire.decode(kv.value)["body"])[0][0]) if kv is not None else ""
        return (Envelope.read(peek(sealed)), sealed) if sealed else None
    except (CronyError, ValueError, LookupError, TypeError, RecursionError):
        return None
