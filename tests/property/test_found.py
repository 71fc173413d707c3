"""What the search has found, each once more and small."""

from __future__ import annotations

from collections.abc import Iterator

import kombu
import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd import link
from crony.transport_etcd.claims import Delivery, Pick, claim, claim_value
from crony.transport_etcd.errors import BrokerUnavailable
from crony.transport_etcd.message import encode
from crony.transport_etcd.queue import Candidate, Window
from crony.transport_etcd.settler import Settler
from tests.helpers.etcd import EtcdServer
from tests.integration.transport_helpers import connected, put


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys) as connection:
        yield connection
    link.shut()


def test_copies_of_one_message_have_delivery_tags_of_their_own(client: Client, keys: Keys) -> None:
    """They have the same place in each queue, and one request may claim both: an ack of one must not end the other."""
    place = "90000000000000001.e1"
    picks = [
        Pick(queue, Candidate(place, client.put(keys.message(queue, place), encode({"body": "x"})), 0, 0, "", None))
        for queue in ("a", "b")
    ]
    client.put(keys.session("me"), b"{}")
    first, second = claim(client, keys, "me", picks)
    assert first is not None and second is not None
    assert (first.place, first.fence) == (second.place, second.fence)
    assert first.own_tag != second.own_tag


def test_taking_what_was_given_back_leaves_no_claim_behind(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    put(connection, "jobs", "a")
    connection.default_channel.basic_get("jobs").requeue()
    assert connection.default_channel.basic_get("jobs", no_ack=True).payload == "a"
    assert client.count(keys.queue("jobs")) == 0


@pytest.mark.parametrize("late_first", [True, False])
def test_a_late_ack_does_not_swallow_the_ack_of_a_newer_claim(client: Client, keys: Keys, late_first: bool) -> None:
    """Both are of this process, on the same message, and travel together."""
    place = "90000000000000001.e1"
    client.put(keys.message("jobs", place), b"{}")
    old = client.put(keys.claim("jobs", place), claim_value("me", 1))
    new = client.put(keys.claim("jobs", place), claim_value("me", 2))
    told: list[int] = []
    batch = [(Delivery("jobs", place, fence, 1, "me", {}, b"", after=told.append), False) for fence in (old, new)]
    Settler(client, keys)._settle(batch if late_first else batch[::-1], False)
    assert client.count(keys.queue("jobs")) == 0
    assert told[0] == 0 < told[1], "both are told, the late one that it was not ours any more"


def test_a_binding_that_went_with_its_session_is_no_binding(
    connection: kombu.Connection, client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the queue would hear every broadcast still kept: also orders that were for others, before it was there."""
    channel = connection.default_channel
    channel.queue_declare("x", exclusive=True)
    channel.exchange_declare("f", "fanout")
    session = channel.link.session(10)
    attach = session.attach

    def lost_at_once(key: str, value: bytes) -> bool:
        return attach(key, value) and bool(client.delete(key))

    monkeypatch.setattr(session, "attach", lost_at_once)
    with pytest.raises(BrokerUnavailable, match="session"):
        channel.queue_bind("x", "f")


def test_an_exclusive_queue_that_is_gone_leaves_no_lasting_binding(
    connection: kombu.Connection, client: Client, keys: Keys
) -> None:
    channel = connection.default_channel
    channel.queue_declare("x", exclusive=True)
    channel.exchange_declare("f", "fanout")
    client.delete(keys.queue_record("x"))
    channel.link.queues.all_gone()
    with pytest.raises(BrokerUnavailable, match="session"):
        channel.queue_bind("x", "f")
    assert client.count(keys.bound("f")) == 0


def test_consumers_that_take_turns_choose_among_the_most_urgent_only() -> None:
    window = Window()
    window.begin(1)
    window.extend([("00000000000000001.a", 1), ("00000000000000002.b", 1), ("90000000000000001.c", 1)], last=True)
    assert window.head(3) == ["00000000000000001.a", "00000000000000002.b"]
    assert window.head(1) == ["00000000000000001.a"]
    window.take(2)
    assert window.head(3) == ["90000000000000001.c"]
    window.take(1)
    assert window.head(3) == []
