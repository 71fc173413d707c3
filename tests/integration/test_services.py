"""Instances of services: their transaction on a real etcd, whose turn it is, and a node that passes over the dead."""

from __future__ import annotations

import secrets
import signal
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crony.domain.service import Instance, parse_instance
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle import enlist as subject
from crony.lifecycle.enlist import delist, enlist, hear, instances
from crony.workers.services import NoInstance, Services
from tests.helpers.etcd import EtcdServer
from tests.helpers.grpc_server import grpc_server
from tests.helpers.node import Leader, running_node
from tests.helpers.service import Asked, service
from tests.helpers.wait import until


def instance(address: str, name: str = "billing", **more: Any) -> Instance:
    return parse_instance(name, {"address": address, **more})


def test_a_sign_of_life_never_brings_back_who_was_taken_off(client: Client, keys: Keys) -> None:
    one = instance("10.0.0.1:1")
    enlist(client, keys, one)

    def taken_off_meanwhile(there: Instance) -> Instance:
        assert delist(client, keys, "billing", one.instance, lambda _: True)
        return replace(there, weight=5)

    assert hear(client, keys, "billing", one.instance, taken_off_meanwhile) is None
    assert instances(client, keys) == []


def test_who_leaves_late_takes_nobody_else_off(client: Client, keys: Keys) -> None:
    first, secret = instance("10.0.0.1:1", instance="a").sealed()
    second, _ = instance("10.0.0.2:1", instance="a").sealed()
    enlist(client, keys, first)

    def replaced_meanwhile(there: Instance) -> bool:
        if there.address == first.address:
            enlist(client, keys, second)
        return there.is_shown(secret)

    assert not delist(client, keys, "billing", "a", replaced_meanwhile)
    assert [each.address for each in instances(client, keys)] == ["10.0.0.2:1"]


def test_of_two_that_register_under_a_name_the_later_one_is_there(client: Client, keys: Keys) -> None:
    first, first_secret = instance("10.0.0.1:1", instance="a").sealed()
    second, second_secret = instance("10.0.0.2:1", instance="a").sealed()
    enlist(client, keys, first)
    enlist(client, keys, second)
    assert [each.address for each in instances(client, keys)] == ["10.0.0.2:1"]
    for secret, heard in ((first_secret, False), (second_secret, True)):
        found = hear(client, keys, "billing", "a", lambda it, s=secret: it if it.is_shown(s) else None)  # type: ignore[misc]
        assert (found is not None) is heard


def test_who_is_silent_is_gone_with_its_lease_and_no_lease_is_left(client: Client, keys: Keys) -> None:
    one = instance("10.0.0.1:1", ttl="5s")
    enlist(client, keys, one)
    kv = client.get(keys.svc("billing", one.instance))
    assert kv is not None and 0 < client.keep_alive(kv.lease) <= 5
    until(lambda: not instances(client, keys), 15, "it is forgotten")
    assert hear(client, keys, "billing", one.instance, lambda there: there) is None


def test_a_service_has_so_many_instances_and_no_more(
    client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "MOST", 2)
    for host in (1, 2, 2):
        enlist(client, keys, instance(f"10.0.0.{host}:1"))
    with pytest.raises(subject.Conflict, match="2 instances already"):
        enlist(client, keys, instance("10.0.0.3:1"))


