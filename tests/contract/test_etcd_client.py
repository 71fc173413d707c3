"""What the client promises, against every etcd version at hand."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from crony.errors import Halted
from crony.etcd import compare as compares
from crony.etcd.client import Client
from crony.etcd.errors import BadRequest, Compacted, EtcdUnavailable, LeaseGone
from crony.etcd.keys import Keys
from crony.etcd.txn import Compare, Txn, TxnResult, absent, create, exists, lease, mod, self_test, vacant, version
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until, within


@pytest.fixture
def each(each_etcd: EtcdServer) -> Iterator[Client]:
    with Client([each_etcd.endpoint]) as client:
        yield client


def test_keys_and_values(each: Client, keys: Keys) -> None:
    key = keys.root + "ключ/%2F ü"
    assert each.get(key) is None
    value = bytes(range(256)) * 3
    first = each.put(key, value)
    second = each.put(key, b"")
    pair = each.get(key)
    assert pair == (key, b"", first, second, 2, 0)
    assert each.get(key, revision=first) == (key, value, first, first, 1, 0)
    assert each.delete(key) == 1
    assert each.delete(key) == 0
    assert each.get(key) is None
    assert each.revision == second + 1


def test_ranges(each: Client, keys: Keys) -> None:
    p = keys.root
    for name in "abcd":
        each.put(p + name, name.encode())
    page = each.range(p + "a", p + "c")
    assert [pair.value for pair in page.kvs] == [b"a", b"b"]
    assert (page.count, page.more, page.revision) == (2, False, each.revision)
    page = each.range(p + "a", p + "e", limit=3)
    assert ([pair.value for pair in page.kvs], page.count, page.more) == ([b"a", b"b", b"c"], 4, True)
    assert each.range(p, p + "z", count_only=True) == type(page)([], each.revision, 4, False)
    assert {pair.value for pair in each.list(p, keys_only=True).kvs} == {b""}
    assert each.count(p) == 4
    assert each.delete_prefix(p) == 4
    assert each.list(p).kvs == []
    with pytest.raises(BadRequest):
        each.get("")


def test_changed_since_counts_all(each: Client, keys: Keys) -> None:
    """The watch relies on it: `min_mod` filters pairs, `count` stays that of the whole range."""
    p = keys.root
    for name in "abc":
        each.put(p + name, b"")
    seen = each.revision
    page = each.range(p, p + "z", min_mod=seen + 1, limit=1, keys_only=True)
    assert (page.kvs, page.count) == ([], 3)
    each.put(p + "b", b"")
    page = each.range(p, p + "z", min_mod=seen + 1, limit=1, keys_only=True)
    assert ([pair.key for pair in page.kvs], page.count) == ([p + "b"], 3)


def test_a_long_list_shows_one_revision(each: Client, keys: Keys) -> None:
    p = keys.root
    for start in range(0, 2300, 100):
        txn = Txn()
        for number in range(start, start + 100):
            txn.put(f"{p}{number:05d}", b"old")
        each.txn(txn)
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            txn = Txn().put(f"{p}{number % 2300:05d}", b"new").put(f"{p}{2299 - number % 2300:05d}x", b"new")
            each.txn(txn)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(3):
            page = each.list(p)
            assert max(pair.mod for pair in page.kvs) <= page.revision
            assert page.kvs == each.list(p, revision=page.revision).kvs
            assert page.count == len(page.kvs) >= 2300
    finally:
        stop.set()
        thread.join()


def test_compaction(each: Client, keys: Keys) -> None:
    key = keys.root + "k"
    first = each.put(key, b"1")
    last = each.put(key, b"2")
    each.compact(last)
    each.compact(last)
    with pytest.raises(Compacted):
        each.get(key, revision=first)
    with pytest.raises(Compacted):
        each.list(keys.root, revision=first)
    with pytest.raises(BadRequest):
        each.compact(last + 1_000_000)
    with pytest.raises(BadRequest):
        each.get(key, revision=last + 1_000_000)


def test_transaction(each: Client, keys: Keys) -> None:
    a, b, c = (keys.root + name for name in "abc")
    each.put(b, b"old")
    txn = Txn().when(absent(a), exists(b)).put(a, b"1").delete(b).get(a).nest(Txn().when(exists(b)).put(c, b"nested"))
    txn.otherwise.get(b)
    done = each.txn(txn)
    assert done.succeeded
    assert done.revision == each.revision
    # Nested compares are evaluated before anything is written: b was still there.
    assert done.responses == [None, 1, [(a, b"1", done.revision, done.revision, 1, 0)], (True, done.revision, [None])]
    again = each.txn(txn)
    assert not again.succeeded
    assert again.responses == [[]]
    assert again.revision == done.revision


def test_every_compare(each: Client, keys: Keys) -> None:
    key, none = keys.root + "k", keys.root + "none"
    ident = each.grant(60)
    made = each.put(key, b"", lease=ident)
    changed = each.put(key, b"", lease=ident)
    true = [mod(key, changed), create(key, made), version(key, 2), lease(key, ident), exists(key)]
    true += [absent(none), mod(none, 0), create(none, 0), version(none, 0), lease(none, 0)]
    false = [mod(key, made), create(key, changed), version(key, 1), lease(key, ident + 1), absent(key)]
    false += [exists(none), mod(none, 1), create(none, 1), version(none, 1), lease(none, 1), mod(key, 0)]
    for compare in true:
        assert each.txn(Txn().when(compare)).succeeded, compare
    for compare in false:
        assert not each.txn(Txn().when(compare)).succeeded, compare
    each.revoke(ident)


def test_self_test_passes_and_would_notice(each: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    here, none = keys.root + "here", keys.root + "none"
    each.put(here, b"")

    def ask(probe: Txn) -> TxnResult:
        return each._txn_gateway(probe, None)

    def ask_natively(probe: Txn) -> TxnResult:
        return each._txn_native(probe, None)

    for way in (ask, ask_natively):
        self_test(way, here)
        self_test(way, none)
    for target in ("mod", "create", "version", "lease"):
        with monkeypatch.context() as patch:  # the number in a field that nobody knows
            patch.setitem(compares._NUMBERS, target, (compares._NUMBERS[target][0], b"\xf8\x07"))
            with pytest.raises(Halted, match="does not evaluate"):
                self_test(ask_natively, here)
    spelt = Compare.json
    for right, wrong in (("mod_revision", "modrevision"), ('"lease"', '"leaseID"'), ("target", "Target")):
        monkeypatch.setattr(Compare, "json", lambda self, r=right, w=wrong: spelt(self).replace(r, w))
        for key in (here, none):
            with pytest.raises(Halted, match="does not evaluate"):
                self_test(ask, key)
    monkeypatch.setattr(Compare, "json", spelt)
    monkeypatch.setattr(Txn, "_object", lambda self: _misspelt(self))
    with pytest.raises(Halted, match="does not evaluate"):
        self_test(ask, here)
    with pytest.raises(Halted), Client([each.cluster.endpoints[0].at.text]) as fresh:
        fresh.txn(Txn().when(exists(keys.root + "none")).put(keys.root + "written", b""))
    assert each.get(keys.root + "written") is None


def _misspelt(txn: Txn) -> str:
    compare = ",".join(compare.json() for compare in txn.compares)
    return f'{{"compares":[{compare}],"success":[{txn._json()}],"failure":[]}}'


def test_what_the_builder_lets_pass_the_server_takes(each: Client, keys: Keys) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    names = [keys.root + name for name in "abcd"]

    def fill(txn: Txn, depth: int) -> Txn:
        for _ in range(dice.randrange(3)):
            txn.when(dice.choice([exists, absent])(dice.choice(names)))
        for branch in (txn, txn.otherwise):
            for _ in range(dice.randrange(3)):
                kind = dice.randrange(4 if depth else 3)
                if kind == 0:
                    branch.put(dice.choice(names), b"v")
                elif kind == 1:
                    branch.delete(dice.choice(names))
                elif kind == 2:
                    branch.get(dice.choice(names))
                else:
                    branch.nest(fill(Txn(), depth - 1))
        return txn

    taken = 0
    for _ in range(400):
        txn = fill(Txn(), 2)
        try:
            txn.encode()
        except BadRequest:
            continue
        each.txn(txn)
        taken += 1
    assert taken > 100
    widest = Txn().when(*(absent(f"{names[0]}{n}") for n in range(120)))
    widest.nest(Txn().when(*(absent(f"{names[0]}{n}") for n in range(8))).put(names[1], b""))
    assert each.txn(widest).succeeded
    assert each.txn(Txn(max_bytes=1_300_000).put(names[2], b"x" * 1_250_000)).succeeded
    found = each.get(names[2])
    assert found is not None and len(found.value) == 1_250_000


def test_leases(each: Client, keys: Keys) -> None:
    key = keys.root + "k"
    ident = each.grant(4.2)
    assert each.keep_alive(ident) == 5
    each.put(key, b"", lease=ident)
    pair = each.get(key)
    assert pair is not None and pair.lease == ident
    each.revoke(ident)
    each.revoke(ident)
    assert each.keep_alive(ident) == 0
    assert each.get(key) is None
    with pytest.raises(LeaseGone):
        each.put(key, b"", lease=ident)
    with pytest.raises(LeaseGone):
        each.txn(Txn().put(key, b"", lease=ident))
    assert each.get(key) is None


def test_upkeep(each: Client, each_etcd: EtcdServer) -> None:
    status = each.status()
    assert status.version in each_etcd.version
    assert 0 < status.db_in_use <= status.db_size
    assert status.leader == status.member != 0
    assert status.raft_term > 1
    each.defragment()
    assert each.alarms() == ()
    each.disarm()


def test_the_servers_clock(each: Client) -> None:
    def learnt() -> bool:  # each second that begins between two answers brings the bounds closer
        each.get("x")
        return abs(each.clock_offset) < 0.1 and abs(each.now() - time.time()) < 0.1

    until(learnt, 10, "the offset of this machine's own clock to be known as nothing")


def test_answers_in_any_pieces(each_etcd: EtcdServer, keys: Keys) -> None:
    with Proxy(each_etcd.endpoint) as proxy, Client([proxy.endpoint]) as client:
        proxy.slice = 7
        for number in range(20):
            client.put(f"{keys.root}{number}", b"v" * 50)
        ident = client.grant(5)
        assert client.keep_alive(ident) == 5
        assert client.keep_alive(ident) == 5
        client.revoke(ident)
        assert len(client.list(keys.root).kvs) == 20
        assert proxy.accepted <= 2  # the gateway, and etcd itself


def test_threads_share_the_sockets(each_etcd: EtcdServer, keys: Keys) -> None:
    with Proxy(each_etcd.endpoint) as proxy, Client([proxy.endpoint]) as client:
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for step in range(40):
                    value = f"{number}-{step}".encode()
                    client.put(f"{keys.root}{number}", value)
                    found = client.get(f"{keys.root}{number}")
                    assert found is not None and found.value == value
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert proxy.accepted <= 16  # of either protocol as many as threads


def test_nobody_there() -> None:
    port = free_ports(1)[0]
    with Client([f"http://127.0.0.1:{port}"], timeout=0.4) as client:
        began = time.monotonic()
        with within(2, "giving up"), pytest.raises(EtcdUnavailable, match="refused"):
            client.put("k", b"")
        assert time.monotonic() - began > 0.3, "it is tried again until then"
    with pytest.raises(EtcdUnavailable, match="closed"):
        client.get("k")


def test_a_closed_client_does_not_wait() -> None:
    port = free_ports(1)[0]
    client = Client([f"http://127.0.0.1:{port}"], timeout=30)
    found: list[Exception] = []

    def work() -> None:
        try:
            client.get("k")
        except EtcdUnavailable as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: client.cluster.endpoints[0].failures > 0)
    client.close()
    thread.join(25)  # of the 30 s that its request may take
    assert len(found) == 1


def test_data_that_went_back_halts() -> None:
    with EtcdServer() as server, Client([server.endpoint]) as client:
        revision = client.put("k", b"")
        client.at_least(revision)
        client.get("k")
        client.at_least(revision + 1)
        with pytest.raises(Halted, match="back in time"):
            client.get("k")
        with pytest.raises(Halted):
            client.grant(5)


def test_a_transaction_on_a_whole_range(each: Client, keys: Keys) -> None:
    p = keys.root
    empty = vacant(p + "a/", p + "a0")
    each.put(p + "a0", b"outside")
    assert each.txn(Txn().when(empty).put(p + "first", b"")).succeeded
    each.put(p + "a/x", b"")
    assert not each.txn(Txn().when(empty).put(p + "second", b"")).succeeded
    each.put(p + "a/y", b"")
    result = each.txn(Txn().when(exists(p + "first")).clear(p + "a/", p + "a0").delete(p + "first"))
    assert result.succeeded and result.responses == [2, 1]
    assert [pair.key for pair in each.list(p).kvs] == [p + "a0"]
    assert each.txn(Txn().when(empty)).succeeded
    with pytest.raises(BadRequest, match="range"):
        Txn().clear(p + "b", p + "a")
