"""Broken builds of real processes: each takes one thing away that the protocol rests on, in whoever imports this first.

Compares are stripped from the transactions as they leave, recognised by what they write, so that a mutant keeps
working however the code that builds them is arranged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from crony.etcd.client import Client
from crony.etcd.txn import Txn, TxnResult, exists, mod

Mutant = Callable[[], None]
MUTANTS: dict[str, Mutant] = {}


def mutant(function: Mutant) -> Mutant:
    """Register it by its name."""
    MUTANTS[function.__name__] = function
    return function


def _stripped(mutate: Callable[[Txn], None]) -> None:
    """From now on every client of this process and its children sends transactions as `mutate` leaves them."""
    real = Client.txn

    def txn(self: Client, sent: Txn, **options: Any) -> TxnResult:
        for each in _all(sent):
            mutate(each)
        return real(self, sent, **options)

    Client.txn = txn  # type: ignore[method-assign]


def _all(txn: Txn) -> Iterator[Txn]:
    yield txn
    for nested in txn._nested:
        yield from _all(nested)


def _puts(txn: Txn, name: str) -> bool:
    return any(f"/{name}/" in key for key in txn._puts)


def _drop(txn: Txn, *names: str) -> None:
    txn.compares[:] = [each for each in txn.compares if not any(f"/{name}/" in each.key for name in names)]


def _ends(txn: Txn) -> bool:
    deletes_claim = any("/c/" in key for key in txn._deletes)
    return _puts(txn, "out") and deletes_claim and len(txn.compares) == 1


def _outcome(txn: Txn) -> tuple[str, dict[str, Any]]:
    """The key of the outcome that a transaction puts, and what it says."""
    found = next(part for part in txn._parts if hasattr(part, "value") and "/run/out/" in part.key)
    return found.key, json.loads(found.value)  # type: ignore[union-attr]


@mutant
def no_job_compare() -> None:
    """A fire is dispatched though its job was saved meanwhile."""

    def mutate(txn: Txn) -> None:
        if _puts(txn, "done") and _puts(txn, "m"):
            _drop(txn, "job")

    _stripped(mutate)


@mutant
def no_done_compare() -> None:
    """A fire is dispatched though its cursor has moved."""

    def mutate(txn: Txn) -> None:
        if _puts(txn, "done") and _puts(txn, "m"):
            _drop(txn, "done")

    _stripped(mutate)


@mutant
def end_by_holder() -> None:
    """An attempt is ended by whoever held it and lives, not by its fence."""

    def mutate(txn: Txn) -> None:
        if _ends(txn):
            key, told = _outcome(txn)
            txn.compares[:] = [exists(f"{key.partition('/run/out/')[0]}/session/{told['incarnation']}")]

    _stripped(mutate)


@mutant
def outcome_create_only() -> None:
    """The first outcome wins, by the absence of another one."""

    def mutate(txn: Txn) -> None:
        if _ends(txn):
            txn.compares[:] = [mod(_outcome(txn)[0], 0)]

    _stripped(mutate)


@mutant
def ack_deletes() -> None:
    """A run queue is settled as any other: what Celery acknowledges is gone."""
    from crony.transport_etcd import settler

    settler.is_run_queue = lambda queue: False  # type: ignore[assignment]


@mutant
def publish_without_revision() -> None:
    """A save is published though a later one is."""

    def mutate(txn: Txn) -> None:
        if _puts(txn, "job"):
            _drop(txn, "job", "name", "done")

    _stripped(mutate)


@mutant
def watch_from_now() -> None:
    """A watch that was interrupted goes on with what happens from now on."""
    from crony.etcd.watch import Watcher

    opened: set[int] = set()
    real = Watcher._open

    def open_(self: Watcher, opening: float) -> Any:
        revision = self._revision
        if id(self) in opened:
            self._revision = -1
        opened.add(id(self))
        try:
            return real(self, opening)
        finally:
            self._revision = revision

    Watcher._open = open_  # type: ignore[method-assign]
