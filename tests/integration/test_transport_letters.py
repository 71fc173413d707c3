"""Messages that go no further: delivered too often, refused, expired; what `crony queue` shows and does of them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kombu
import pytest

from crony.cli.main import run
from crony.domain.run import Claim
from crony.errors import Invalid, NotFound
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.transport_etcd import link
from crony.transport_etcd.letters import HISTORY, Letter, Letters
from crony.transport_etcd.upkeep import Upkeep
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.transport_helpers import Worker, application, connected, drained, put, workers


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def connection(etcd: EtcdServer, keys: Keys) -> Iterator[kombu.Connection]:
    with connected(etcd, keys, delivery_limit=3) as connection:
        yield connection


@pytest.fixture
def letters(client: Client, keys: Keys) -> Letters:
    return Letters(client, keys)


def settled(connection: kombu.Connection) -> None:
    """Everything in the background is done."""
    shared = connection.default_channel.link
    assert shared.settler.flush(10) and shared.burial.flush(10)


def only(letters: Letters, queue: str) -> Letter:
    """The one letter of a queue, once it is there."""
    return until(lambda: next(letters.of(queue), None), 20, f"a dead letter of {queue}")


# -- how a message gets there ----------------------------------------------------------------------------


def test_a_message_given_back_again_and_again_ends_as_a_dead_letter(
    connection: kombu.Connection, client: Client, keys: Keys, letters: Letters
) -> None:
    put(connection, "q", "poison")
    put(connection, "q", "innocent")
    stored = client.list(keys.messages("q")).kvs[0]
    counts = []
    got: list[Any] = []

    def on_message(message: Any) -> None:
        got.append(message.payload)
        if message.payload == "innocent":
            message.ack()
        else:
            counts.append(message.properties["crony"]["count"])
            message.requeue()

    connection.Consumer([kombu.Queue("q")], on_message=on_message, prefetch_count=1).consume()
    drained(connection, got, 4)
    letter = only(letters, "q")
    assert counts == [1, 2, 3]
    assert letter.value == stored.value
    assert (letter.count, letter.reason) == (3, "delivered 3 times, 3 allowed")
    assert [each["queue"] for each in letter.history] == ["q"]
    settled(connection)
    assert client.count(keys.queue("q")) == 0
    assert "innocent" in got


def test_those_who_die_with_it_count_as_deliveries(
    connection: kombu.Connection, client: Client, keys: Keys, letters: Letters
) -> None:
    kombu.Queue("q")(connection.default_channel).declare()
    put(connection, "q", "poison")
    (message,) = client.list(keys.messages("q")).kvs
    dead = Session(client, keys, ttl=5)
    dead.start()
    place = message.key.removeprefix(keys.messages("q"))
    client.put(keys.claim("q", place), Claim(incarnation=dead.incarnation, count=3).encode())
    got: list[Any] = []
    connection.Consumer([kombu.Queue("q")], on_message=got.append, prefetch_count=5).consume()
    dead.close()

    def buried() -> Any:
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        return next(letters.of("q"), None)

    assert until(buried, 20, "its fourth delivery does not happen").count == 3
    assert got == []


def test_the_queue_may_say_how_often(
    connection: kombu.Connection, client: Client, keys: Keys, letters: Letters
) -> None:
    channel = connection.default_channel
    for name, limit in (("once", 1), ("for ever", -1)):
        kombu.Queue(name, queue_arguments={"x-delivery-limit": limit})(channel).declare()
        put(connection, name, "x")
    for _ in range(6):
        channel.basic_get("for ever").requeue()
    channel.basic_get("once").requeue()
    assert channel.basic_get("once") is None
    assert only(letters, "once").count == 1
    assert letters.counts() == {"once": 1}


def test_what_nobody_was_handed_is_not_a_delivery(connection: kombu.Connection, client: Client, keys: Keys) -> None:
    put(connection, "q", "a", "b")
    for _ in range(5):
        got: list[Any] = []
        consumer = connection.Consumer([kombu.Queue("q")], on_message=got.append, prefetch_count=2)
        consumer.consume()
        until(lambda: client.count(keys.claims("q")) == 2, 10, "both are claimed")
        settled(connection)
        consumer.cancel()
        settled(connection)
        connection.default_channel.basic_recover(requeue=True)
        settled(connection)
    assert got == []
    message = connection.default_channel.basic_get("q")
    assert message.properties["crony"]["count"] == 1 and not message.delivery_info["redelivered"]


@pytest.mark.parametrize("arguments", [{"x-dead-letter": True}, {"x-dead-letter-exchange": "dlx"}])
def test_what_is_refused_or_expires_is_kept_where_the_queue_says_so(
    connection: kombu.Connection, client: Client, keys: Keys, letters: Letters, arguments: dict[str, Any]
) -> None:
    channel = connection.default_channel
    for name in ("plain", "keeps"):
        kombu.Queue(name, queue_arguments=arguments if name == "keeps" else {})(channel).declare()
        put(connection, name, "bad")
        channel.basic_get(name).reject()
        put(connection, name, "late", expiration=0.001)
        until(lambda: channel.queue_declare(name, passive=True).message_count == 0, 10, "it expires")  # noqa: B023
        put(connection, name, "late", expiration=0.001)
        until(lambda: channel.basic_get(name) is None and client.count(keys.messages(name)) == 0, 10)  # noqa: B023
    settled(connection)
    assert client.count(keys.queue("plain")) == client.count(keys.queue("keeps")) == 0
    assert letters.counts() == {"keeps": 3}
    assert sorted(letter.reason for letter in letters.of("keeps")) == ["expired", "expired", "rejected"]


def test_upkeep_keeps_them_too(connection: kombu.Connection, letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"tick": 0.05, "contents_every": 0.1}.items():
        monkeypatch.setattr(Upkeep, name, seconds)
    queue = kombu.Queue("q", message_ttl=0.1, queue_arguments={"x-dead-letter": True})
    queue(connection.default_channel).declare()
    put(connection, "q", "x")
    connection.Consumer([kombu.Queue("watcher")], on_message=lambda m: None).consume()
    assert only(letters, "q").reason == "expired"


def test_too_late_is_too_late(connection: kombu.Connection, client: Client, keys: Keys, letters: Letters) -> None:
    """A claim that was taken over is not ours to bury."""
    kombu.Queue("q", queue_arguments={"x-dead-letter": True})(connection.default_channel).declare()
    put(connection, "q", "x")
    message = connection.default_channel.basic_get("q")
    place = message.properties["crony"]["place"]
    client.put(keys.claim("q", place), Claim(incarnation="somebody", count=2).encode())
    message.reject()
    settled(connection)
    assert client.get(keys.message("q", place)) is not None
    assert letters.counts() == {}


@pytest.mark.parametrize("pool", ["prefork"])
def test_a_task_that_kills_its_child_ends_as_a_dead_letter(
    etcd: EtcdServer, keys: Keys, letters: Letters, tmp_path: Path, pool: str
) -> None:
    app = application(etcd, keys)
    with workers(Worker(etcd, keys, tmp_path, pool, concurrency=1, delivery_limit=2)) as (worker,):
        app.send_task("judge.killer", ("boom",))
        letter = until(lambda: next(letters.of("celery"), None), 60, "the poison is set aside")
        assert letter.count == 2
        app.send_task("judge.note", ("alive",))
        worker.saw("alive", timeout=40)
        assert worker.lines().count("boom") == 2


# -- and back --------------------------------------------------------------------------------------------------


def test_a_letter_goes_back_to_its_queue_with_its_history(
    connection: kombu.Connection, client: Client, keys: Keys, letters: Letters
) -> None:
    channel = connection.default_channel
    queue = kombu.Queue("q", queue_arguments={"x-dead-letter": True})
    queue(channel).declare()
    put(connection, "q", {"n": 1}, priority=4, headers={"mine": "x"}, expiration=600)
    stamps = channel.link.publisher.stamps
    for times in (1, 2):
        channel.basic_get("q").reject()
        settled(connection)
        letter = only(letters, "q")
        assert len(letter.history) == times
        assert letters.requeue(letter, stamps.next())
        assert not letters.requeue(letter, stamps.next())
        assert not letters.drop(letter)
    message = channel.basic_get("q")
    assert (message.payload, message.properties["priority"], message.headers["mine"]) == ({"n": 1}, 4, "x")
    assert [each["reason"] for each in message.headers[HISTORY]] == ["rejected", "rejected"]
    assert message.properties["crony"]["count"] == 1
    assert message.properties["crony"]["place"] != letter.place
    message.reject()
    settled(connection)
    channel.queue_delete("q")
    assert letters.requeue(only(letters, "q"), stamps.next())  # and makes its queue again
    assert client.get(keys.queue_record("q")) is not None
    with pytest.raises(NotFound):
        letters.get("q", letter.place)


# -- crony queue -------------------------------------------------------------------------------------------------


@pytest.fixture
def crony(
    etcd: EtcdServer, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """`crony queue …`: what it prints (JSON if it is that), with the exit code it must have."""
    for name in [name for name in os.environ if name.startswith("CRONY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", etcd.endpoint)
    monkeypatch.setenv("CRONY_NAMESPACE", keys.namespace)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def call(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        ended = run(["queue", *arguments])
        printed = capsys.readouterr()
        assert ended == code, printed
        return json.loads(printed.out) if "json" in arguments else printed.out + printed.err

    return call


def test_the_command(crony: Callable[..., Any], connection: kombu.Connection, client: Client, keys: Keys) -> None:
    assert "no queues" in crony("list")
    channel = connection.default_channel
    queue = kombu.Queue("a/b", kombu.Exchange("ex"), "k", queue_arguments={"x-dead-letter": True})
    queue(channel).declare()
    put(connection, "a/b", *(f"secret{number}" for number in range(6)), headers={"task": "t.sum", "id": "i1"})
    put(connection, "loose", "x")
    for _ in range(3):
        channel.basic_get("a/b").reject()
    settled(connection)
    channel.basic_get("a/b")
    consumer = connection.Consumer([queue], on_message=lambda m: None, prefetch_count=1)
    consumer.consume()
    client.put(keys.message("run.n1", "90.r"), b"?")
    assert crony("list", "-o", "json") == [
        {"name": "a/b", "ready": 2, "unacked": 1, "consumers": 1, "dead": 3, "kind": "durable"},
        {"name": "loose", "ready": 1, "unacked": 0, "consumers": 0, "dead": 0, "kind": "undeclared"},
        {"name": "run.n1", "ready": 1, "unacked": 0, "consumers": 0, "dead": 0, "kind": "runs"},
    ]
    consumer.cancel()
    assert [line.split() for line in crony("list").splitlines()][1] == [
        "a/b",
        "2",
        "1",
        "0",
        "3",
        "durable",
    ]
    shown = crony("show", "a/b", "-o", "json")
    assert (shown["arguments"], shown["bindings"]) == (
        {"x-dead-letter": True},
        [{"exchange": "ex", "routing_key": "k"}],
    )
    assert "bound to" in crony("show", "a/b")
    listed = crony("dead", "a/b", "-o", "json")
    assert [(each["reason"], each["deliveries"], each["headers"]["task"]) for each in listed] == [
        ("rejected", 1, "t.sum")
    ] * 3
    assert "secret" not in crony("dead", "a/b") + json.dumps(listed)
    first, second, _ = (each["place"] for each in listed)
    assert "secret0" not in crony("dead", "a/b", first)
    assert "secret0" in crony("dead", "a/b", first, "--body")
    assert "1 messages given back" in crony("requeue", "a/b", second)
    crony("requeue", "a/b", first, second, code=3)
    assert "say --yes" in crony("drop", "a/b", first, code=2)
    assert "1 dead letters" in crony("drop", "a/b", first, "--yes")
    assert "Name the places" in crony("requeue", "a/b", code=2)
    assert "1 messages given back" in crony("requeue", "a/b", "--all")
    assert client.count(keys.letters) == 0
    assert "say --yes" in crony("purge", "a/b", code=2)
    assert "4 messages deleted" in crony("purge", "a/b", "--yes")
    assert client.count(keys.messages("a/b")) == 1
    for refused in (("purge", "run.n1", "--yes"), ("dead", "run.n1"), ("drop", "run.n1", "--all", "--yes")):
        assert "a run must not vanish" in crony(*refused, code=Invalid.exit_code)
    assert client.count(keys.messages("run.n1")) == 1
    assert "no queue 'nowhere'" in crony("show", "nowhere", code=3)


def test_the_command_shows_and_withdraws_what_waits_for_its_eta(
    crony: Callable[..., Any], connection: kombu.Connection
) -> None:
    assert "nothing waits" in crony("waiting")
    eta = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    for ident in ("t1", "t2", "t3"):
        connection.Producer().publish("x", routing_key="a/b", headers={"eta": eta, "id": ident, "task": "app.later"})
    listed = crony("waiting", "a/b", "-o", "json")
    assert [(each["queue"], each["task"], each["eta"]) for each in listed] == [("a/b", "app.later", eta)] * 3
    assert "app.later" in crony("waiting") and "nothing waits" in crony("waiting", "other")
    assert "crony queue waiting" in crony("withdraw", "a/b", "t9", "--yes", code=3)
    assert "--all" in crony("withdraw", "a/b", "--yes", code=2)
    assert "--yes" in crony("withdraw", "a/b", "t2", code=2)
    assert "1 waiting tasks of a/b deleted" in crony("withdraw", "a/b", "t2", "--yes")
    assert sorted(each["id"] for each in crony("waiting", "-o", "json")) == ["t1", "t3"]
    assert "2 waiting tasks" in crony("withdraw", "a/b", "--all", "--yes")
