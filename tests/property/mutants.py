"""Broken builds of the transport: each takes away one thing that the protocol rests on, in the real code at run time.

Most strip a compare from the transactions as they leave, recognised by what they write; so they keep working however
the code that builds them is arranged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.txn import Compare, Txn, TxnResult
from crony.transport_etcd import reader
from crony.transport_etcd.channel import Channel
from crony.transport_etcd.receipts import Receipts


def _is(kind: str, key: str) -> bool:
    return f"/{kind}/" in key and "/q/" in key


def _all(txn: Txn) -> Iterator[Txn]:
    yield txn
    for nested in txn._nested:
        yield from _all(nested)


def _strip(txn: Txn, away: Callable[[Compare], bool]) -> None:
    txn.compares[:] = [compare for compare in txn.compares if not away(compare)]


def _puts(txn: Txn, kind: str) -> bool:
    return any(_is(kind, key) for key in txn._puts)


def _claims(txn: Txn) -> bool:
    """It puts a claim, comparing the message: a claim, not the release of one."""
    return _puts(txn, "c") and any(_is("m", compare.key) for compare in txn.compares)


def claim_without_compare(txn: Txn) -> None:
    """Whoever asks gets the claim."""
    if _claims(txn):
        _strip(txn, lambda compare: _is("c", compare.key))


def claim_without_message(txn: Txn) -> None:
    """A claim is made whether the message is still there or not."""
    if _claims(txn):
        _strip(txn, lambda compare: _is("m", compare.key) or _is("c", compare.key))


def settle_without_fence(txn: Txn) -> None:
    """An ack deletes message and claim, whoever holds them by now."""
    if any(_is("m", key) for key in txn._deletes) and not any(_is("m", compare.key) for compare in txn.compares):
        _strip(txn, lambda compare: _is("c", compare.key))


def requeue_without_fence(txn: Txn) -> None:
    """Giving back frees the claim, whoever holds it by now."""
    if _puts(txn, "c") and not _claims(txn):
        _strip(txn, lambda compare: _is("c", compare.key))


def takeover_without_session(txn: Txn) -> None:
    """A holder that is thought to be dead is not asked for its session."""
    if _claims(txn):
        _strip(txn, lambda compare: "/session/" in compare.key and compare.number == 0 and compare.result == "=")


STRIPPED: dict[str, Callable[[Txn], None]] = {
    mutant.__name__: mutant
    for mutant in (
        claim_without_compare,
        claim_without_message,
        settle_without_fence,
        requeue_without_fence,
        takeover_without_session,
    )
}


@contextlib.contextmanager
def stripped(mutant: Callable[[Txn], None]) -> Iterator[None]:
    """Every client of this process sends transactions without what the mutant takes away."""
    real = Client.txn

    def txn(self: Client, sent: Txn, **options: Any) -> TxnResult:
        for each in _all(sent):
            mutant(each)
        return real(self, sent, **options)

    Client.txn = txn  # type: ignore[method-assign]
    try:
        yield
    finally:
        Client.txn = real  # type: ignore[method-assign]


@contextlib.contextmanager
def _publishing(*, create_only: bool) -> Iterator[None]:
    """A publish whose answer is lost is simply sent once more."""

    def send(self: Receipts, stamp: Any, contents: Callable[[], Txn], *, timeout: float | None = None) -> bool:
        for last in (False, True):
            txn = contents()
            if not create_only:
                _strip(txn, lambda compare: _is("m", compare.key))
            try:
                return self._client.txn(txn, timeout=timeout).succeeded
            except EtcdUnknown:
                if last:
                    raise
        return False

    real = Receipts.send
    Receipts.send = send  # type: ignore[method-assign]
    try:
        yield
    finally:
        Receipts.send = real  # type: ignore[method-assign]


def publish_not_create_only() -> contextlib.AbstractContextManager[None]:
    """A publish that is repeated puts again."""
    return _publishing(create_only=False)


def publish_without_receipt() -> contextlib.AbstractContextManager[None]:
    """A publish that is repeated puts again what was dealt with meanwhile."""
    return _publishing(create_only=True)


@contextlib.contextmanager
def requeue_through_the_exchange() -> Iterator[None]:
    """What is given back is published anew, as Kombu's own emulation does."""
    real = Channel.basic_reject

    def basic_reject(self: Channel, delivery_tag: str, requeue: bool = False) -> None:
        for delivery in self.qos.outstanding():
            if requeue and delivery.tag == delivery_tag:
                info = delivery.message["properties"]["delivery_info"]
                self.link.publisher.publish(delivery.message, info["exchange"], info["routing_key"])
        real(self, delivery_tag, requeue=False)

    Channel.basic_reject = basic_reject  # type: ignore[method-assign]
    try:
        yield
    finally:
        Channel.basic_reject = real  # type: ignore[method-assign]


@contextlib.contextmanager
def broadcasts_from_now() -> Iterator[None]:
    """A subscriber listens from the moment it consumes, not from its binding."""
    real = reader.BroadcastReader.__init__

    def init(self: Any, link: Any, queue: str, exchange: str, since: int, deliver: Any) -> None:
        now = link.client.range(link.keys.root, count_only=True).revision
        real(self, link, queue, exchange, now, deliver)

    reader.BroadcastReader.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        reader.BroadcastReader.__init__ = real  # type: ignore[method-assign]


REPLACED: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "publish_not_create_only": publish_not_create_only,
    "publish_without_receipt": publish_without_receipt,
    "requeue_through_the_exchange": requeue_through_the_exchange,
    "broadcasts_from_now": broadcasts_from_now,
}


def broken(name: str) -> contextlib.AbstractContextManager[None]:
    """A build broken in the way of that name."""
    return REPLACED[name]() if name in REPLACED else stripped(STRIPPED[name])


MUTANTS = (*STRIPPED, *REPLACED)