def test_turns_follow_the_weights_and_pass_over_the_sick_and_the_dead(client: Client, keys: Keys) -> None:
    for host, more in ((1, {"weight": 300}), (2, {"weight": 100}), (3, {"healthy": False}), (4, {"weight": 0})):
        enlist(client, keys, instance(f"10.0.0.{host}:1", **more))
    enlist(client, keys, instance("10.0.0.9:1", protocol="https"))
    services = Services(client, keys)

    def turns(count: int = 40) -> Counter[str]:
        return Counter(next(services.choices("billing", ("grpc",))).address for _ in range(count))

    assert turns() == {"10.0.0.1:1": 30, "10.0.0.2:1": 10}
    assert {each.address for each in services.choices("billing", ("grpc",))} == {"10.0.0.1:1", "10.0.0.2:1"}
    services.shun(instance("10.0.0.1:1"))
    assert turns() == {"10.0.0.2:1": 40}
    services.shun(instance("10.0.0.2:1"))
    assert sum(turns().values()) == 40, "when all were away they are tried all the same"
    firsts = Counter(next(Services(client, keys).choices("billing", ("grpc",))).address for _ in range(60))
    assert len(firsts) == 2, "processes do not all begin with the same one"
    with pytest.raises(NoInstance, match="speaks http or https is registered"):
        next(services.choices("shop", ("http", "https")))
    for host in (1, 2):
        delist(client, keys, "billing", f"10.0.0.{host}:1", lambda _: True)
    with pytest.raises(NoInstance, match="1 not well, 1 of weight 0"):
        next(Services(client, keys).choices("billing", ("grpc",)))


def test_a_node_calls_by_name_and_fails_over_while_instances_die(etcd: EtcdServer, tmp_path: Path) -> None:
    def answer(name: str) -> Any:
        return lambda asked: (200, {"Content-Type": "application/json"}, f'"{name} {asked.path}"'.encode())

    with Client([etcd.endpoint]) as client, ExitStack() as stack:
        leader = Leader(client, Keys(f"svc-{secrets.token_hex(4)}"))
        one, two = (stack.enter_context(grpc_server(tmp_path / name, health="SERVING")) for name in ("one", "two"))
        sick = stack.enter_context(grpc_server(tmp_path / "sick", health="NOT_SERVING"))
        node = stack.enter_context(running_node(leader, etcd.endpoint))
        facts = leader.node(node.name)
        assert facts is not None
        grpc = {"kind": "grpc", "service": "ledger", "method": "ledger.v1.Ledger/Close", "request": {}}
        nobody = leader.ended(leader.send(facts, grpc))
        assert nobody.kind == "failed" and "no instance of ledger" in nobody.reason
        for there in (one, two, sick):
            enlist(client, leader.keys, instance(there.address, "ledger"))
        until(lambda: leader.ended(leader.send(facts, grpc)).kind == "succeeded", 20, "the node knows of them")

        def called(count: int) -> list[str]:
            runs = [leader.send(facts, grpc) for _ in range(count)]
            return [leader.ended(run).kind for run in runs]

        assert called(8) == ["succeeded"] * 8
        assert one.runs() and two.runs() and not sick.runs(), "in turn, and not to who is not well"
        two.signal(signal.SIGKILL)  # its lease lives on for a minute
        before = len(one.runs())
        until(lambda: set(called(4)) == {"succeeded"}, 20, "what was believed for a second is over")
        assert called(8) == ["succeeded"] * 8 and len(one.runs()) >= before + 12

        http = {"kind": "http", "service": "shop", "path": "/do?id={{run.id}}", "method": "POST", "json": {"a": 1}}
        asked: list[Asked] = []
        with service(answer("first")) as first, service(answer("second")) as second:
            for there in (first, second):
                enlist(client, leader.keys, instance(there.url.removeprefix("http://"), "shop", protocol="http"))
            enlist(client, leader.keys, instance("127.0.0.1:9", "shop", protocol="http"))  # nobody is there
            runs = [leader.send(facts, http) for _ in range(9)]
            ended = [leader.ended(run) for run in runs]
            asked = [*first.asked, *second.asked]
            assert first.asked and second.asked
        assert [(out.kind, out.result) for out in ended] == [
            ("succeeded", f"{out.result.split()[0]} /do?id={run}") for run, out in zip(runs, ended, strict=True)
        ]
        assert len(asked) == 9 and {one.headers["x-crony-run"] for one in asked} == set(runs), "each was sent once"
