"""Transaction 12, complete: the callee says how it went, through any web.

Compared: the accepted record's revision, or, when the call has not been answered yet, the claim's (the fence in the
token). Whoever ends an attempt removes the very record that it compares, so one end comes through and the others find
it. A report that was stored before gets the same answer; any other is told what stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from crony.domain.callback import Report, Token, kept, line
from crony.domain.outcome import Kind, Outcome
from crony.domain.run import Envelope
from crony.domain.signing import peek
from crony.errors import Conflict, Unavailable, Unknown
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle import end
from crony.lifecycle.slots import slots_of
from crony.lifecycle.standing import Archive, InCall, Over, Waits, find, latest_attempt

TRIES = 10
"""Each refusal means that something else about the attempt has happened: there is little of that."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a callee is told: `state` is running or ended, `outcome` empty while it runs, `cancel`: stop working."""

    state: str
    outcome: str = ""
    cancel: bool = False


class Contradicted(Conflict):
    """The attempt has ended otherwise. `outcome` stands; `attempt` is the run's latest."""

    def __init__(self, outcome: str, attempt: int) -> None:
        super().__init__(
            f"The attempt has ended as {outcome}",
            why="what stands is not changed any more",
            hint="stop working on it" if outcome != Kind.SUCCEEDED else "",
        )
        self.outcome, self.attempt = outcome, attempt

    @property
    def members(self) -> dict[str, Any]:
        """What the problem document says beside the usual."""
        return {"outcome": self.outcome, "attempt": self.attempt}


def complete(
    client: Client,
    keys: Keys,
    run: str,
    attempt: int,
    token: Token,
    report: Report,
    *,
    archive: Archive = lambda: None,
    hide: Callable[[Envelope, Report], Report] = lambda told, report: report,
) -> Told:
    """End the attempt as its callee reports, once. `hide`: what is kept of the report.

    Raises `Contradicted`, `NotTheirs`, `NotFound`, or `Unavailable` and `Unknown`: then call again with the same words.
    """
    unsure: Unknown | None = None
    for _ in range(TRIES):
        found = find(client, keys, run, attempt, token, archive=archive)
        if isinstance(found, Over):
            if found.report == report.digest:
                return Told("ended", found.outcome)
            raise Contradicted(found.outcome, max(attempt, latest_attempt(client, keys, run)))
        outcome = _outcome(found, token, report, hide(envelope(found), report), client.now())
        try:
            if client.txn(transaction(keys, token, found, outcome)).succeeded:
                return Told("ended", outcome.kind)
        except Unknown as error:
            unsure = error  # it may have happened, or happen yet: the next look tells, and only one of them can
    raise unsure or Unavailable("The attempt changes all the time", hint="try again")


def transaction(keys: Keys, token: Token, found: Waits | InCall, outcome: Outcome) -> Txn:
    """The end of the attempt as one transaction."""
    if isinstance(found, InCall):
        return end.transaction(keys, found.told, found.sealed, token.place, token.fence, outcome)
    run, sealed = outcome.run, found.record.envelope
    txn = Txn().when(mod(keys.run_acc(run), found.seen)).delete(keys.run_acc(run)).delete(keys.run_beat(run))
    txn.put(keys.out(run, outcome.attempt), outcome.encode())
    told = envelope(found)
    for slot in slots_of(keys, told):
        txn.delete(slot)
    if not outcome.final:
        txn.put(keys.run_wait(run), end.parked(told, sealed, outcome).encode())
    elif outcome.node:
        txn.delete(keys.cmd(outcome.node, run))
    return txn


def _outcome(found: Waits | InCall, token: Token, report: Report, shown: Report, now: float) -> Outcome:
    told, kind = envelope(found), Kind.SUCCEEDED if report.succeeded else Kind.FAILED
    if isinstance(found, Waits):
        holder, started_at = (found.record.node, found.record.incarnation), found.record.started_at
        secret = found.record.secret
    else:
        holder, started_at = (found.claim.node, found.claim.incarnation), found.claim.at or None
        secret = found.claim.secret
    outcome = end.outcome_of(
        told,
        kind,
        ended_at=max(now, started_at or 0.0),
        fence=token.fence,
        reason=line(shown.reason) or "",
        code=report.code,
        result=kept(shown.result),
        node=holder[0],
        incarnation=holder[1],
        started_at=started_at,
        secret=secret,
        report=report.digest,
    )
    return replace(outcome, final=outcome.final or report.final)


def envelope(found: Waits | InCall) -> Envelope:
    """What the attempt was told, for its facts only: the seal is not checked."""
    return found.told if isinstance(found, InCall) else Envelope.read(peek(found.record.envelope))
