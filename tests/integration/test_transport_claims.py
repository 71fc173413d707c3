"""Claims whose answer is lost: whenever the request is carried out, nobody holds what nobody delivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest

from crony.domain.run import Claim
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.txn import Txn, TxnResult
from crony.transport_etcd import claims, hooks, link, pump
from crony.transport_etcd.claims import Delivery, Pick
from crony.transport_etcd.message import task_message
from crony.transport_etcd.queue import Candidate
from crony.transport_etcd.reader import QueueReader
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import connected, drained, put

QUEUES = ["jobs", "run.n1"]
JOBS = kombu.Queue("jobs", routing_key="jobs")


class Lossy(Client):
    """A client of a real etcd whose next answers are lost: before the request arrives (it may, later), or after."""

    losses: list[str]
    on_its_way: Txn | None = None
    wanted: Callable[[Txn], bool] = staticmethod(lambda txn: True)

    def txn(self, txn: Txn, **options: Any) -> TxnResult:
        """As always, unless its answer is to be lost."""
        if not self.losses or not self.wanted(txn):
            return super().txn(txn, **options)
        if self.losses.pop(0) == "late":
            self.on_its_way = txn
        else:
            super().txn(txn, **options)
        raise EtcdUnknown("the answer is lost")

    def arrive(self) -> TxnResult:
        """The late request is carried out."""
        assert self.on_its_way is not None
        return super().txn(self.on_its_way)


@pytest.fixture
def lossy(etcd: EtcdServer) -> Iterator[Lossy]:
    with Lossy([etcd.endpoint]) as lossy:
        lossy.losses = []
        yield lossy


@pytest.fixture
def session(client: Client, keys: Keys) -> Iterator[Session]:
    session = Session(client, keys, ttl=10)
    session.start()
    yield session
    session.close()


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


PLACE = "90000000000000001.r1"


def message(client: Client, keys: Keys, queue: str) -> Pick:
    revision = client.put(keys.message(queue, PLACE), task_message("crony.run", "r1:1", ["sealed"], {}))
    return Pick(queue, Candidate(PLACE, revision, 0, 0, "", None))


def held(client: Client, keys: Keys, pick: Pick, holder: str, count: int) -> Pick:
    """The same message, seen with a claim."""
    revision = client.put(keys.claim(pick.queue, PLACE), Claim(incarnation=holder, count=count).encode())
    return Pick(pick.queue, pick.candidate._replace(claim=revision, deliveries=count, holder=holder))


def claim(client: Client, keys: Keys, session: Session, pick: Pick) -> Delivery | None:
    (found,) = claims.claim(client, keys, session.incarnation, [pick])
    return found


def stored(client: Client, keys: Keys, pick: Pick) -> tuple[str, int]:
    found = client.get(keys.claim(pick.queue, PLACE))
    assert found is not None
    record = Claim.read(found.value)
    return record.incarnation, record.count


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("released", [False, True])
def test_a_claim_that_lands_after_its_look_up_is_refused(
    client: Client, lossy: Lossy, keys: Keys, session: Session, queue: str, released: bool
) -> None:
    pick, count = message(client, keys, queue), 0
    if released:
        pick, count = held(client, keys, pick, "", 3), 3
    lossy.losses = ["late"]
    assert claim(lossy, keys, session, pick) is None
    lossy.arrive()
    assert stored(client, keys, pick) == ("", count)
    now = client.get(keys.claim(queue, PLACE))
    assert now is not None
    again = claim(client, keys, session, Pick(queue, pick.candidate._replace(claim=now.mod)))
    assert again is not None and again.count == count + 1


@pytest.mark.parametrize("queue", QUEUES)
def test_a_claim_that_landed_is_delivered(
    client: Client, lossy: Lossy, keys: Keys, session: Session, queue: str
) -> None:
    pick = message(client, keys, queue)
    lossy.losses = ["done"]
    found = claim(lossy, keys, session, pick)
    now = client.get(keys.claim(queue, PLACE))
    assert found is not None and now is not None and (found.fence, found.count) == (now.mod, 1)
    assert stored(client, keys, pick) == (session.incarnation, 1)


@pytest.mark.parametrize("second", ["done", "late"])
def test_the_look_up_itself_may_lose_its_answer(
    client: Client, lossy: Lossy, keys: Keys, session: Session, second: str
) -> None:
    pick = message(client, keys, "jobs")
    lossy.losses = ["late", second]
    assert claim(lossy, keys, session, pick) is None
    assert stored(client, keys, pick) == ("", 0)
    before = client.get(keys.claim("jobs", PLACE))
    lossy.arrive()
    assert client.get(keys.claim("jobs", PLACE)) == before


def test_somebody_elses_claim_is_left_alone(client: Client, lossy: Lossy, keys: Keys, session: Session) -> None:
    pick = message(client, keys, "jobs")
    held(client, keys, pick, "somebody", 1)
    lossy.losses = ["late"]
    assert claim(lossy, keys, session, pick) is None
    lossy.arrive()
    assert stored(client, keys, pick) == ("somebody", 1)


@pytest.mark.parametrize("back", [False, True])
def test_a_takeover_that_lands_late(client: Client, lossy: Lossy, keys: Keys, session: Session, back: bool) -> None:
    pick = held(client, keys, message(client, keys, "jobs"), "dead", 2)
    if back:
        client.put(keys.session("dead"), b"{}")
    lossy.losses = ["late"]
    assert claim(lossy, keys, session, pick) is None
    lossy.arrive()
    assert stored(client, keys, pick) == ("dead" if back else "", 2)


def test_a_consumer_gets_a_message_whose_first_claim_is_late(
    etcd: EtcdServer, keys: Keys, lossy: Lossy, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(etcd, keys) as connection, connected(etcd, keys) as other:
        monkeypatch.setattr(connection.default_channel.link, "client", lossy)
        got: list[Any] = []
        connection.Consumer([JOBS], on_message=got.append, prefetch_count=5).consume()
        session = connection.default_channel.link.session(5)
        lossy.wanted = staticmethod(lambda txn: session.incarnation in txn.encode().decode() or bool(txn._nested))  # type: ignore[method-assign]
        lossy.losses = ["late"]
        put(other, "jobs", "a")
        drained(connection, got, 1)
        lossy.arrive()
        (kept,) = client.list(keys.claims("jobs")).kvs
        assert kept.mod == got[0].properties["crony"]["fence"] and got[0].properties["crony"]["count"] == 1


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection


def test_what_a_pool_still_has_takes_its_slots_on_the_next_connection(
    etcd: EtcdServer, keys: Keys, client: Client, connection: kombu.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "node", "n1")
    put(connection, "jobs", *range(6))
    running: list[Any] = []
    connection.Consumer([JOBS], on_message=running.append, prefetch_count=3).consume()
    drained(connection, running, 3)
    running.pop().ack()
    tags = {each.delivery_tag for each in running}
    monkeypatch.setattr(hooks, "in_pool", lambda: tags)
    connection.release()
    monkeypatch.setattr(pump, "_TICK", 600.0)  # nothing comes by looking again now and then
    with connected(etcd, keys) as again:
        got: list[Any] = []
        again.Consumer([JOBS], on_message=got.append, prefetch_count=3).consume()
        drained(again, got, 1)
        with pytest.raises(TimeoutError):
            again.drain_events(timeout=0.3)
        assert len(got) == 1
        running[0].ack()
        drained(again, got, 2)
        got[0].ack()
        drained(again, got, 3)


def test_refused_takeovers_are_not_tried_in_a_busy_loop(
    client: Client, keys: Keys, connection: kombu.Connection, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(connection, "jobs", "a")
    (place,) = (kv.key.rsplit("/", 1)[1] for kv in client.list(keys.messages("jobs")).kvs)
    client.put(keys.claim("jobs", place), Claim(incarnation=session.incarnation, count=1).encode())
    shared = connection.default_channel.link
    monkeypatch.setattr(shared.sessions, "dead", lambda holders: (set(holders), False))  # so we think, wrongly
    tried: list[Any] = []
    real = claims.claim
    monkeypatch.setattr(claims, "claim", lambda *told: (tried.append(told), real(*told))[1])
    got: list[Any] = []
    connection.Consumer([JOBS], on_message=got.append, prefetch_count=3).consume()
    until(lambda: tried, what="it is tried")
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.6)
    assert not got and len(tried) < 10


def test_an_older_listing_does_not_replace_a_newer_one(
    client: Client, keys: Keys, connection: kombu.Connection
) -> None:
    put(connection, "jobs", "a")
    reader = QueueReader(connection.default_channel.link, "jobs", lambda: None)
    older = reader._page(keys.messages("jobs"), 0)
    put(connection, "jobs", "b")
    reader._load()
    reader._fill(older)
    assert len(reader.take(5)) == 2
