"""A session is alive, or knows that it is not before etcd does; it comes back by itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnavailable, EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.etcd.txn import Txn, absent
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until


@pytest.fixture
def proxy(etcd: EtcdServer) -> Iterator[Proxy]:
    with Proxy(etcd.endpoint) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: Proxy) -> Iterator[Client]:
    """A client behind the proxy."""
    with Client([proxy.endpoint], timeout=1) as client:
        yield client


def test_life(client: Client, keys: Keys) -> None:
    session = Session(client, keys, ttl=3, value=b'{"a":1}')
    assert session.start()
    assert session.alive and 2 < session.left <= 3
    pair = client.get(keys.session(session.incarnation))
    assert pair is not None and (pair.value, pair.lease) == (b'{"a":1}', session.lease)
    node = keys.node("n")
    assert session.attach(node, b"1", absent(node))
    assert not session.attach(node, b"2", absent(node))
    assert session.update(node, b"3")
    assert session.update(session.key, b"{}")
    pair = client.get(node)
    assert pair is not None and (pair.value, pair.lease) == (b"3", session.lease)
    other = Session(client, keys, ttl=3)
    other.start()
    assert not other.attach(node, b"4", absent(node))
    session.detach(node)
    assert client.get(node) is None
    assert not session.holds(node)
    assert other.attach(node, b"4", absent(node))
    session.detach(node)
    session.close()
    assert not session.alive
    assert [pair.key for pair in client.list(keys.root).kvs] == [node, other.key]
    other.close()
    assert client.count(keys.root) == 0


def test_a_deleted_key_is_back_at_once(client: Client, keys: Keys) -> None:
    session = Session(client, keys, ttl=300)
    session.start()
    session.attach(keys.node("n"), b"x")
    assert session._watch.synced(40)
    before = session.lease
    client.delete_prefix(keys.root)
    until(lambda: client.count(keys.root) == 2, 3, "both keys, long before the next renewal")
    assert session.lease == before and session.alive
    session.close()


def test_a_lost_lease_is_replaced_at_once(client: Client, keys: Keys) -> None:
    session = Session(client, keys, ttl=300)
    session.start()
    for number in range(60):
        assert session.attach(keys.node(str(number)), b"%d" % number)
    session.update(keys.node("7"), b"new")
    assert session._watch.synced(40)
    before = session.lease
    client.revoke(before)
    until(lambda: client.count(keys.root) == 61, 5)
    until(lambda: session.lease != before)
    assert {pair.lease for pair in client.list(keys.root).kvs} == {session.lease}
    pair = client.get(keys.node("7"))
    assert pair is not None and pair.value == b"new"
    assert client.get(keys.session(session.incarnation)) is not None
    session.close()


def test_the_loss_is_known_before_the_lease_ends(client: Client, proxy: Proxy, far: Client, keys: Keys) -> None:
    session = Session(far, keys, ttl=3)
    heard: list[bool] = []
    there: list[bool] = []

    def listener(alive: bool) -> None:
        heard.append(alive)
        there.append(client.get(session.key) is not None)

    session.listen(listener)
    session.start()
    node = keys.node("n")
    session.attach(node, b"1")
    until(lambda: heard == [True])
    incarnation = session.incarnation
    proxy.blackhole("up", "down")
    until(lambda: not session.alive, 4)
    assert client.get(session.key) is not None
    until(lambda: heard == [True, False], 2)
    until(lambda: len(there) == 2)
    assert there == [True, True]
    with contextlib.suppress(EtcdUnavailable, EtcdUnknown):
        assert not session.update(node, b"2")
    until(lambda: client.get(session.key) is None, 6)
    proxy.heal()
    until(lambda: session.alive, 5)
    until(lambda: heard == [True, False, True])
    assert session.incarnation == incarnation
    pair = client.get(node)
    assert pair is not None and (pair.value, pair.lease) == (b"2", session.lease)
    session.close()
    assert client.count(keys.root) == 0


def test_what_somebody_took_meanwhile_is_theirs(client: Client, proxy: Proxy, far: Client, keys: Keys) -> None:
    session = Session(far, keys, ttl=2)
    session.start()
    mine, shared = keys.node("mine"), keys.node("shared")
    session.attach(mine, b"a")
    session.attach(shared, b"a")
    proxy.cut()
    client.revoke(session.lease)
    client.put(shared, b"theirs")
    proxy.heal()
    until(lambda: client.get(mine) is not None, 5)
    until(lambda: not session.holds(shared))
    pair = client.get(shared)
    assert pair is not None and pair.value == b"theirs"
    session.close()
    assert client.get(shared) is not None


def test_a_stopped_server(own_etcd: EtcdServer, keys: Keys) -> None:
    with Client([own_etcd.endpoint], timeout=1) as client:
        session = Session(client, keys, ttl=2)
        session.start()
        own_etcd.pause()
        until(lambda: not session.alive, 3)
        own_etcd.resume()
        until(lambda: session.alive, 5)
        until(lambda: client.get(session.key) is not None)
        session.close()


def test_answers_lost_while_it_is_put(client: Client, proxy: Proxy, far: Client, keys: Keys) -> None:
    proxy.lose_answer(b"/v3/lease/grant")
    far.txn(Txn().get(keys.root))
    proxy.lose_answer(b"/v3/kv/txn")
    proxy.lose_answer(b"/v3/kv/txn")
    session = Session(far, keys, ttl=5)
    session.start()
    until(lambda: session.alive, 5)
    node = keys.node("n")
    proxy.lose_answer(b"/v3/kv/txn")
    assert session.attach(node, b"1", absent(node))
    assert proxy.lost == 4
    assert {pair.lease for pair in client.list(keys.root).kvs} == {session.lease}
    session.close()


def test_starts_before_etcd_does(own_etcd: EtcdServer, keys: Keys) -> None:
    own_etcd.stop()
    with Client([own_etcd.endpoint], timeout=0.5) as client:
        session = Session(client, keys, ttl=5)
        assert not session.start(wait=0.3)
        assert not session.attach(keys.node("n"), b"")
        own_etcd.start()
        until(lambda: session.alive, 5)
        session.close()


def test_many_threads_update(client: Client, keys: Keys) -> None:
    session = Session(client, keys, ttl=5)
    session.start()
    nodes = [keys.node(str(number)) for number in range(4)]
    for node in nodes:
        session.attach(node, b"")

    def work(node: str) -> None:
        for number in range(25):
            session.update(node, b"%d" % number)

    threads = [threading.Thread(target=work, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {pair.value for pair in client.list(keys.root + "node/").kvs} == {b"24"}
    session.close()
