"""A watch misses nothing and shows nothing twice."""

from __future__ import annotations

import random
import threading

import pytest

from crony.etcd import watch as watch_module
from crony.etcd.client import KV, Client
from crony.etcd.errors import EtcdUnavailable
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.txn import Txn
from crony.etcd.watch import Event, Watcher
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until, within


class Mirror:
    """Keeps a copy of a range, as a caller would, and remembers how it came about."""

    def __init__(self, client: Client, prefix: str, *, idle: float = 15.0, from_revision: int = 0) -> None:
        self.prefix = prefix
        self.state: dict[str, bytes] = {}
        self.snapshots: list[int] = []
        self.revisions: list[int] = []
        self.events: list[Event] = []
        self.fail_next = False
        self.watcher = Watcher(
            client,
            prefix,
            prefix_end(prefix),
            on_snapshot=self.snapshot,
            on_events=self.note,
            from_revision=from_revision,
            idle=idle,
        )

    def start(self) -> Mirror:
        self.watcher.start()
        assert self.watcher.synced(10)
        return self

    def snapshot(self, pairs: list[KV], revision: int) -> None:
        self.state = {pair.key: pair.value for pair in pairs}
        self.snapshots.append(revision)

    def note(self, events: list[Event], revision: int) -> None:
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("the caller stumbles")
        mods = [event.mod for event in events]
        assert mods == sorted(mods) and mods[-1] == revision
        assert not self.revisions or mods[0] > self.revisions[-1]
        assert not self.snapshots or mods[0] > self.snapshots[-1]
        self.revisions.append(revision)
        self.events += events
        for event in events:
            if event.kind == "put":
                self.state[event.key] = event.value
            else:
                self.state.pop(event.key, None)

    def equals(self, client: Client) -> bool:
        return self.state == {pair.key: pair.value for pair in client.list(self.prefix).kvs}


def test_snapshot_then_whole_revisions(each_etcd: EtcdServer, keys: Keys) -> None:
    with Client([each_etcd.endpoint]) as client:
        p = keys.root
        client.put(p + "a", b"1")
        mirror = Mirror(client, p).start()
        assert (mirror.state, mirror.snapshots) == ({p + "a": b"1"}, [client.revision])
        ident = client.grant(60)
        done = client.txn(Txn().put(p + "a", b"2").put(p + "b", b"", lease=ident).put(p + "c", b"3"))
        until(lambda: mirror.watcher.revision == done.revision)
        assert [(e.kind, e.key[-1], e.value, e.version, e.lease) for e in mirror.events] == [
            ("put", "a", b"2", 2, 0),
            ("put", "b", b"", 1, ident),
            ("put", "c", b"3", 1, 0),
        ]
        assert mirror.events[1].create == mirror.events[1].mod == done.revision
        client.delete(p + "a")
        until(lambda: mirror.events[-1] == ("delete", p + "a", b"", client.revision, 0, 0, 0))
        client.revoke(ident)
        until(lambda: mirror.state == {p + "c": b"3"})
        assert mirror.watcher.healthy
        mirror.watcher.stop()
        assert not mirror.watcher.healthy


def test_one_key_and_a_given_revision(client: Client, keys: Keys) -> None:
    key = keys.root + "k"
    first = client.put(key, b"1")
    client.put(key + "x", b"not ours")
    last = client.put(key, b"2")
    seen: list[tuple[int, bytes]] = []
    watcher = Watcher(
        client,
        key,
        None,
        on_snapshot=lambda _pairs, _revision: pytest.fail("no listing was asked for"),
        on_events=lambda events, _revision: seen.extend((event.mod, event.value) for event in events),
        from_revision=first,
    ).start()
    until(lambda: seen == [(first, b"1"), (last, b"2")])
    watcher.stop()


def test_nothing_is_missed_on_a_bad_network(etcd: EtcdServer, keys: Keys) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    p = keys.root
    with Proxy(etcd.endpoint) as proxy, Client([etcd.endpoint]) as direct, Client([proxy.endpoint]) as client:
        proxy.slice = 1000
        mirror = Mirror(client, p, idle=0.5).start()
        written: dict[int, set[str]] = {}
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                names = {f"{p}{dice.randrange(30)}" for _ in range(dice.randrange(1, 6))}
                txn = Txn()
                for name in names:
                    txn.put(name, dice.randbytes(200)) if dice.random() < 0.7 else txn.put(name, b"")
                written[direct.txn(txn).revision] = names

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(4):
            proxy.break_links()
            some = len(mirror.revisions)
            until(lambda some=some: len(mirror.revisions) > some + 2, 15)
        proxy.blackhole("down")
        some = len(written)
        until(lambda: len(written) > some + 20)
        proxy.heal()
        stop.set()
        thread.join()
        until(lambda: mirror.watcher.revision == max(written), 15)
        received: dict[int, set[str]] = {}
        for event in mirror.events:
            received.setdefault(event.mod, set()).add(event.key)
        assert received == written
        assert len(mirror.events) == sum(map(len, written.values()))
        assert len(mirror.snapshots) == 1
        assert mirror.equals(direct)
        mirror.watcher.stop()


