"""What etcd's refusals mean: which changed nothing, which may be repeated, which error they are for the caller."""

from __future__ import annotations

import json

from crony.errors import CronyError
from crony.etcd.errors import AuthFailed, BadRequest, Compacted, LeaseGone, NoSpace
from crony.etcd.http import Answer
from crony.etcd.wire import Json

_TOKEN_STALE = (
    "invalid auth token",
    "revision of auth store is old",
    "revision in header is old",
    "user name is empty",
)
_NOT_EXECUTED = ("too many requests", "etcdserver: no leader", "Error while dialing")
_REFUSED_CODES = frozenset({3, 5, 6, 9, 11, 12})


def token_is_stale(message: str) -> bool:
    """Whether etcd wants us to sign in (again). The request was not carried out."""
    return any(text in message for text in _TOKEN_STALE)


def was_not_executed(message: str) -> bool:
    """Whether a failed request certainly changed nothing, so that it may be repeated."""
    return any(text in message for text in _NOT_EXECUTED)


def payload_of(answer: Answer) -> Json | None:
    """The decoded body; a stream that ended gives its first message. None when it is not JSON."""
    try:
        body = answer.body
        if b"\n" in body:
            body = body.split(b"\n", 1)[0]
        payload = json.loads(body)
    except ValueError:
        return None
    if not isinstance(payload, dict):
        return None
    result = payload.get("result")
    return result if isinstance(result, dict) else payload


def reason(answer: Answer, payload: Json | None) -> tuple[int, str]:
    """gRPC code and message of a refusal, however this version spells it."""
    if payload is None:
        if answer.status == 404:
            return 12, "there is no JSON gateway at this address (/v3)"
        return 14, f"HTTP {answer.status} with a body that is not JSON"
    error = payload.get("error")
    source = error if isinstance(error, dict) else payload
    message = source.get("message") or source.get("error") or f"HTTP {answer.status}"
    return int(source.get("grpc_code") or source.get("code") or 2), str(message)


def refusal(code: int, message: str) -> CronyError | None:
    """The error for a refusal that changed nothing and would be the same elsewhere; None: not such a one."""
    if "required revision has been compacted" in message:
        return Compacted()
    if "database space exceeded" in message:
        return NoSpace("etcd is out of space", why=message, hint="compact, defragment and disarm, or raise the quota")
    if "requested lease not found" in message:
        return LeaseGone("the lease is gone", why=message)
    if "permission denied" in message or "authentication failed" in message or code in (7, 16):
        return AuthFailed("etcd refused us", why=message)
    if code in _REFUSED_CODES or "message larger than max" in message:
        return BadRequest(message)
    return None
