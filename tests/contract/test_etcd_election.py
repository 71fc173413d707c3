"""One leader at a time, and one that knows when it is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from crony.etcd.client import Client
from crony.etcd.election import Election, Term
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import patient, until


class Candidate:
    """Campaigns in a thread of its own."""

    def __init__(self, client: Client, keys: Keys, name: str, ttl: float = 5) -> None:
        self.election = Election(client, keys, 0, name, ttl)
        self.stop = threading.Event()
        self.term: Term | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.term = self.election.campaign(self.stop)
        except BaseException as error:
            self.error = error

    def elected(self, timeout: float = 10) -> Term:
        return until(lambda: self.term, timeout, f"{self.election.name} leads")

    def end(self) -> None:
        self.stop.set()
        self.thread.join(patient(10))
        assert not self.thread.is_alive(), "the campaign did not end"
        if self.term is not None:
            self.term.resign()


@pytest.fixture
def field() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def stand(field: ExitStack, client: Client, keys: Keys, name: str, ttl: float = 5) -> Candidate:
    candidate = Candidate(client, keys, name, ttl)
    field.callback(candidate.end)
    return candidate


def test_one_leads_and_hands_over(client: Client, keys: Keys, field: ExitStack) -> None:
    first = stand(field, client, keys, "a", 120).elected()
    assert first.believes and 60 < first.left <= 120
    pair = client.get(keys.leader(0))
    assert pair is not None and pair.create == first.revision
    assert Election(client, keys, 0, "x", 5).leader() == "a"
    others = [stand(field, client, keys, name) for name in "bcd"]
    assert client.txn(Txn().when(first.compare()).put(keys.root + "x", b"")).succeeded
    assert all(other.term is None for other in others)
    lost: list[int] = []
    first.on_lost(lambda: lost.append(1))
    first.resign()
    assert not first.believes
    second = until(lambda: next((o.term for o in others if o.term), None), 3, "the next one, long before the TTL")
    assert second.revision > first.revision
    assert not client.txn(Txn().when(first.compare()).put(keys.root + "x", b"")).succeeded
    assert client.txn(Txn().when(second.compare()).put(keys.root + "x", b"")).succeeded
    assert sum(o.term is not None for o in others) == 1
    assert lost == []
    first.resign()


def test_a_key_taken_away_ends_the_term(client: Client, keys: Keys, field: ExitStack) -> None:
    first = stand(field, client, keys, "a").elected()
    lost = threading.Event()
    first.on_lost(lost.set)
    client.delete(keys.leader(0))
    assert lost.wait(patient(3))
    assert not first.believes
    assert "taken away" in first.why
    again = threading.Event()
    first.on_lost(again.set)
    assert again.is_set()
    second = stand(field, client, keys, "a").elected()
    assert second.revision > first.revision


def test_a_cut_leader_steps_down_before_the_next_one_is_elected(
    etcd: EtcdServer, client: Client, keys: Keys, field: ExitStack
) -> None:
    proxy = field.enter_context(Proxy(etcd.endpoint))
    far = field.enter_context(Client([proxy.endpoint], timeout=1))
    ttl = 3.0
    first = stand(field, far, keys, "a", ttl).elected()
    second = stand(field, client, keys, "b", ttl)
    until(lambda: Election(client, keys, 0, "x", ttl).leader() == "a")
    lost: list[bool] = []
    first.on_lost(lambda: lost.append(second.term is None))
    proxy.blackhole("up", "down")
    until(lambda: not first.believes, ttl)
    assert second.term is None
    term = second.elected(ttl + 2)
    until(lambda: lost == [True], 2)
    assert term.believes
    proxy.heal()
    assert not first.believes


def test_a_lost_answer_to_the_create(etcd: EtcdServer, client: Client, keys: Keys, field: ExitStack) -> None:
    proxy = field.enter_context(Proxy(etcd.endpoint))
    far = field.enter_context(Client([proxy.endpoint], timeout=2))
    far.txn(Txn().get(keys.root))
    proxy.lose_answer(b"/v3/kv/txn")
    term = stand(field, far, keys, "a").elected(3)
    assert proxy.lost == 1
    pair = client.get(keys.leader(0))
    assert pair is not None and pair.create == term.revision and pair.version == 1
    assert term.believes


def test_an_outage_while_campaigning_and_leading(own_etcd: EtcdServer, keys: Keys, field: ExitStack) -> None:
    client = field.enter_context(Client([own_etcd.endpoint], timeout=0.5))
    own_etcd.stop()
    candidate = stand(field, client, keys, "a", 2)
    until(lambda: client.cluster.endpoints[0].failures > 2)
    own_etcd.start()
    term = candidate.elected(5)
    lost = threading.Event()
    term.on_lost(lost.set)
    own_etcd.pause()
    assert lost.wait(patient(4))
    assert not term.believes
    own_etcd.resume()
    assert stand(field, client, keys, "b", 2).elected(8).believes


def test_stop_ends_the_campaign(client: Client, keys: Keys, field: ExitStack) -> None:
    first = stand(field, client, keys, "a").elected()
    second = stand(field, client, keys, "b")
    second.stop.set()
    second.thread.join(patient(2))
    assert not second.thread.is_alive()
    assert second.term is None and second.error is None
    assert first.believes
