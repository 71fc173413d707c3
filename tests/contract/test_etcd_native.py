"""etcd's own protocol on a plain socket: that it is used, where it is not, and what it must not get wrong."""

from __future__ import annotations

import http.server
import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from crony.etcd import proto
from crony.etcd.address import address
from crony.etcd.client import Client
from crony.etcd.endpoint import Endpoint
from crony.etcd.errors import BadRequest, Compacted, LeaseGone
from crony.etcd.h2 import GrpcConnection, NoGrpc
from crony.etcd.http import Connection, NotSent
from crony.etcd.keys import Keys
from crony.etcd.skew import ServerClock
from crony.etcd.txn import Txn, absent, exists, mod
from crony.etcd.watch import Event, Watcher
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until


@pytest.fixture
def each(each_etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client that needs the gateway not even for the clock."""
    monkeypatch.setattr(ServerClock, "wanted", False)
    with Client([each_etcd.endpoint]) as client:
        assert client.cluster.native
        yield client


def test_both_protocols_say_the_same(each: Client, keys: Keys) -> None:
    key = keys.root + "ключ"
    each.put(key, b"\x00\xff" * 40)
    each.put(keys.root + "z", b"")
    txn = Txn().when(exists(key), absent(keys.root + "none")).get(key).get(keys.root, keys.root + "~", limit=1)
    txn.nest(Txn().when(mod(key, 1)).delete(key)).nest(Txn().when(exists(key)).get(key))
    txn.put(keys.root + "made", b"v").nest(Txn().delete(keys.root + "z"))
    txn.otherwise.get(key)
    by_etcd = each._txn_native(txn, None)
    each.put(keys.root + "z", b"")
    by_gateway = each._txn_gateway(txn, None)
    assert by_etcd.succeeded
    assert by_etcd.responses[0] == by_gateway.responses[0] and by_etcd.responses[0][0].key == key
    assert [len(found) for found in (by_etcd.responses[1], by_gateway.responses[1])] == [1, 1]
    assert [type(part) for part in by_etcd.responses] == [type(part) for part in by_gateway.responses]
    assert [part.succeeded for part in by_etcd.responses[2:4]] == [False, True]
    assert by_etcd.responses[5].responses == by_gateway.responses[5].responses == [1]


def test_large_requests_and_answers(each: Client, keys: Keys) -> None:
    value = bytes(range(256)) * 4000  # far beyond the first window of the server, and beyond one frame
    for number in range(3):
        each.put(f"{keys.root}{number}", value)
    assert [kv.value for kv in each.list(keys.root).kvs] == [value] * 3
    found = each.get(keys.root + "0")
    assert found is not None and found.value == value


def test_refusals_are_known(each: Client, keys: Keys) -> None:
    with pytest.raises(BadRequest, match="too large"):
        each.put(keys.root + "more", b"x" * 2_000_000)
    with pytest.raises(LeaseGone):
        each.put(keys.root + "leased", b"", lease=4711)
    for _ in range(2):
        revision = each.put(keys.root + "k", b"")
    each.compact(revision)
    with pytest.raises(Compacted):
        each.get(keys.root + "k", revision=revision - 1)
    assert each.cluster.endpoints[0].failures == 0


class _Gateway(http.server.BaseHTTPRequestHandler):
    """Passes the gateway's requests on and knows no HTTP/2, as many a proxy."""

    protocol_version = "HTTP/1.1"
    target = ""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with urllib.request.urlopen(urllib.request.Request(self.target + self.path, body)) as answer:
            data = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def gateway_only(etcd: EtcdServer) -> Iterator[str]:
    handler = type("Handler", (_Gateway,), {"target": etcd.endpoint})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_only_a_gateway(gateway_only: str, keys: Keys) -> None:
    with Client([gateway_only]) as client:
        until(lambda: client.get(keys.root + "k") is None and not client.cluster.speaks_grpc, 20)
        revision = client.put(keys.root + "k", b"1")
        assert client.txn(Txn().when(mod(keys.root + "k", revision)).put(keys.root + "k", b"2")).succeeded
        found = client.get(keys.root + "k")
        assert found is not None and found.value == b"2"
        with pytest.raises(NoGrpc):
            GrpcConnection(client.cluster.endpoints[0].at, 5)


def test_who_hangs_up_at_once_may_know_no_http2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(2):
                server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        endpoint = Endpoint(address(f"127.0.0.1:{server.getsockname()[1]}", None))
        with pytest.raises(NoGrpc):
            endpoint.open_grpc(5)
        endpoint._spoke_grpc = True  # then it ends, or starts again
        with pytest.raises(NotSent):
            endpoint.open_grpc(5)


def test_a_silent_server_is_not_taken_for_a_gateway(etcd: EtcdServer) -> None:
    with Proxy(etcd.endpoint) as proxy, Client([proxy.endpoint]) as client:
        proxy.blackhole("up")
        with pytest.raises(NotSent):
            GrpcConnection(client.cluster.endpoints[0].at, 0.3)
        proxy.heal()


def test_the_watch_goes_straight_to_etcd(etcd: EtcdServer, keys: Keys) -> None:
    with Proxy(etcd.endpoint) as proxy, Client([proxy.endpoint]) as client:
        found: list[Event] = []
        watcher = Watcher(
            client,
            keys.root,
            keys.root + "~",
            on_snapshot=lambda pairs, revision: None,
            on_events=lambda events, revision: found.extend(events),
        ).start()
        assert watcher.synced(10)
        connection = watcher._connection
        assert isinstance(connection, GrpcConnection) and isinstance(connection, Connection)
        proxy.slice = 3
        client.put(keys.root + "k", b"value")
        client.delete(keys.root + "k")
        until(lambda: len(found) == 2, 20)
        assert [(event.kind, event.key, event.value) for event in found] == [
            ("put", keys.root + "k", b"value"),
            ("delete", keys.root + "k", b""),
        ]
        watcher.stop()


def test_cut_off_answers_are_errors() -> None:
    pair = proto.chunk(b"\x0a", b"key") + b"\x18\x07" + proto.chunk(b"\x2a", b"value")
    assert proto.pair(pair).mod == 7
    for length in range(1, len(pair)):
        if length not in (5, 7):  # whole fields
            with pytest.raises((ValueError, IndexError)):
                proto.pair(pair[:length])
