"""Enqueue (transaction 4): a request reaches the leader's inbox at most once per idempotency key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from crony.domain import ids
from crony.domain.run import Request
from crony.errors import Conflict, CronyError, Invalid, Unavailable, Unknown
from crony.etcd.client import KV, Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.look import is_known

ON_CONFLICT = ("existing", "error", "replace")
LONGEST_KEY = 512
"""Most characters of an idempotency key."""
MOST_BYTES = 48 * 1024
"""Most bytes of a stored request: parameters travel through etcd, data does not, and the dispatch that comes of it
holds them escaped three times over."""
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Submitted:
    """The run that a request stands for; `created`: by this call."""

    run: str
    created: bool


def submit(
    client: Client,
    keys: Keys,
    request: Request,
    *,
    idempotency: str | None = None,
    on_conflict: str = "existing",
    window: float = 86400,
) -> Submitted:
    """Ask the leader for a run of `request.job`; the run id is made here.

    With an idempotency key the same key of the same job means the same run for `window` seconds,
    whatever was lost on the way: a later call gets that run (`existing`), raises `Conflict` (`error`),
    or asks to cancel it and makes a new one (`replace`). Without a key a lost answer that cannot be
    cleared up raises `Unknown`.
    """
    check(request, idempotency, on_conflict, window)
    run = ids.fresh_run_id(request.job, request.generation)
    wanted = replace(request, run=run, idem=idempotency or "", requested_at=request.requested_at or client.now())
    inbox, value = keys.run_in(ids.request_id()), encoded(wanted)
    if idempotency is None:
        return _once(client, keys, run, inbox, value)
    key = keys.idem(request.job, hashlib.sha256(idempotency.encode("utf-8", "surrogatepass")).hexdigest())
    doubt = False
    for _ in range(_TRIES):
        try:
            found = client.get(key)
        except Unavailable as error:
            if doubt:
                raise _unclear(run, error) from None
            raise
        earlier = meaning(found, client.now())
        if earlier == run:
            return Submitted(run, True)  # our own, its answer was lost
        if earlier is not None and on_conflict == "existing":
            return Submitted(earlier, False)
        if earlier is not None and on_conflict == "error":
            raise Conflict(f"The idempotency key stands for run {earlier} already", hint="use a new key for new work")
        record = json.dumps({"v": 1, "run": run, "until": client.now() + window}, separators=(",", ":")).encode()
        txn = Txn().when(mod(key, found.mod if found else 0), mod(inbox, 0)).put(key, record).put(inbox, value)
        if earlier is not None:
            cancel = cancellation(request, earlier, run, wanted.requested_at)
            txn.put(keys.run_in(ids.request_id()), cancel.encode())
        try:
            if client.txn(txn).succeeded:
                return Submitted(run, True)
        except EtcdUnknown:
            doubt = True  # the next look tells: ours, another's, or neither
        except Unavailable as error:
            if doubt:
                raise _unclear(run, error) from None
            raise
    if doubt:
        raise _unclear(run, "others use the same idempotency key")
    raise Unavailable("The request could not be placed", why="others use the same idempotency key", hint="try again")


def cancel(client: Client, keys: Keys, run: str, *, by: str = "", reason: str = "") -> str:
    """Ask the leader to cancel a run; returns the request's id. Asking twice is harmless."""
    return _about(client, keys, "cancel", run, by, reason, "look at the run, and cancel it again if it goes on")


def release(client: Client, keys: Keys, run: str, *, by: str = "") -> str:
    """Ask the leader to let a run on hold go on; returns the request's id. Asking twice is harmless."""
    return _about(client, keys, "unhold", run, by, "", "look at the run, and release it again if it is still on hold")


def _about(client: Client, keys: Keys, kind: str, run: str, by: str, reason: str, hint: str) -> str:
    """Put a request about a run that exists."""
    try:
        parts = ids.parse_run_id(run)
    except ValueError:
        raise Invalid("run", "is not a run id") from None
    request = Request(
        kind=kind,
        run=run,
        job=parts.job,
        generation=parts.generation,
        by=by,
        reason=reason,
        requested_at=client.now(),
    )
    ident = ids.request_id()
    for _ in range(3):
        try:
            client.put(keys.run_in(ident), request.encode())
        except EtcdUnknown:
            continue
        return ident
    raise Unknown("The request was sent but not confirmed", hint=hint)


def _once(client: Client, keys: Keys, run: str, inbox: str, value: bytes) -> Submitted:
    try:
        client.txn(Txn().when(mod(inbox, 0)).put(inbox, value))
    except EtcdUnknown:
        try:
            known = client.get(inbox) is not None or is_known(client, keys, run)
        except CronyError as error:
            raise _unclear(run, error) from None
        if not known:
            raise _unclear(run, "it is not to be seen; the request may still arrive") from None
    return Submitted(run, True)


def _unclear(run: str, why: object) -> Unknown:
    return Unknown(
        f"Run {run} was asked for, but the answer was lost",
        why=str(why),
        hint="with an idempotency key the call can be repeated safely",
    )


def encoded(request: Request) -> bytes:
    """A request as stored. Raises `Invalid` when it is too large."""
    value = request.encode()
    if len(value) > MOST_BYTES:
        raise Invalid(
            "params", f"are larger than {MOST_BYTES // 1024} KiB", hint="put the data elsewhere and pass its address"
        )
    return value


def cancellation(request: Request, earlier: str, run: str, now: float) -> Request:
    """The request to cancel the run that an idempotency key stood for, because `run` replaces it."""
    return Request(
        kind="cancel",
        run=earlier,
        job=request.job,
        name=request.name,
        generation=request.generation,
        by=request.by,
        requested_at=now,
        reason=f"replaced by run {run}",
    )


def meaning(found: KV | None, now: float) -> str | None:
    """The run an idempotency record stands for; None when there is none, it is over, or nobody can read it."""
    if found is None:
        return None
    try:
        record = json.loads(found.value)
        run, until = record["run"], float(record["until"])
    except (ValueError, KeyError, TypeError):
        return None
    return run if isinstance(run, str) and until > now else None


def check(request: Request, idempotency: str | None, on_conflict: str, window: float) -> None:
    """Whether these can be the arguments of `submit`. Raises `Invalid` naming the one that cannot."""
    if request.kind != "run" or not request.job:
        raise Invalid("kind", "must be a request for a run of a job")
    if on_conflict not in ON_CONFLICT:
        raise Invalid("on_conflict", "must be one of " + ", ".join(ON_CONFLICT))
    if idempotency is None and on_conflict != "existing":
        raise Invalid("on_conflict", "needs an idempotency key")
    if idempotency is not None and not 0 < len(idempotency) <= LONGEST_KEY:
        raise Invalid("idempotency_key", f"must have 1 to {LONGEST_KEY} characters")
    if not 1 <= window <= 30 * 86400:
        raise Invalid("window", "must be between a second and 30 days")
