"""Holds on messages (PROTOCOL 8, 19): many claims travel in one request, each with its own compares.

A claim is permanent and names this process's incarnation; its fence is the revision that made it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from crony.domain.run import Claim
from crony.errors import CronyError, Unavailable
from crony.etcd.client import Client
from crony.etcd.errors import OuterRefused
from crony.etcd.keys import Keys, is_run_queue
from crony.etcd.txn import PUBLISH_BYTES, Txn, TxnResult, exists, mod, version
from crony.transport_etcd import hooks, letters
from crony.transport_etcd.errors import is_transient
from crony.transport_etcd.message import Undecodable, decode
from crony.transport_etcd.queue import Candidate

log = logging.getLogger("crony.transport")

CLAIMS_PER_REQUEST = 60
_CLAIM = {name: value for name, value in Claim(incarnation="").payload().items() if value != ""}
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(slots=True, eq=False)
class Delivery:
    """One message in our hands: where it lies, the fence of our claim (0: taken without one), what it says."""

    queue: str
    place: str
    fence: int
    count: int
    incarnation: str
    message: dict[str, Any]
    value: bytes
    """The stored bytes; empty unless the queue is a run queue."""
    tag: str = ""
    """Delivery tag; empty until it is handed over, and again when it is given back unseen."""

    after: Callable[[int], None] | None = None
    """Called once when it is settled, with the revision; 0: it was not ours any more."""

    @property
    def own_tag(self) -> str:
        """A delivery tag that nothing else has. With the queue: copies of one publish have the same place in each of
        them, and may be claimed by one request."""
        return f"{self.queue}/{self.place}@{self.fence}"

    @property
    def facts(self) -> dict[str, Any]:
        """What the task sees as `request.properties["crony"]`."""
        return {
            "queue": self.queue,
            "place": self.place,
            "fence": self.fence,
            "incarnation": self.incarnation,
            "count": self.count,
        }


class Ride(Protocol):
    """Acks that travel with a request for claims. Exactly one of the two methods is called, once."""

    txns: list[Txn]

    def arrived(self, results: Sequence[TxnResult], revision: int) -> None:
        """The request was carried out: the result of each."""

    def returned(self, *, in_doubt: bool) -> None:
        """The request was not carried out, or (`in_doubt`) nobody knows."""


class Pick(NamedTuple):
    """A candidate of a queue, chosen to be claimed or taken."""

    queue: str
    candidate: Candidate


def claim_value(incarnation: str, count: int) -> bytes:
    """The stored claim; an empty incarnation is a released one."""
    record = {**_CLAIM, "incarnation": incarnation, "count": count, "node": hooks.node, "at": round(time.time(), 3)}
    return _dumps(record).encode()


def claim(
    client: Client, keys: Keys, incarnation: str, picks: Sequence[Pick], ride: Ride | None = None
) -> list[Delivery | None]:
    """Claim what was picked (transaction 8), at most 60 at once; None where somebody was faster.

    `ride`: acks that travel in the same request; they are told what became of them in any case.
    A lost answer is looked up until etcd tells: then the claim is ours, or can never become so. Raises `OuterRefused`
    when our own session is gone, and what the client raises when the request was certainly not carried out.
    """
    txn = Txn().when(exists(keys.session(incarnation)))
    values: dict[int, bytes] = {}
    for pick in picks:
        queue, seen = pick
        count = seen.deliveries + 1
        value = values.get(count)
        if value is None:
            value = values[count] = claim_value(incarnation, count)
        each = _guarded(keys, pick).put(keys.claim(queue, seen.place), value)
        if seen.value is None:
            each.get(keys.message(queue, seen.place))
        txn.nest(each)
    for each in ride.txns if ride is not None else ():
        txn.nest(each)
    try:
        result = client.txn(txn)
    except CronyError as error:
        # Unavailable: nothing was carried out, not sent or refused for want of space.
        doubt = not isinstance(error, Unavailable) and _in_doubt(error)
        if ride is not None:
            ride.returned(in_doubt=doubt)
        if not doubt:
            raise
        return [_look_up(client, keys, incarnation, pick) for pick in picks]
    except BaseException:
        if ride is not None:
            ride.returned(in_doubt=True)
        raise
    if not result.succeeded:
        if ride is not None:
            ride.returned(in_doubt=False)
        raise OuterRefused("our session is gone", hint="nothing was claimed")
    if ride is not None:
        ride.arrived(result.responses[len(picks) :], result.revision)
    found: list[Delivery | None] = []
    for pick, nested in zip(picks, result.responses[: len(picks)], strict=True):
        value = pick.candidate.value
        if nested.succeeded and value is None:
            value = nested.responses[1][0].value if nested.responses[1] else None
        if not nested.succeeded or value is None:
            found.append(None)
            continue
        found.append(_delivery(client, keys, pick, result.revision, incarnation, value))
    return found


def take(client: Client, keys: Keys, picks: Sequence[Pick]) -> list[Delivery | None]:
    """Remove what was picked and keep it (consumers without acknowledgement); None where somebody was faster."""
    txn = Txn()
    for queue, seen in picks:
        key, held = keys.message(queue, seen.place), keys.claim(queue, seen.place)
        each = Txn().when(mod(key, seen.mod), mod(held, seen.claim)).get(key).delete(key)
        txn.nest(each.delete(held) if seen.claim else each)  # a claim that was given back goes with its message
    result = client.txn(txn)
    found: list[Delivery | None] = []
    for pick, nested in zip(picks, result.responses, strict=True):
        if not nested.succeeded or not nested.responses[0]:
            found.append(None)
            continue
        value = nested.responses[0][0].value
        try:
            found.append(_deliver(pick, 0, "", value))
        except Undecodable as error:
            log.error("a message in queue %s was dropped: %s", pick.queue, error)
            found.append(None)
    return found


def _in_doubt(error: CronyError) -> bool:
    # An answer too large for the gateway comes after the deed.
    return is_transient(error) or "larger than max" in error.what


def _look_up(client: Client, keys: Keys, incarnation: str, pick: Pick) -> Delivery | None:
    """Whether a claim whose answer was lost is ours; if it is not, it never will be.

    The request may still be on its way. A claim that it makes after we have looked would name us and nobody would
    know of it. So looking changes what the request compares with: as long as nobody has claimed the message, it gets
    a released claim, with its count, and the watch makes it ready again.
    """
    queue, seen = pick
    claim_key, message_key = keys.claim(queue, seen.place), keys.message(queue, seen.place)
    txn = _guarded(keys, pick).put(claim_key, claim_value("", seen.deliveries))
    txn.otherwise.get(claim_key).get(message_key)
    pause = 0.05
    while True:
        try:
            result = client.txn(txn)
            break
        except CronyError as error:
            if not is_transient(error):
                raise
            time.sleep(pause)
            pause = min(1.0, pause * 2)
    held, message = (None, None) if result.succeeded else (next(iter(found), None) for found in result.responses)
    if held is None or message is None or held.mod <= seen.claim or Claim.read(held.value).incarnation != incarnation:
        return None
    return _delivery(client, keys, pick, held.mod, incarnation, message.value)


def _guarded(keys: Keys, pick: Pick) -> Txn:
    """A transaction that is carried out only while the message is as it was seen."""
    queue, seen = pick
    txn = Txn().when(mod(keys.message(queue, seen.place), seen.mod), mod(keys.claim(queue, seen.place), seen.claim))
    return txn.when(version(keys.session(seen.holder), 0)) if seen.holder else txn


def _delivery(client: Client, keys: Keys, pick: Pick, fence: int, incarnation: str, value: bytes) -> Delivery | None:
    try:
        return _deliver(pick, fence, incarnation, value)
    except Undecodable as error:
        quarantine(client, keys, pick.queue, pick.candidate, fence, value, str(error))
        return None


def _deliver(pick: Pick, fence: int, incarnation: str, value: bytes) -> Delivery:
    queue, seen = pick
    return Delivery(
        queue, seen.place, fence, seen.deliveries + 1, incarnation, decode(value), value if is_run_queue(queue) else b""
    )


def quarantine(client: Client, keys: Keys, queue: str, seen: Candidate, fence: int, value: bytes, why: str) -> None:
    """Move an unreadable message of ours out of the way (transaction 19)."""
    message, held = keys.message(queue, seen.place), keys.claim(queue, seen.place)
    try:
        client.txn(
            Txn(max_bytes=PUBLISH_BYTES)
            .when(mod(message, seen.mod), mod(held, fence))
            .delete(message)
            .delete(held)
            .put(*letters.unreadable(keys, queue, seen.place, value, seen.deliveries + 1, why))
        )
    except CronyError as error:
        log.error("an unreadable message in queue %s could not be quarantined: %s", queue, error)
    else:
        log.error("an unreadable message in queue %s was moved to dead/: %s", queue, why)


__all__ = ["CLAIMS_PER_REQUEST", "Delivery", "Pick", "Ride", "claim", "claim_value", "quarantine", "take"]
