"""Look: the runs that live in etcd, read at one revision. For showing only; seals are not checked here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from crony.domain import ids
from crony.domain.join import Join
from crony.domain.record import UnknownRecord
from crony.domain.retry import delay
from crony.domain.run import Accepted, Beat, Claim, Envelope, Request, State, Wait, WaitReason
from crony.domain.signing import peek
from crony.errors import CronyError
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys, decode
from crony.lifecycle.standing import read
from crony.transport_etcd import message


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run that has not ended. Instants are epoch seconds; `attempt` is the one under way or coming next."""

    run: str
    job: str
    name: str
    state: State
    attempt: int
    node: str
    """Node chosen or holding it; empty while it waits."""
    since_at: float
    """When it came into this state, as far as the records tell."""
    due_at: float
    """Not before this; 0: as soon as possible."""
    reason: str
    trigger: str
    fire_at: float | None
    priority: int
    requested_at: float = 0.0
    generation: int = 0
    revision: int = 0
    detail: str = ""
    why: str = ""
    incarnation: str = ""
    pools: tuple[str, ...] = ()
    """Pools in each of which it needs a slot."""
    started_at: float = 0.0
    """Of an accepted run: when its callee was called."""
    deadline_at: float = 0.0
    """Of an accepted run: by when its callee has to complete."""
    beat: Beat | None = None
    """The last sign of life of its callee."""
    part: int | None = None
    """Which part of its run it is, from 0."""
    parts: int = 0
    """How many parts its run has; 0: it is not split."""
    ended: int = 0
    """Of a whole run in parts: how many of them have ended."""
    chain: str = ""
    """The run that its chain began with; empty: it begins one itself."""
    cause: str = ""
    """The run whose end it follows."""


def live_runs(client: Client, keys: Keys, *, job: str | None = None, run: str | None = None) -> list[LiveRun]:
    """Live runs, of one job or of one run id if given, oldest first. Records nobody can read are left out."""
    start = f"{run}" if run else f"{job}." if job else ""
    first = client.list(keys.run_in(""))
    at = first.revision
    found = [_requested(kv) for kv in first.kvs]
    found += [_waiting(kv) for kv in client.list(keys.run_wait(start), revision=at).kvs]
    beats = {kv.key.removeprefix(keys.run_beat("")): kv for kv in client.list(keys.run_beat(start), revision=at).kvs}
    for kv in client.list(keys.run_acc(start), revision=at).kvs:
        found.append(_accepted(kv, beats.get(kv.key.removeprefix(keys.run_acc("")))))
    found += [_joined(kv) for kv in client.list(keys.run_join(start), revision=at).kvs]
    queued = _queued(keys, client.list(f"{keys.run}q/", revision=at).kvs, start)
    found += [_with_progress(live, beats.get(live.run)) for live in queued if live is not None]
    wanted = (live for live in found if live is not None)
    return sorted(
        (live for live in wanted if (job is None or live.job == job) and (run is None or live.run == run)),
        key=lambda live: (live.requested_at, live.run),
    )


def is_known(client: Client, keys: Keys, run: str) -> bool:
    """Whether etcd holds anything of a run, its outcomes included (they stay a minute after the archive has them)."""
    # In this order: a run that ends in between is in both, not in neither.
    return bool(
        live_runs(client, keys, run=run) or client.range(keys.out(run, ""), keys.out(run, "") + "\x7f", limit=1).kvs
    )


def _requested(kv: KV) -> LiveRun | None:
    try:
        request = Request.read(kv.value)
    except UnknownRecord:
        return None
    if request.kind != "run":
        return None
    return LiveRun(
        run=request.run,
        job=request.job,
        name=request.name,
        state=State.REQUESTED,
        attempt=1,
        node="",
        since_at=request.requested_at,
        due_at=request.not_before_at,
        reason="waits for the leader",
        trigger=request.trigger,
        fire_at=None,
        priority=request.priority or 0,
        requested_at=request.requested_at,
        generation=request.generation,
        chain=request.chain,
        cause=request.cause,
    )


def _waiting(kv: KV) -> LiveRun | None:
    try:
        wait = Wait.read(kv.value)
    except UnknownRecord:
        return None
    envelope = _opened(wait.envelope)
    if envelope is None:
        return None
    return _live(
        envelope,
        State.WAITING,
        wait.finished + 1,
        "",
        wait.since_at,
        reason=wait.reason,
        due_at=wait.due_at or _next_attempt_at(wait, envelope),
        detail=wait.detail,
    )


