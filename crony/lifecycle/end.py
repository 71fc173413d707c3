"""Transaction 10, end: an attempt ends in one fenced transaction, made by whoever holds its claim.

Compared: the claim's revision (the fence). Done at once: message and claim go, the outcome is put, and
either the run is over (its cancel order goes too) or its envelope is parked for the leader, which alone
turns it into the next attempt. Repeating an end is harmless: the fence matches once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crony.domain import ids
from crony.domain.outcome import Kind, Outcome
from crony.domain.record import UnknownRecord
from crony.domain.run import Envelope, Wait, WaitReason
from crony.domain.signing import peek
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult, mod
from crony.lifecycle.slots import slots_of

PATIENCE = 6 * 3600.0
"""How long an end is tried while etcd is away, seconds. After that the session is long gone and others took over."""
RETRIED = frozenset({Kind.FAILED, Kind.TIMED_OUT, Kind.REFUSED, Kind.LOST, Kind.UNKNOWN})
"""Outcomes after which a further attempt may follow."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is ended by this fence: now, or by an earlier try of the same end whose answer was lost."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Stale:
    """The claim is no longer ours: somebody else ended or took over the attempt. Nothing was written."""

    found: Outcome | None
    """The outcome that stands in its place, when there is one still in etcd."""


def is_final(envelope: Envelope, kind: str) -> bool:
    """Whether a run is over when this attempt ends as `kind`: no further attempt is allowed or needed.

    A process that was lost is judged as a node that was lost, but that it counts as an attempt of `retry.max`.
    """
    if kind not in RETRIED or envelope.delivery == "at_most_once":
        return True
    if kind == Kind.LOST and envelope.on_node_loss != "rerun":
        return envelope.on_node_loss != "hold"
    return envelope.attempt > int(envelope.retry.get("max", 0))


def is_held(envelope: Envelope, kind: str) -> bool:
    """Whether a person decides what follows an attempt that ended as `kind`."""
    return kind == Kind.LOST and envelope.on_node_loss == "hold" and not is_final(envelope, kind)


def outcome_of(envelope: Envelope, kind: str, *, ended_at: float, fence: int, **facts: object) -> Outcome:
    """The outcome of this attempt, with everything the envelope knows filled in and `final` decided."""
    known: dict[str, Any] = {
        "run": envelope.run,
        "job": envelope.job,
        "name": envelope.name,
        "generation": envelope.generation,
        "revision": envelope.revision,
        "attempt": envelope.attempt,
        "kind": str(kind),
        "final": is_final(envelope, kind),
        "held": is_held(envelope, kind),
        "trigger": envelope.trigger,
        "ended_at": ended_at,
        "fence": fence,
        "fire_at": envelope.fire_at,
        "requested_at": envelope.requested_at,
        "params": envelope.params or None,
        "why": envelope.why,
        "idem": envelope.idem,
        "chain": envelope.chain,
        "cause": envelope.cause,
        "chain_at": envelope.chain_at,
        "no_chain": envelope.no_chain,
        "late": envelope.late,
        "missed": envelope.missed,
        "awaited": envelope.awaited,
        "action": str(envelope.action.get("kind", "")),
        "parts": envelope.parts,
    }
    return Outcome(**{**known, **facts})


def without_envelope(run: str, why: str, now: float) -> Outcome:
    """The end of a run of which nothing but its id can be told."""
    try:
        parts = ids.parse_run_id(run)
        job, generation = parts.job, parts.generation
    except ValueError:
        job, generation = "?", 0
    return Outcome(
        run=run,
        job=job,
        name=job,
        generation=generation,
        revision=0,
        attempt=0,
        kind=Kind.REFUSED.value,
        final=True,
        trigger="",
        ended_at=now,
        reason=f"given up: {why}",
        awaited=True,  # perhaps: nobody can tell any more
    )


def end(
    client: Client,
    keys: Keys,
    envelope: str | bytes,
    place: str,
    fence: int,
    outcome: Outcome,
    *,
    told: Envelope | None = None,
    commit: Callable[[Txn], TxnResult] | None = None,
    gone: tuple[str, ...] = (),
) -> Ended | Stale:
    """End the attempt that `envelope` (the sealed text as received) names, if the claim's revision is `fence`.

    `told` is its content, where the caller has it already; `commit` carries out the transaction (default
    `client.txn`; a batcher's, to share a request).
    Raises `EtcdUnavailable` (nothing happened) or `EtcdUnknown` (it may have): calling again is right in both cases.
    """
    text = envelope.decode() if isinstance(envelope, bytes) else envelope
    told = told or Envelope.read(peek(text))
    result = (commit or client.txn)(transaction(keys, told, text, place, fence, outcome, gone))
    if result.succeeded:
        return Ended(outcome)
    found = _found(result)
    return Ended(found) if found is not None and found.fence == fence else Stale(found)


def transaction(
    keys: Keys, told: Envelope, sealed: str, place: str, fence: int, outcome: Outcome, gone: tuple[str, ...] = ()
) -> Txn:
    """The end of this attempt as one transaction; refused, it answers with the outcome found. `gone`: deleted, too."""
    message, claim = keys.message(told.queue, place), keys.claim(told.queue, place)
    key = keys.out(told.run, told.attempt)
    txn = Txn().when(mod(claim, fence)).delete(message).delete(claim).put(key, outcome.encode())
    for slot in (*slots_of(keys, told), *gone):
        txn.delete(slot)
    if outcome.final:
        if outcome.node:
            txn.delete(keys.cmd(outcome.node, told.run))
    else:
        txn.put(keys.run_wait(told.run), parked(told, sealed, outcome).encode())
    txn.otherwise.get(key)
    return txn


def parked(told: Envelope, sealed: str, outcome: Outcome) -> Wait:
    """How a run waits for the leader after this attempt, which was not its last."""
    avoid = list(told.avoid)
    if told.retry.get("elsewhere") and outcome.node and outcome.node not in avoid:
        avoid.append(outcome.node)
    return Wait(
        run=told.run,
        envelope=sealed,
        finished=told.attempt,
        reason=WaitReason.ENDED.value,
        since_at=outcome.ended_at,
        losses=told.losses + (outcome.kind == Kind.LOST),
        outcome=outcome.kind,
        retry_after=outcome.retry_after,
        detail=outcome.reason[:200],
        avoid=avoid,
        node=outcome.node,
    )


def _found(result: TxnResult) -> Outcome | None:
    for kv in result.responses[0] if result.responses else ():
        try:
            return Outcome.read(kv.value)
        except UnknownRecord:
            return None
    return None
