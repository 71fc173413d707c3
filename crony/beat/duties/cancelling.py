"""Cancels: a run ends where it lies, or its node is ordered to stop it (15, N12). A newer run may ask for it, too."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

from crony.beat.duties import splitting
from crony.beat.entries import Asked, Awaited, Joined, Queued, own_run
from crony.beat.office import Office
from crony.beat.policy import REPLACED
from crony.domain import ids
from crony.domain.outcome import Kind, Outcome, SkipReason
from crony.domain.record import UnknownRecord
from crony.domain.run import Envelope, Request
from crony.domain.signing import peek
from crony.lifecycle.cancel import cancel, drop, order
from crony.lifecycle.displace import displace
from crony.lifecycle.end import outcome_of
from crony.lifecycle.move import Move
from crony.lifecycle.slots import slots_of

MOST_DISPLACED = 20
"""Most runs that one newcomer makes go; more are alive only when the job's policy was another one before."""


class Busy(Exception):
    """Something about the run is on its way to etcd; look again in a moment."""


class Cancel(NamedTuple):
    """What to do, the name it is counted under, and the run in parts that it is about."""

    move: Move
    counter: str
    joined: Joined | None = None


def decide(office: Office, asked: Asked, request: Request) -> Cancel:
    """The move that a request to cancel becomes. A run that has ended needs none: the request just goes.

    Raises `Busy`, and ValueError or TypeError for a request that names no run.
    """
    own_run(request.run)
    book, keys, run, now = office.book, office.keys, request.run, office.wall()
    reason = request.reason or (f"cancelled by {request.by}" if request.by else "cancelled")
    gone: tuple[str, ...] = ()
    waiting, where, pending = book.waits.get(run), book.places.get(run), book.requested(run)
    if pending is not None and pending.request is not None:
        _free(pending.busy or pending.blocks is not None)
        outcome = _never_started(pending.request, reason, now)
        records = {keys.run_in(pending.id): pending.seen}
    elif waiting is not None and waiting.wait is not None:
        _free(waiting.busy or waiting.blocks is not None)
        told = replace(_told(waiting.wait.envelope, run), attempt=waiting.wait.finished + 1)
        outcome = outcome_of(told, Kind.CANCELLED, ended_at=now, fence=0, final=True, reason=reason)
        records = {keys.run_wait(run): waiting.seen}
    elif where is not None:
        item = book.queued[where]
        _free(item.busy)
        if item.holder:
            return _order(office, asked, request, item)
        told = _told(item.sealed, run)
        outcome = outcome_of(told, Kind.CANCELLED, ended_at=now, fence=0, final=True, reason=reason)
        records = {keys.message(*where): item.seen, keys.claim(*where): item.claim_seen}
        gone = slots_of(keys, told)
    elif (awaited := book.accepted.get(run)) is not None:
        _free(awaited.busy)
        told = _told(awaited.record.envelope if awaited.record else "", run)
        outcome = _called_off(awaited, told, reason, now)
        records, gone = {keys.run_acc(run): awaited.seen}, (keys.run_beat(run), *slots_of(keys, told))
    elif (joined := book.joins.get(run)) is not None and not _stopped(joined):
        _free(joined.busy)
        return Cancel(splitting.cancelled(office, joined, reason, asked.id, asked.seen), "orders", joined)
    else:
        return Cancel(drop(keys, asked.id, request_seen=asked.seen), "")
    gone += tuple(book.orders.get(run, ()))
    move = cancel(keys, asked.id, request_seen=asked.seen, records=records, outcome=outcome, also=gone)
    return Cancel(move, "cancelled")


def make_room(office: Office, job: str, now: float) -> Move:
    """What a run of a `cancel_previous` job does to those before it: who waits for its turn ends as skipped, who has
    had it is cancelled, as by a person, unless that was asked for already."""
    book, line = office.book, set(office.book.line(job))
    asked = {each.request.run for each in book.requests.values() if each.request and each.request.kind == "cancel"}
    asked |= {run for run, joined in book.joins.items() if _stopped(joined)}
    before = [run for run in book.live(job) if run in line or (run not in book.orders and run not in asked)]
    cancels: dict[str, Request] = {}
    ended: list[tuple[Outcome, int]] = []
    for run in before[:MOST_DISPLACED]:
        waiting = book.waits.get(run)
        if run in line and waiting is not None and waiting.wait is not None:
            skip = outcome_of(_told(waiting.wait.envelope, run), Kind.SKIPPED, ended_at=now, fence=0, attempt=0)
            skip = replace(skip, final=True, reason=SkipReason.OVERLAP.value, detail=REPLACED)
            ended.append((skip, waiting.seen))
        else:
            parts = ids.parse_run_id(run)
            request = Request(
                "cancel", run=run, job=job, generation=parts.generation, requested_at=now, reason=REPLACED
            )
            cancels[ids.request_id()] = request
    return displace(office.keys, cancels, ended)


def _order(office: Office, asked: Asked, request: Request, item: Queued) -> Cancel:
    node = item.node or office.book.node_of(item.holder)
    if not node:
        raise ValueError(f"the node that holds {item.run} is not known")
    value = {"v": 1, "kind": "cancel", "by": request.by, "reason": request.reason, "at": office.wall()}
    move = order(
        office.keys,
        asked.id,
        request_seen=asked.seen,
        run=request.run,
        node=node,
        claim_key=office.keys.claim(item.queue, item.place),
        claim_seen=item.claim_seen,
        value=json.dumps(value).encode(),
    )
    return Cancel(move, "orders")


def _called_off(awaited: Awaited, told: Envelope, reason: str, now: float) -> Outcome:
    """How an accepted run ends that nobody wants any more; its callee learns of it by its next call."""
    record = awaited.record
    outcome = outcome_of(told, Kind.CANCELLED, ended_at=now, fence=0, final=True, reason=reason)
    if record is None:
        return outcome
    return replace(
        outcome,
        attempt=record.attempt,
        fence=record.fence,
        secret=record.secret,
        node=record.node,
        incarnation=record.incarnation,
        started_at=record.started_at,
    )


def _stopped(joined: Joined) -> bool:
    """Whether a run in parts was cancelled already."""
    return joined.join is not None and bool(joined.join.cancelled)


def _free(busy: bool) -> None:
    if busy:
        raise Busy


def _told(sealed: str, run: str) -> Envelope:
    """The envelope for its facts only: to end a run nothing need be trusted."""
    try:
        return Envelope.read(peek(sealed))
    except (UnknownRecord, ValueError, LookupError, TypeError, RecursionError):
        parts = ids.parse_run_id(run)
        return Envelope(run, parts.job, parts.job, parts.generation, 0, 1, "", "", "", {}, awaited=True)


def _never_started(request: Request, reason: str, now: float) -> Outcome:
    return Outcome(
        run=request.run,
        job=request.job,
        name=request.name,
        generation=request.generation,
        revision=0,
        attempt=0,
        kind=Kind.CANCELLED.value,
        final=True,
        trigger=request.trigger,
        ended_at=now,
        reason=reason,
        requested_at=request.requested_at,
        params=request.params or None,
        idem=request.idem,
        chain=request.chain,
        cause=request.cause,
        chain_at=request.chain_at,
        no_chain=request.no_chain,
    )