def _next_attempt_at(wait: Wait, envelope: Envelope) -> float:
    """When the attempt after one that has ended comes, as every leader works it out; 0: as soon as it is decided."""
    if wait.reason != WaitReason.ENDED or wait.finished > int(envelope.retry.get("max", 0)):
        return 0.0
    try:
        return float(wait.since_at) + delay(envelope.retry, wait.finished, wait.run, float(wait.retry_after))
    except (ValueError, TypeError, ArithmeticError):
        return 0.0


def _accepted(kv: KV, last: KV | None) -> LiveRun | None:
    record, beat = read(Accepted, kv), read(Beat, last)
    envelope = _opened(record.envelope) if record is not None else None
    if record is None or envelope is None or record.attempt != envelope.attempt:
        return None
    shown = _live(envelope, State.ACCEPTED, record.attempt, record.node, record.at, incarnation=record.incarnation)
    beat = beat if beat is not None and beat.of(record.attempt) else None
    return replace(shown, started_at=record.started_at or record.at, deadline_at=record.deadline_at, beat=beat)


def _with_progress(live: LiveRun, last: KV | None) -> LiveRun:
    """A queued or running attempt with what it said of how far it is."""
    beat = read(Beat, last) if live.state is State.RUNNING else None
    return live if beat is None or beat.attempt != live.attempt else replace(live, beat=beat)


def _joined(kv: KV) -> LiveRun | None:
    """A run whose parts are under way."""
    try:
        join = Join.read(kv.value)
    except UnknownRecord:
        return None
    envelope = _opened(join.envelope) if join.sound else None
    if envelope is None:
        return None
    detail = f"; {join.cancelled}" if join.cancelled else ""
    live = _live(
        envelope, State.RUNNING, 0, "", join.since_at, reason=f"{join.ended} of {join.total} parts have ended{detail}"
    )
    return replace(live, parts=join.total, ended=join.ended)


def _queued(keys: Keys, kvs: Iterable[KV], start: str) -> list[LiveRun | None]:
    """Messages with the claims beside them."""
    prefix = f"{keys.run}q/"
    messages: dict[tuple[str, str], bytes] = {}
    claims: dict[tuple[str, str], bytes] = {}
    for kv in kvs:
        queue, kind, place = kv.key[len(prefix) :].split("/", 2)
        if ids.place_ident(place).startswith(start) if "." in place else not start:
            (messages if kind == "m" else claims)[queue, place] = kv.value
    return [_message(decode(queue), value, claims.get((queue, place))) for (queue, place), value in messages.items()]


def _message(queue: str, value: bytes, claim: bytes | None) -> LiveRun | None:
    try:
        sealed = json.loads(message.decode(value)["body"])[0][0]
        held = Claim.read(claim) if claim is not None else None
    except (CronyError, ValueError, KeyError, TypeError, IndexError):
        return None
    envelope = _opened(sealed)
    if envelope is None:
        return None
    chosen = "" if queue.startswith("run.@") else queue.removeprefix("run.")
    if held is None or not held.incarnation:
        return _live(
            envelope, State.QUEUED, envelope.attempt, chosen, envelope.requested_at, incarnation=envelope.incarnation
        )
    node = held.node or chosen
    return _live(
        envelope, State.RUNNING, envelope.attempt, node, held.at or envelope.requested_at, incarnation=held.incarnation
    )


def _opened(sealed: str) -> Envelope | None:
    try:
        return Envelope.read(peek(sealed))
    except (ValueError, KeyError, TypeError, UnknownRecord):
        return None


def _live(
    envelope: Envelope,
    state: State,
    attempt: int,
    node: str,
    since_at: float,
    *,
    reason: str = "",
    due_at: float = 0.0,
    detail: str = "",
    incarnation: str = "",
) -> LiveRun:
    return LiveRun(
        run=envelope.run,
        job=envelope.job,
        name=envelope.name,
        state=state,
        attempt=attempt,
        node=node,
        since_at=since_at,
        due_at=due_at,
        reason=reason,
        trigger=envelope.trigger,
        fire_at=envelope.fire_at,
        priority=envelope.priority,
        requested_at=envelope.requested_at,
        generation=envelope.generation,
        revision=envelope.revision,
        detail=detail,
        why=envelope.why,
        incarnation=incarnation,
        pools=tuple(str(name) for name in envelope.pools),
        part=envelope.part,
        parts=envelope.parts if envelope.part is not None else 0,
        chain=envelope.chain,
        cause=envelope.cause,
    )
