"""Where etcd is and who we are there: several members, alternates, certificates, users with few rights."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from crony.transport_etcd.errors import AccessRefused
from tests.contract.test_etcd_security import Authority, admin, b64
from tests.helpers.etcd import EtcdCluster, EtcdServer, free_ports
from tests.integration.transport_helpers import drained, put, url

FANOUT = kombu.Exchange("all", "fanout", durable=False)


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


def consume(connection: kombu.Connection, got: list[Any]) -> None:
    """A task queue with acknowledgement, and a mailbox as remote control has it."""
    box = kombu.Queue("box", FANOUT, exclusive=True, auto_delete=True)
    for queue, no_ack in ((kombu.Queue("jobs"), False), (box, True)):
        channel = connection.channel()
        channel.basic_qos(0, 10, False)
        took = lambda body, message: (got.append(body), message.acknowledged or message.ack())  # noqa: E731
        kombu.Consumer(channel, [queue], no_ack=no_ack, callbacks=[took]).consume()


class Load:
    """Publishes numbered messages, one after the other, until told to stop."""

    def __init__(self, connection: kombu.Connection) -> None:
        self._connection, self.sent, self.error = connection, 0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.005):
                put(self._connection, "jobs", self.sent)
                self.sent += 1
        except Exception as error:
            self.error = repr(error)


def goes_on(load: Load, consumer: kombu.Connection, got: list[Any], more: int) -> None:
    drained(consumer, got, len(got) + more, 30)
    assert not load.error


def test_a_user_with_rights_on_its_namespace_only_whose_tokens_become_invalid(keys: Keys) -> None:
    with EtcdServer(args=("--bcrypt-cost", "4"), user="root", password="secret") as server:
        with Client([server.endpoint]) as setup:
            for name in ("root", "crony"):
                admin(setup, "user/add", name=name, password="secret")
                admin(setup, "role/add", name=name)
                admin(setup, "user/grant", user=name, role=name)
            mine = {"permType": "READWRITE", "key": b64(keys.root), "range_end": b64(keys.root[:-1] + "0")}
            admin(setup, "role/grant", name="crony", perm=mine)
            admin(setup, "enable")
        address = url(server, keys).replace("://", "://crony:secret@")
        with pytest.raises(AccessRefused):
            kombu.Connection(address.replace("secret", "wrong"), connect_timeout=3).connect()
        got: list[Any] = []
        with (
            Client([server.endpoint], user="root", password="secret") as root,
            kombu.Connection(address) as consumer,
            kombu.Connection(address) as producer,
        ):
            consume(consumer, got)
            with Load(producer) as load:
                for number in range(5):
                    goes_on(load, consumer, got, 20)
                    admin(root, "user/add", name=f"u{number}", password="x")  # every token is of the past now
                goes_on(load, consumer, got, 20)
            drained(consumer, got, load.sent, 20)
            assert got == list(range(load.sent)) and not load.error
            producer.Producer(exchange=FANOUT).publish("broadcast")
            assert drained(consumer, got, load.sent + 1)[-1] == "broadcast"
        link.shut()


def test_one_of_three_members_dies(etcd_cluster: EtcdCluster, keys: Keys) -> None:
    members = etcd_cluster.members
    options = {"endpoints": etcd_cluster.endpoints, "session_ttl": 20}
    got: list[Any] = []
    address = url(members[0], keys)
    with (
        kombu.Connection(address, transport_options=options) as consumer,
        kombu.Connection(address, transport_options=options) as producer,
    ):
        consume(consumer, got)
        with Load(producer) as load:
            goes_on(load, consumer, got, 10)
            members[0].kill()
            try:
                goes_on(load, consumer, got, 30)
            finally:
                members[0].start()
        drained(consumer, got, load.sent, 20)
        assert sorted(got) == list(range(load.sent)) and not load.error
        assert consumer.connected, "nobody had to reconnect"
    with kombu.Connection(address, transport_options={**options, "endpoints": ",".join(etcd_cluster.endpoints)}) as one:
        assert one.default_channel.queue_declare("jobs", passive=True).message_count == 0


def test_alternates_are_tried_one_by_one(etcd: EtcdServer, keys: Keys) -> None:
    (nobody,) = free_ports(1)
    dead = f"etcd3://127.0.0.1:{nobody}/{keys.namespace}"
    with kombu.Connection(f"{dead};{url(etcd, keys)}", connect_timeout=2) as connection:
        assert connection.port == nobody
        connection.ensure_connection(max_retries=3, interval_start=0.01)
        assert connection.port == etcd.port
        put(connection, "jobs", "through the second")
        assert connection.default_channel.basic_get("jobs").payload == "through the second"


@pytest.mark.parametrize("how", ["options", "ssl"])
def test_certificates_of_both_sides(tmp_path: Path, keys: Keys, how: str) -> None:
    ours = Authority(tmp_path)
    cert, key = ours.issue("client")
    options: Any = {"ca": ours.ca, "cert": cert, "key": key}
    secure: Any = None
    if how == "ssl":  # what Celery's `broker_use_ssl` says
        options, secure = {}, {"ca_certs": ours.ca, "certfile": cert, "keyfile": key}
    with EtcdServer(tls=(ours.ca, *ours.issue("server"))) as server:
        got: list[Any] = []
        with kombu.Connection(url(server, keys), transport_options=options, ssl=secure) as connection:
            consume(connection, got)
            put(connection, "jobs", "secret")
            connection.Producer(exchange=FANOUT).publish("broadcast")
            assert sorted(drained(connection, got, 2)) == ["broadcast", "secret"]
        anonymous = {"ca": ours.ca}
        stranger = kombu.Connection(url(server, keys), transport_options=anonymous, connect_timeout=2)
        with pytest.raises(OSError):
            stranger.connect()
        link.shut()