def test_server_restarts(own_etcd: EtcdServer) -> None:
    with Client([own_etcd.endpoint]) as client:
        mirror = Mirror(client, "p/").start()
        for round_ in range(2):
            client.put("p/a", b"%d" % round_)
            (own_etcd.stop if round_ else own_etcd.kill)()
            until(lambda: not mirror.watcher.healthy)
            own_etcd.start()
            client.put("p/b", b"%d" % round_)
        until(lambda: mirror.watcher.revision == client.revision)
        assert [event.key for event in mirror.events] == ["p/a", "p/b"] * 2
        assert len(mirror.snapshots) == 1
        mirror.watcher.stop()


def test_compaction_during_a_pause_lists_again(etcd: EtcdServer, keys: Keys) -> None:
    p = keys.root
    with Proxy(etcd.endpoint) as proxy, Client([etcd.endpoint]) as direct, Client([proxy.endpoint]) as client:
        direct.put(p + "gone", b"")
        direct.put(p + "stays", b"1")
        mirror = Mirror(client, p).start()
        proxy.cut()
        until(lambda: not mirror.watcher.healthy)
        direct.delete(p + "gone")
        direct.put(p + "stays", b"2")
        direct.put(p + "new", b"")
        direct.compact(direct.revision)
        assert len(mirror.snapshots) == 1
        proxy.heal()
        until(lambda: len(mirror.snapshots) == 2)
        until(lambda: mirror.watcher.healthy)
        assert mirror.state == {p + "stays": b"2", p + "new": b""}
        assert mirror.events == []
        direct.put(p + "later", b"")
        until(lambda: p + "later" in mirror.state)
        mirror.watcher.stop()


def test_a_given_revision_that_is_compacted_lists(client: Client, keys: Keys) -> None:
    first = client.put(keys.root + "k", b"1")
    client.put(keys.root + "k", b"2")
    client.compact(client.revision)
    mirror = Mirror(client, keys.root, from_revision=first).start()
    until(lambda: mirror.state == {keys.root + "k": b"2"})
    mirror.watcher.stop()


def test_a_silent_stream_is_reopened(etcd: EtcdServer, keys: Keys) -> None:
    p = keys.root
    with (
        Proxy(etcd.endpoint) as proxy,
        Client([etcd.endpoint]) as direct,
        Client([proxy.endpoint, etcd.endpoint], timeout=1) as client,
    ):
        client.cluster._current = 0
        mirror = Mirror(client, p, idle=0.5).start()
        proxy.blackhole("down")
        direct.put(p + "k", b"")
        until(lambda: p + "k" in mirror.state, 5)
        mirror.watcher.stop()


def test_a_quiet_range_survives_compaction(client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_QUIET", 0.3)
    mirror = Mirror(client, keys.root, idle=0.2).start()
    at = mirror.watcher.revision
    target = client.put("elsewhere", b"")
    until(lambda: mirror.watcher.revision >= target)
    assert mirror.watcher.revision > at
    client.compact(target)
    client.put(keys.root + "k", b"")
    until(lambda: keys.root + "k" in mirror.state)
    assert len(mirror.snapshots) == 1
    mirror.watcher.stop()


def test_a_callback_that_fails_gets_a_new_listing(client: Client, keys: Keys) -> None:
    mirror = Mirror(client, keys.root).start()
    mirror.fail_next = True
    client.put(keys.root + "k", b"1")
    until(lambda: len(mirror.snapshots) == 2)
    assert mirror.state == {keys.root + "k": b"1"}
    client.put(keys.root + "k", b"2")
    until(lambda: mirror.state == {keys.root + "k": b"2"})
    mirror.watcher.stop()


def test_a_callback_that_fails_without_a_listing_goes_on(client: Client, keys: Keys) -> None:
    seen: list[bytes] = []

    def note(events: list[Event], _revision: int) -> None:
        seen.append(events[-1].value)
        if len(seen) == 1:
            raise EtcdUnavailable("also an error of the client's own kind")

    watcher = Watcher(client, keys.root + "k", None, on_snapshot=None, on_events=note).start()
    assert watcher.synced(40)
    for value in (b"1", b"2"):
        client.put(keys.root + "k", value)
        until(lambda value=value: seen and seen[-1] == value)
    assert seen == [b"1", b"2"]
    watcher.stop()


def test_stop_is_quick_also_from_inside(client: Client, keys: Keys) -> None:
    mirror = Mirror(client, keys.root).start()
    with within(1, "the stop"):
        mirror.watcher.stop()
    client.put(keys.root + "k", b"")
    assert mirror.events == []
    calls: list[int] = []

    def once(_events: list[Event], revision: int) -> None:
        calls.append(revision)
        inner.stop()

    inner = Watcher(client, keys.root, None, on_snapshot=None, on_events=once)
    inner._end = prefix_end(keys.root)
    inner.start()
    assert inner.synced(40)
    client.put(keys.root + "k", b"")
    until(lambda: calls)
    until(lambda: not inner._thread.is_alive())


def test_starts_before_etcd_does(own_etcd: EtcdServer) -> None:
    own_etcd.stop()
    with Client([own_etcd.endpoint], timeout=0.5) as client:
        mirror = Mirror(client, "p/")
        mirror.watcher.start()
        until(lambda: mirror.watcher.error is not None)
        assert not mirror.watcher.synced(0)
        own_etcd.start()
        assert mirror.watcher.synced(40)
        until(lambda: mirror.watcher.healthy and mirror.watcher.error is None)
        mirror.watcher.stop()
