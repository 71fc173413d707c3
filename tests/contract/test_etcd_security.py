"""Users, tokens and certificates."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from crony.errors import Invalid
from crony.etcd.address import TLS
from crony.etcd.client import Client
from crony.etcd.errors import AuthFailed, EtcdUnavailable
from crony.etcd.h2 import GrpcConnection
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.session import Session
from crony.etcd.txn import Txn, absent
from crony.etcd.watch import Event, Watcher
from crony.settings import Settings
from tests.helpers.authority import Authority
from tests.helpers.etcd import EtcdServer, binary_of
from tests.helpers.wait import until


def admin(client: Client, path: str, **fields: object) -> None:
    client.cluster.call(f"/v3/auth/{path}", json.dumps(fields).encode(), repeatable=False)


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def with_users(server: EtcdServer) -> Client:
    """Turns authentication on: root, and `crony` who may use its own prefix. A client signed in as root."""
    with Client([server.endpoint]) as client:
        admin(client, "user/add", name="root", password="secret")
        admin(client, "role/add", name="root")
        admin(client, "user/grant", user="root", role="root")
        admin(client, "user/add", name="crony", password="pw")
        admin(client, "role/add", name="crony")
        range_ = {"permType": "READWRITE", "key": b64("/crony/"), "range_end": b64("/crony0")}
        admin(client, "role/grant", name="crony", perm=range_)
        admin(client, "user/grant", user="crony", role="crony")
        admin(client, "enable")
    return Client([server.endpoint], user="root", password="secret")


@pytest.mark.parametrize("which", ["system", "wheel"])
def test_users(which: str, keys: Keys) -> None:
    args = ("--bcrypt-cost", "4")
    with EtcdServer(binary_of(which), args=args, user="root", password="secret") as server, with_users(server) as root:
        with Client([server.endpoint]) as nobody, pytest.raises(AuthFailed, match="user and password"):
            nobody.put(keys.root, b"")
        with Client([server.endpoint], user="crony", password="wrong") as wrong, pytest.raises(AuthFailed) as error:
            wrong.get(keys.root)
        assert "wrong" not in str(error.value)
        with Client([server.endpoint], user="crony", password="pw") as client:
            session = Session(client, keys, ttl=5)
            session.start()
            assert client.txn(Txn().when(absent(keys.root + "k")).put(keys.root + "k", b"")).succeeded
            with pytest.raises(AuthFailed, match="permission denied"):
                client.put("elsewhere", b"")
            seen: list[int] = []

            def note(events: list[Event], _revision: int) -> None:
                seen.extend(event.mod for event in events)

            watcher = Watcher(client, keys.root, prefix_end(keys.root), on_snapshot=None, on_events=note).start()
            assert watcher.synced(40)
            last = client.put(keys.root + "k", b"")
            until(lambda: last in seen)
            # The auth store changes: every token is of an old revision now.
            admin(root, "user/add", name="other", password="x")
            client.put(keys.root + "k", b"")
            # A restart forgets all tokens: requests, keep-alive and watch sign in anew.
            server.stop()
            server.start()
            last = client.put(keys.root + "k", b"")
            until(lambda: last in seen)
            until(lambda: session.alive)
            assert seen == sorted(set(seen))
            watcher.stop()
            session.close()


def test_tokens_that_run_out(keys: Keys) -> None:
    args = ("--auth-token-ttl", "1", "--bcrypt-cost", "4")
    with EtcdServer(binary_of("wheel"), args=args, user="root", password="secret") as server:
        with_users(server).close()
        with Client([server.endpoint], user="crony", password="pw") as client:
            client.put(keys.root + "k", b"")
            token = client.cluster._token
            # Use prolongs a token, so look seldom.
            until(lambda: client.put(keys.root + "k", b"") and client.cluster._token != token, 12, every=1.5)


def test_certificates(tmp_path: Path, keys: Keys) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    cert, key = ours.issue("client")
    with EtcdServer(tls=(ours.ca, *ours.issue("server"))) as server:
        settings = Settings(etcd_endpoints=(server.endpoint,), etcd_ca=ours.ca, etcd_cert=cert, etcd_key=key)
        with Client.from_settings(settings) as client:
            session = Session(client, keys, ttl=5)
            assert session.start()
            client.put(keys.root + "k", b"x" * 200_000)
            pair = client.get(keys.root + "k")
            assert pair is not None and len(pair.value) == 200_000
            seen: list[int] = []
            watcher = Watcher(client, keys.root + "k", None, on_snapshot=None, on_events=lambda _e, r: seen.append(r))
            watcher.start()
            assert watcher.synced(40)
            assert isinstance(watcher._connection, GrpcConnection)
            last = client.put(keys.root + "k", b"x" * 500_000)
            until(lambda: seen == [last])
            watcher.stop()
            session.close()
        refused = {
            "their authority": TLS(theirs.ca, cert, key),
            "no certificate": TLS(ours.ca),
            "a certificate of theirs": TLS(ours.ca, *theirs.issue("client")),
            "another name": TLS(ours.ca, cert, key, server_name="example.org"),
        }
        for name, tls in refused.items():
            with Client([server.endpoint], tls=tls, timeout=0.4) as client, pytest.raises(EtcdUnavailable):
                client.get("k")
                pytest.fail(name)
        rotated = (tmp_path / "client.pem", tmp_path / "client.key")
        for source, target in zip(theirs.issue("client"), rotated, strict=True):
            target.write_bytes(Path(source).read_bytes())
        with Client([server.endpoint], tls=TLS(ours.ca, str(rotated[0]), str(rotated[1])), timeout=0.4) as client:
            with pytest.raises(EtcdUnavailable):
                client.put(keys.root, b"")
            for source, target in zip((cert, key), rotated, strict=True):
                target.write_bytes(Path(source).read_bytes())
            until(lambda: _gets(client), 5)


def _gets(client: Client) -> bool:
    try:
        client.get("k")
    except EtcdUnavailable:
        return False
    return True


def test_bad_settings_are_refused_at_start(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("nothing")
    for endpoint in ("ftp://x:1", "http://", "http://u:p@host:1", "http://h:1/path", "http://h:99999", "http://a\r\nb"):
        with pytest.raises(Invalid):
            Client([endpoint])
    with pytest.raises(Invalid):
        Client([])
    with pytest.raises(Invalid, match="TLS"):
        Client(["https://host:1"], tls=TLS(str(broken)))
    with pytest.raises(Invalid, match="TLS"):
        Client(["https://host:1"], tls=TLS(str(tmp_path / "none.pem")))
    with pytest.raises(Invalid, match="user"):
        Client(["http://host:1"], password="x")
    assert TLS().context().verify_mode is ssl.CERT_REQUIRED
