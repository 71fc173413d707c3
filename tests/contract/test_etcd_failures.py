"""What the client does when members die, networks break and answers are lost."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from crony.errors import Halted
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnavailable, EtcdUnknown, NoSpace
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, absent
from crony.etcd.watch import Event, Watcher
from tests.helpers.etcd import EtcdCluster, EtcdServer, free_ports
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until, within


def test_a_lost_answer_is_unknown_and_was_carried_out_once(etcd: EtcdServer, keys: Keys) -> None:
    key = keys.root + "k"
    with Proxy(etcd.endpoint) as proxy, Client([proxy.endpoint]) as client:
        proxy.lose_answer(b"/v3/kv/txn")
        assert client.txn(Txn().get(key)).responses == [[]]  # its self-test lost the answer, and was repeated
        proxy.lose_answer(b"/v3/kv/txn")
        assert client.txn(Txn().get(key)).responses == [[]]
        until(lambda: client.txn(Txn().get(key)) and len(client._tested) == 2, what="both protocols are tested")
        for path, call in {
            b"/v3/kv/put": lambda: client.put(key, b""),
            b"/v3/kv/txn": lambda: client.txn(Txn().put(key, b"")),
        }.items():
            proxy.lose_answer(path)
            with pytest.raises(EtcdUnknown):
                call()
        pair = client.get(key)
        assert pair is not None and pair.version == 2
        proxy.lose_answer(b"/v3/kv/deleterange")
        with pytest.raises(EtcdUnknown):
            client.delete(key)
        proxy.lose_answer(b"/v3/kv/range")
        assert client.get(key) is None
        ident = client.grant(60)
        for path, repeat in {
            b"/v3/lease/keepalive": lambda: client.keep_alive(ident),
            b"/v3/lease/revoke": lambda: client.revoke(ident),
            b"/v3/lease/grant": lambda: client.grant(60),
        }.items():
            proxy.lose_answer(path)
            repeat()
        assert proxy.lost == 9


def test_a_request_that_never_left_goes_elsewhere(etcd: EtcdServer, keys: Keys) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    with Client([dead, etcd.endpoint], timeout=2) as client:
        for number in range(20):
            client.put(f"{keys.root}{number}", b"")
        assert client.count(keys.root) == 20


def test_a_member_that_does_not_answer(etcd: EtcdServer, keys: Keys) -> None:
    with Proxy(etcd.endpoint) as proxy, Client([proxy.endpoint, etcd.endpoint], timeout=3) as client:
        client.cluster._current = 0
        client.put(keys.root + "k", b"")
        proxy.blackhole("down")
        assert client.get(keys.root + "k") is not None, "a read goes to the other member in time"
        client.cluster._current = 0
        client.cluster.endpoints[0].answered()
        began = time.monotonic()
        with within(8, "the doubt"), pytest.raises(EtcdUnknown):
            client.put(keys.root + "k", b"")
        assert time.monotonic() - began > 2, "the answer was waited for"
        client.put(keys.root + "k", b"")  # the other member by now
        proxy.heal()


def test_sockets_that_a_restarted_server_left_behind(own_etcd: EtcdServer) -> None:
    with Client([own_etcd.endpoint]) as client:

        def busy() -> None:
            client.put("k", b"")

        for end in (own_etcd.stop, own_etcd.kill):
            threads = [threading.Thread(target=busy) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            end()
            own_etcd.start()
            for _ in range(8):
                client.put("k", b"")  # not unknown: the dead sockets are noticed before anything is sent


def test_outage_and_return(own_etcd: EtcdServer) -> None:
    with Client([own_etcd.endpoint], timeout=10) as client:
        client.put("k", b"1")
        own_etcd.kill()
        with pytest.raises(EtcdUnavailable):
            client.get("k", timeout=0.3)
        own_etcd.launch()
        found = client.get("k")
        assert found is not None and found.value == b"1"


def test_a_stopped_server(own_etcd: EtcdServer) -> None:
    with Client([own_etcd.endpoint], timeout=0.6) as client:
        client.put("k", b"")
        own_etcd.pause()
        with within(4, "giving up"):
            with pytest.raises(EtcdUnavailable):
                client.get("k")
            with pytest.raises(EtcdUnknown):
                for _ in range(3):  # once the kernel refuses new connections it is no longer sent
                    client.put("k", b"")
        own_etcd.resume()
        until(lambda: _works(client), 5)


def test_no_space_and_wiped_data() -> None:
    with EtcdServer(quota=1 << 20) as server, Client([server.endpoint]) as client:
        ident = client.grant(60)
        client.put("first", b"")
        with pytest.raises(NoSpace):
            for number in range(200):
                client.put(f"k{number % 3}", b"x" * 60_000)
        assert client.keep_alive(ident) == 60
        with pytest.raises(NoSpace):
            client.txn(Txn().when(absent("first")).put("never", b""))
        with pytest.raises(NoSpace):
            client.grant(5)
        assert [alarm.kind for alarm in client.alarms()] == ["NOSPACE"]
        assert client.delete("k1") == 1
        client.compact(client.revision, physical=True)
        client.defragment()
        client.disarm()
        until(lambda: client.alarms() == (), 5)
        client.put("again", b"")

        server.kill()
        server.wipe()
        server.start()
        with pytest.raises(Halted, match="crony recover"):
            client.get("k")
        with pytest.raises(Halted):
            client.put("k", b"")


def test_a_member_dies_under_load(etcd_cluster: EtcdCluster) -> None:
    with Client(etcd_cluster.endpoints, timeout=4) as client:
        client.put("k/start", b"")
        seen: dict[str, int] = {}

        def note(events: list[Event], _revision: int) -> None:
            for event in events:
                seen[event.key] = seen.get(event.key, 0) + 1

        watcher = Watcher(client, "k/", "k0", on_snapshot=None, on_events=note, idle=3).start()
        assert watcher.synced(40)
        stop = threading.Event()
        acknowledged: list[str] = []
        unknown: list[str] = []

        def work(name: int) -> None:
            number = 0
            while not stop.is_set():
                key = f"k/{name}-{number}"
                try:
                    client.put(key, b"")
                    acknowledged.append(key)
                except EtcdUnknown:
                    unknown.append(key)
                assert client.get("k/start") is not None
                number += 1

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) > 50)
        status = client.status()
        leader = next(m for m in etcd_cluster.members if _member(m) == status.leader)
        leader.kill()
        some = len(acknowledged)
        until(lambda: len(acknowledged) > some + 100, 20)
        stop.set()
        for thread in threads:
            thread.join()
        stored = {pair.key for pair in client.list("k/", keys_only=True).kvs}
        assert set(acknowledged) <= stored <= {"k/start", *acknowledged, *unknown}
        until(lambda: stored - {"k/start"} <= set(seen), 10, "the watch delivers all")
        assert set(seen.values()) == {1}
        watcher.stop()
        leader.start()


def test_a_member_cut_off_from_the_others(etcd_cluster: EtcdCluster) -> None:
    alone, *others = etcd_cluster.members
    with Client([alone.endpoint], timeout=1) as client:
        state: dict[str, bytes] = {}
        snapshots: list[int] = []

        def note(events: list[Event], _revision: int) -> None:
            state.update((event.key, event.value) for event in events)

        watcher = Watcher(
            client, "p/", "p0", on_snapshot=lambda _pairs, r: snapshots.append(r), on_events=note, idle=60
        ).start()
        assert watcher.synced(40)
        for member in others:
            member.pause()
        try:
            until(lambda: not watcher.healthy, 15, "the watch leaves a member without a leader")
            with pytest.raises(EtcdUnavailable, match="no leader"):
                client.put("p/not", b"")  # refused at once, so certainly not carried out
        finally:
            for member in others:
                member.resume()
        with Client([others[0].endpoint], timeout=10) as other:
            other.put("p/k", b"1")
        until(lambda: state == {"p/k": b"1"}, 15)
        assert len(snapshots) == 1
        watcher.stop()


def _member(server: EtcdServer) -> int:
    with Client([server.endpoint]) as client:
        return client.status().member


def _works(client: Client) -> bool:
    with contextlib.suppress(EtcdUnavailable, EtcdUnknown):
        client.put("k", b"")
        return True
    return False
