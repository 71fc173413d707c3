"""Many small transactions in one request: each has its own result."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from crony.errors import Unavailable
from crony.etcd.batch import Batcher
from crony.etcd.client import Client
from crony.etcd.errors import BadRequest, EtcdUnavailable, EtcdUnknown, LeaseGone, OuterRefused
from crony.etcd.keys import Keys
from crony.etcd.txn import Compare, Txn, TxnResult, absent, exists
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.proxy import Proxy


def test_each_gets_its_own_result(client: Client, keys: Keys) -> None:
    batcher = Batcher(client)
    before = client.put(keys.root + "3", b"taken")
    futures = [
        batcher.submit(Txn().when(absent(f"{keys.root}{n}")).put(f"{keys.root}{n}", b"%d" % n)) for n in range(200)
    ]
    results = [future.result(40) for future in futures]
    assert [result.succeeded for result in results] == [n != 3 for n in range(200)]
    assert all(result.revision > before for result in results)
    for number, result in enumerate(results):
        pair = client.get(f"{keys.root}{number}")
        assert pair is not None
        assert pair.mod == (before if number == 3 else result.revision)
    assert client.revision - before < 60  # few requests, each one revision
    batcher.close()


def test_the_same_key_in_order(client: Client, keys: Keys) -> None:
    batcher = Batcher(client)
    key = keys.root + "k"
    futures = [batcher.submit(Txn().put(key, b"%d" % n).put(f"{key}{n}", b"")) for n in range(30)]
    revisions = [future.result(40).revision for future in futures]
    assert revisions == sorted(set(revisions))
    pair = client.get(key)
    assert pair is not None and pair.value == b"29"
    batcher.close()


def test_from_many_threads(client: Client, keys: Keys) -> None:
    batcher = Batcher(client, limit=20)
    failed: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(25):
                key = f"{keys.root}{name}/{number}"
                assert batcher.submit(Txn().when(absent(key)).put(key, b"x" * 100)).result(40).succeeded
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert client.count(keys.root) == 200
    batcher.close()


def test_outer_compares_hold_for_all(client: Client, keys: Keys) -> None:
    guard = keys.root + "guard"
    asked: list[int] = []

    def outer() -> list[Compare]:
        asked.append(1)
        return [exists(guard)]

    batcher = Batcher(client, outer=outer)
    with pytest.raises(OuterRefused):
        batcher.submit(Txn().put(keys.root + "a", b"")).result(40)
    client.put(guard, b"")
    futures = [batcher.submit(Txn().put(f"{keys.root}b{n}", b"")) for n in range(100)]
    assert all(future.result(40).succeeded for future in futures)
    client.delete(guard)
    futures = [batcher.submit(Txn().put(f"{keys.root}c{n}", b"")) for n in range(100)]
    assert all(isinstance(future.exception(40), OuterRefused) for future in futures)
    assert client.count(keys.root) == 100
    assert asked
    batcher.close()


def test_a_bad_one_does_not_harm_the_others(client: Client, keys: Keys) -> None:
    batcher = Batcher(client, linger=0.2)
    gone = client.grant(60)
    client.revoke(gone)
    futures = [batcher.submit(Txn().put(f"{keys.root}{n}", b"", lease=gone if n == 7 else 0)) for n in range(20)]
    failed = [number for number, future in enumerate(futures) if isinstance(future.exception(40), LeaseGone)]
    assert failed == [7]
    assert client.count(keys.root) == 19
    with pytest.raises(BadRequest):
        batcher.submit(Txn().put("k", b"").delete("k"))
    batcher.close()


def test_sizes_and_levels_fit(client: Client, keys: Keys) -> None:
    batcher = Batcher(client, outer=lambda: [absent(f"{keys.root}no{n}") for n in range(100)])
    big = [batcher.submit(Txn().put(f"{keys.root}{n}", b"x" * 200_000)) for n in range(6)]
    wide: list[Future[TxnResult]] = []
    for number in range(6):
        txn = Txn()
        for part in range(25):
            txn.put(f"{keys.root}w{number}/{part}", b"")
        wide.append(batcher.submit(txn))
    assert all(future.result(40).succeeded for future in big + wide)
    batcher.close()


def test_a_lost_answer_reaches_everybody_in_that_request(etcd: EtcdServer, keys: Keys) -> None:
    with Proxy(etcd.endpoint) as proxy, Client([proxy.endpoint]) as client:
        client.txn(Txn().get(keys.root))
        batcher = Batcher(client, linger=0.3)
        proxy.lose_answer(b"/v3/kv/txn")
        futures = [batcher.submit(Txn().put(f"{keys.root}{n}", b"")) for n in range(10)]
        assert all(isinstance(future.exception(40), EtcdUnknown) for future in futures)
        assert client.count(keys.root) == 10
        batcher.close()


def test_etcd_away() -> None:
    with Client([f"http://127.0.0.1:{free_ports(1)[0]}"], timeout=0.3) as client:
        batcher = Batcher(client)
        with pytest.raises(EtcdUnavailable):
            batcher.submit(Txn().put("k", b"")).result(40)
        batcher.close()


def test_close_sends_the_rest(client: Client, keys: Keys) -> None:
    batcher = Batcher(client)
    futures = [batcher.submit(Txn().put(f"{keys.root}r{n}", b"")) for n in range(300)]
    batcher.close(40)
    assert all(future.done() for future in futures)
    assert client.count(keys.root + "r") == 300
    with pytest.raises(Unavailable, match="closed"):
        batcher.submit(Txn().put("k", b""))


def test_a_cancelled_future_is_not_sent(client: Client, keys: Keys) -> None:
    batcher = Batcher(client, linger=0.3)
    first = batcher.submit(Txn().put(keys.root + "a", b""))
    second = batcher.submit(Txn().put(keys.root + "b", b""))
    assert second.cancel()
    assert first.result(40).succeeded
    assert client.get(keys.root + "b") is None
    batcher.close()
