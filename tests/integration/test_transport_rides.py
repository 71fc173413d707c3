"""Acks that travel with claims: settled once whatever becomes of the request, and never held up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown, OuterRefused
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.txn import Txn, TxnResult
from crony.transport_etcd import claims, settler
from crony.transport_etcd.claims import Delivery, Pick
from crony.transport_etcd.message import task_message
from crony.transport_etcd.queue import Candidate
from crony.transport_etcd.settler import Settler
from tests.helpers.wait import until


class Recorder(Client):
    """A client that remembers its transactions, and may lose an answer after the deed."""

    def __init__(self, *args: str) -> None:
        super().__init__(list(args))
        self.sent: list[Txn] = []
        self.lose_next = False

    def txn(self, txn: Txn, **options: object) -> TxnResult:
        self.sent.append(txn)
        result = super().txn(txn)
        if self.lose_next:
            self.lose_next = False
            raise EtcdUnknown("the answer is lost")
        return result


@pytest.fixture
def recorder(etcd: object) -> Iterator[Recorder]:
    with Recorder(etcd.endpoint) as recorder:  # type: ignore[attr-defined]
        yield recorder


@pytest.fixture
def session(client: Client, keys: Keys) -> Iterator[Session]:
    session = Session(client, keys, ttl=10)
    session.start()
    yield session
    session.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "_RIDES_FOR", 60.0)
    monkeypatch.setattr(settler, "_RIDE_WAIT", 30.0)


def pick(client: Client, keys: Keys, number: int) -> Pick:
    place = f"9{number:016x}.e"
    value = task_message("t", str(number), (), {})
    return Pick("jobs", Candidate(place, client.put(keys.message("jobs", place), value), 0, 0, "", value))


def claimed(client: Client, keys: Keys, session: Session, number: int) -> Delivery:
    (found,) = claims.claim(client, keys, session.incarnation, [pick(client, keys, number)])
    assert found is not None
    return found


def waiting(client: Client, keys: Keys, session: Session) -> tuple[Settler, Delivery]:
    """A settler with one ack that waits for a ride."""
    made, delivery = Settler(client, keys), claimed(client, keys, session, 1)
    assert made.ride(10, set()) is None  # claims are being made: acks wait
    made.ack(delivery)
    return made, delivery


def gone(client: Client, keys: Keys, delivery: Delivery) -> bool:
    found = [client.get(key(delivery.queue, delivery.place)) for key in (keys.message, keys.claim)]
    assert (found[0] is None) == (found[1] is None)
    return found[0] is None


def test_one_request_for_both(recorder: Recorder, keys: Keys, session: Session) -> None:
    made, delivery = waiting(recorder, keys, session)
    settled: list[int] = []
    delivery.after = settled.append
    new = pick(recorder, keys, 2)
    recorder.sent.clear()
    ride = made.ride(10, set())
    (found,) = claims.claim(recorder, keys, session.incarnation, [new], ride)
    assert found is not None and settled == [found.fence]
    assert len(recorder.sent) == 1
    assert gone(recorder, keys, delivery) and not gone(recorder, keys, found)
    assert made.flush(5) and made.waiting == 0 and made.stale == 0
    made.close(1)


def test_an_ack_too_late_rides_in_vain(recorder: Recorder, keys: Keys, session: Session) -> None:
    made, delivery = waiting(recorder, keys, session)
    recorder.put(keys.claim("jobs", delivery.place), claims.claim_value("somebody", 2))
    (found,) = claims.claim(recorder, keys, session.incarnation, [pick(recorder, keys, 2)], made.ride(10, set()))
    assert found is not None and made.stale == 1
    assert recorder.get(keys.message("jobs", delivery.place)) is not None
    made.close(1)


def test_a_refused_request_leaves_the_ack_to_itself(recorder: Recorder, keys: Keys, session: Session) -> None:
    made, delivery = waiting(recorder, keys, session)
    with pytest.raises(OuterRefused):
        claims.claim(recorder, keys, "nobody", [pick(recorder, keys, 2)], made.ride(10, set()))
    assert made.waiting == 1
    assert made.flush(10)
    assert gone(recorder, keys, delivery)
    made.close(1)


def test_a_lost_answer_is_no_stale_ack(recorder: Recorder, keys: Keys, session: Session) -> None:
    made, delivery = waiting(recorder, keys, session)
    new, ride = pick(recorder, keys, 2), made.ride(10, set())
    recorder.lose_next = True
    (found,) = claims.claim(recorder, keys, session.incarnation, [new], ride)
    assert found is not None
    assert made.flush(10) and made.stale == 0
    assert gone(recorder, keys, delivery)
    made.close(1)


def test_it_is_not_taken_along_by_its_own_key(recorder: Recorder, keys: Keys, session: Session) -> None:
    made, delivery = waiting(recorder, keys, session)
    assert made.ride(10, {keys.claim("jobs", delivery.place)}) is None
    assert made.flush(10) and gone(recorder, keys, delivery)
    made.close(1)


def test_it_waits_for_a_moment_only(
    recorder: Recorder, keys: Keys, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler, "_RIDE_WAIT", 0.01)
    began = time.monotonic()
    made, delivery = waiting(recorder, keys, session)
    until(lambda: gone_or_not(recorder, keys, delivery), 20)
    assert time.monotonic() - began < 15
    made.close(1)


def gone_or_not(client: Client, keys: Keys, delivery: Delivery) -> bool:
    return client.get(keys.message(delivery.queue, delivery.place)) is None
