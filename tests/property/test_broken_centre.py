"""The run life with one compare taken away: the race that needs it breaks an invariant, and the judge names it.

Stripped from the real transactions as they leave, recognised by what they write; the same races leave the intact code
without a finding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, exists, mod
from crony.transport_etcd import link, settler
from tests.helpers.etcd import EtcdServer
from tests.property import races
from tests.property.judge import report, rules
from tests.property.mutants import stripped
from tests.property.races import RACES, Board


@pytest.fixture
def board(etcd: EtcdServer, keys: Keys) -> Iterator[Board]:
    board = Board(etcd.endpoint, keys)
    yield board
    board.close()
    link.shut()


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_the_intact_code_stands(board: Board, race: Callable[[Board], None]) -> None:
    race(board)
    findings = board.findings()
    assert not findings, report(findings)


def _part(key: str, name: str) -> bool:
    return f"/{name}/" in key


def _puts(txn: Txn, name: str) -> bool:
    return any(_part(key, name) for key in txn._puts)


def _deletes(txn: Txn, name: str) -> bool:
    return any(_part(key, name) for key in txn._deletes)


def _drop(txn: Txn, *names: str) -> None:
    txn.compares[:] = [compare for compare in txn.compares if not any(_part(compare.key, name) for name in names)]


def fire_without_job(txn: Txn) -> None:
    if _puts(txn, "done") and _puts(txn, "m"):
        _drop(txn, "job")


def fire_without_done(txn: Txn) -> None:
    if _puts(txn, "done") and _puts(txn, "m"):
        _drop(txn, "done")


def dispatch_without_session(txn: Txn) -> None:
    if _puts(txn, "m"):
        _drop(txn, "session")


def admit_without_request(txn: Txn) -> None:
    if _deletes(txn, "in"):
        _drop(txn, "in")


def release_without_wait(txn: Txn) -> None:
    if _deletes(txn, "wait"):
        _drop(txn, "wait")


def _ends(txn: Txn) -> bool:
    return _puts(txn, "out") and _deletes(txn, "c") and len(txn.compares) == 1


def end_by_holder(txn: Txn) -> None:
    """Somebody holds it, so it may be ended: the incarnation is the same, only the fence differs."""
    if _ends(txn):
        txn.compares[:] = [exists(compare.key) for compare in txn.compares]


def end_create_only(txn: Txn) -> None:
    """The first outcome wins, by the absence of another."""
    if _ends(txn):
        txn.compares[:] = [mod(key, 0) for key in txn._puts if _part(key, "out")]


def takeover_without_session(txn: Txn) -> None:
    if _puts(txn, "out") and _deletes(txn, "c"):
        _drop(txn, "session")


def takeover_without_claim(txn: Txn) -> None:
    if _puts(txn, "out") and _deletes(txn, "c") and any(_part(compare.key, "session") for compare in txn.compares):
        _drop(txn, "c", "m")


def reroute_without_claim(txn: Txn) -> None:
    if _puts(txn, "wait") and _deletes(txn, "m") and not _puts(txn, "out"):
        _drop(txn, "c")


def publish_without_revision(txn: Txn) -> None:
    if _puts(txn, "job"):
        _drop(txn, "job", "name", "done")


@contextlib.contextmanager
def ack_deletes() -> Iterator[None]:
    """A run queue is settled as any other."""
    real = settler.is_run_queue
    settler.is_run_queue = lambda queue: False  # type: ignore[assignment]
    try:
        yield
    finally:
        settler.is_run_queue = real


class Mutant(NamedTuple):
    """What is broken, the race that shows it, and the rule that names it."""

    broken: Callable[[Txn], None] | None
    race: Callable[[Board], None]
    rule: str


MUTANTS = {
    "fire without job": Mutant(
        fire_without_job, races.a_pause_is_saved_before_the_fire_lands, "the document that stands"
    ),
    "fire without done": Mutant(fire_without_done, races.a_fire_is_decided_twice, "one run, one place"),
    "dispatch without session": Mutant(
        dispatch_without_session, races.the_node_is_lost_before_the_fire_lands, "sent to the living"
    ),
    "admit without request": Mutant(admit_without_request, races.a_request_is_admitted_twice, "one run, one place"),
    "release without wait": Mutant(release_without_wait, races.a_waiting_run_is_released_twice, "one run, one place"),
    "end by holder": Mutant(end_by_holder, races.the_child_of_an_earlier_claim_ends_late, "ended by its fence"),
    "end create-only": Mutant(end_create_only, races.an_end_is_repeated_after_the_archive, "an attempt ends once"),
    "ack deletes": Mutant(None, races.celery_acks_a_run, "no run vanishes"),
    "takeover without session": Mutant(
        takeover_without_session, races.the_node_is_back_before_the_takeover_lands, "a holder keeps it"
    ),
    "takeover without claim": Mutant(
        takeover_without_claim, races.the_node_ends_it_before_the_takeover_lands, "an attempt ends once"
    ),
    "reroute without claim": Mutant(
        reroute_without_claim, races.the_node_claims_before_the_reroute_lands, "a holder keeps it"
    ),
    "publish without revision": Mutant(
        publish_without_revision, races.a_slow_web_publishes_after_a_fast_one, "revisions only rise"
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_missing_compare_is_caught(board: Board, name: str) -> None:
    mutant = MUTANTS[name]
    with stripped(mutant.broken) if mutant.broken else ack_deletes():
        mutant.race(board)
    findings = board.findings()
    assert mutant.rule in rules(findings), f"found only: {report(findings) or 'nothing'}"


def test_every_race_has_its_mutant() -> None:
    assert {mutant.race for mutant in MUTANTS.values()} == set(RACES)
