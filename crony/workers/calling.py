"""What a callee is given: facts of the attempt, the means to call back, and a signature (docs/reference/callbacks.md).

For every kind of runner that calls somebody: HTTP sends these as headers, gRPC as metadata in lower case.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from crony.clock import rfc3339
from crony.domain.callback import Token
from crony.domain.run import Envelope

if TYPE_CHECKING:
    from crony.workers.attempt import Attempt

ACCEPT, TOKEN = "accept", "token"
"""Names of the files that a shell command finds in its callback folder."""


@dataclass(frozen=True, slots=True)
class Callback:
    """How the callee of an asynchronous attempt reaches us, and until when."""

    url: str
    """The verbs are appended: `:heartbeat`, `:complete`, …"""
    token: Token
    deadline_at: float
    heartbeat: float

    @classmethod
    def of(cls, told: Envelope, token: Token, *, api: str, now: float) -> Callback:
        """The callback of an attempt that is called `now` (epoch seconds)."""
        url = f"{api}/api/v1/runs/{quote(told.run, safe='')}/attempts/{told.attempt}"
        return cls(url, token, now + told.deadline, told.heartbeat)

    @property
    def deadline(self) -> str:
        """RFC 3339, UTC."""
        return rfc3339(self.deadline_at) or ""

    @property
    def seconds(self) -> str:
        """For how many whole seconds the callee may be silent; empty: for any time."""
        return str(max(1, math.floor(self.heartbeat))) if self.heartbeat else ""


def headers(attempt: Attempt) -> dict[str, str]:
    """The headers of a call, but for the signature, which needs the finished request."""
    told = attempt.envelope
    found = {
        "X-Crony-Run": told.run,
        "X-Crony-Attempt": str(told.attempt),
        "X-Crony-Fence": str(attempt.held.fence),
        "X-Crony-Job": quote(told.name, safe=""),
        "X-Crony-Timeout": str(max(1, math.ceil(attempt.left))),
        "X-Crony-Retry-Max": str(int(told.retry.get("max", 0))),
        "Idempotency-Key": told.run,
        "traceparent": traceparent(told.run, told.attempt),
    }
    if told.part is not None:
        found |= {"X-Crony-Part-Index": str(told.part), "X-Crony-Part-Total": str(told.parts)}
    if (fire := rfc3339(told.fire_at)) is not None:
        found["X-Crony-Fire-Time"] = fire
    if attempt.callback is not None:
        found["X-Crony-Callback"] = attempt.callback.url
        found["X-Crony-Token"] = attempt.callback.token.text
        found["X-Crony-Deadline"] = attempt.callback.deadline
        if attempt.callback.seconds:
            found["X-Crony-Heartbeat"] = attempt.callback.seconds
    return found


def traceparent(run: str, attempt: int) -> str:
    """The W3C trace context of a call: one trace for a run, one span for an attempt, the same whenever it is asked."""
    trace = hashlib.sha256(run.encode()).hexdigest()[:32]
    span = hashlib.sha256(f"{run}:{attempt}".encode()).hexdigest()[:16]
    return f"00-{trace}-{span}-01"


def signature(
    secrets: Sequence[str], method: str, target: str, told: Mapping[str, str], body: bytes, *, now: float
) -> dict[str, str]:
    """The headers that sign a call with the first of `secrets`; none without secrets.

    `target`: path and query as sent, `told`: what `headers` gave, `body`: as sent, `now`: epoch seconds.
    """
    if not secrets:
        return {}
    stamp = str(int(now))
    facts = (told.get(f"X-Crony-{name}", "") for name in ("Run", "Attempt", "Fence", "Callback"))
    lines = ("v1", stamp, method.upper(), target, *facts, hashlib.sha256(body).hexdigest())
    mark = hmac.new(secrets[0].encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    return {"X-Crony-Timestamp": stamp, "X-Crony-Signature": f"v1={mark}"}


def lay_out(callback: Callback, folder: Path) -> dict[str, str]:
    """Put the token into `folder` (private to the command's user); the variables that tell a shell command of it.

    The token is in a file because environments can be read by other processes of the user. Raises OSError.
    """
    descriptor = os.open(folder / TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(callback.token.text)
    facts = {
        "CRONY_CALLBACK": callback.url,
        "CRONY_CALLBACK_TOKEN_FILE": str(folder / TOKEN),
        "CRONY_CALLBACK_ACCEPT_FILE": str(folder / ACCEPT),
        "CRONY_CALLBACK_DEADLINE": callback.deadline,
        "CRONY_CALLBACK_HEARTBEAT": callback.seconds,
    }
    return {name: value for name, value in facts.items() if value}
