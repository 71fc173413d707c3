"""Real nodes at a shared queue: each takes what it is free for, and nothing that it must not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crony.domain import ids
from crony.domain.node import NodeFacts
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.transport_etcd.message import task_message
from tests.helpers.etcd import EtcdServer
from tests.helpers.node import Leader, NodeProcess, running_node
from tests.helpers.wait import until

QUEUE = "run.@any.shell"


@pytest.fixture(scope="module")
def pair(etcd: EtcdServer) -> Iterator[tuple[Leader, list[NodeProcess]]]:
    """Two nodes with one place each; the second one runs no shells but takes from a queue of its own as well."""
    with Client([etcd.endpoint]) as client:
        leader = Leader(client, Keys(f"shared-{ids.fresh('x')}"))
        with (
            running_node(leader, etcd.endpoint, name="one", concurrency=1) as one,
            running_node(leader, etcd.endpoint, name="two", concurrency=1) as two,
            running_node(leader, etcd.endpoint, name="mute", concurrency=1, shell="off", node_queues="any,odd") as mute,
        ):
            yield leader, [one, two, mute]


def anyone(leader: Leader, action: dict[str, Any], **changes: Any) -> str:
    """A run in the shared queue; its run id."""
    nobody = NodeFacts("", "", QUEUE, "", 0, "", "", 1)
    envelope = leader.envelope(nobody, action, strategy="any", **changes)
    leader.put(envelope)
    return envelope.run


def gated(folder: Path) -> dict[str, Any]:
    script = f"echo $CRONY_RUN_ID >> {folder}/begun; while [ ! -e {folder}/go.$CRONY_RUN_ID ]; do sleep 0.02; done"
    return {"kind": "shell", "script": script}


def begun(folder: Path) -> list[str]:
    mark = folder / "begun"
    return mark.read_text().split() if mark.exists() else []


def test_each_takes_what_it_is_free_for_by_priority(pair: tuple[Leader, list[NodeProcess]], tmp_path: Path) -> None:
    leader, _ = pair
    first = [anyone(leader, gated(tmp_path)) for _ in range(2)]
    until(lambda: set(begun(tmp_path)) == set(first), what="both nodes begin one")
    low, high = anyone(leader, gated(tmp_path)), anyone(leader, gated(tmp_path), priority=7)
    (tmp_path / f"go.{first[0]}").touch()
    freed = leader.ended(first[0])
    until(lambda: len(begun(tmp_path)) == 3, what="the free one goes on")
    assert begun(tmp_path)[2] == high, "the higher priority before the older one"
    for run in (first[1], low, high):
        (tmp_path / f"go.{run}").touch()
    nodes = {run: leader.ended(run).node for run in (*first, low, high)}
    assert {nodes[run] for run in first} == {"one", "two"} and nodes[high] == freed.node
    assert not leader.left()


def test_who_takes_from_what(pair: tuple[Leader, list[NodeProcess]]) -> None:
    leader, _ = pair
    facts = leader.node("mute")
    assert facts is not None and (facts.queues, facts.kinds) == (["any", "odd"], ["grpc", "http", "python"])
    prefix = leader.keys.consumers

    def seen() -> set[tuple[str, str]]:
        pairs = leader.client.list(prefix).kvs
        return {(json.loads(kv.value)["node"], kv.key.removeprefix(prefix).split("/")[0]) for kv in pairs}

    wanted = {"run.mute", *(f"run.@{name}.{kind}" for name in ("any", "odd") for kind in ("grpc", "http", "python"))}
    until(
        lambda: {queue for node, queue in seen() if node == "mute" and queue.startswith("run.")} == wanted,
        what="it takes from these and no others",
    )
    until(lambda: {node for node, queue in seen() if queue == QUEUE} == {"one", "two"}, what="both take from it")


def test_a_cordoned_node_takes_nothing_shared_until_it_is_back(pair: tuple[Leader, list[NodeProcess]]) -> None:
    leader, (one, two, _) = pair
    true = {"kind": "shell", "script": "true"}
    leader.client.put(leader.keys.nodectl("one"), json.dumps({"v": 1, "cordoned": True}).encode())
    until(lambda: "nothing more from shared queues" in one.text(), what="the node obeys")
    ended = [leader.ended(anyone(leader, true)) for _ in range(4)]
    assert {outcome.node for outcome in ended} == {"two"}
    own = leader.node("one")
    assert own and leader.ended(leader.send(own, true)).node == "one", "what is sent to it alone it does"
    leader.client.put(leader.keys.nodectl("two"), json.dumps({"v": 1, "drain": True}).encode())
    until(lambda: "is drained" in two.text(), what="the other one obeys")
    late = anyone(leader, true)
    leader.client.put(leader.keys.nodectl("one"), json.dumps({"v": 1, "weight": 5}).encode())
    assert leader.ended(late).node == "one", "it lay there for whoever comes back"
    leader.client.delete(leader.keys.nodectl("two"))
    leader.client.delete(leader.keys.nodectl("one"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"incarnation": "isomebody"}, "sealed for one node"),
        ({"action": {"kind": "http", "url": "http://127.0.0.1:9"}}, "lies in a queue of shell jobs"),
        ({"expires_at": 1.0}, "expired"),
        ({"queue": "run.@odd.shell"}, "sealed for queue 'run.@odd.shell'"),
        ({"queue": "run.one"}, "sealed for queue 'run.one'"),
    ],
)
def test_what_does_not_belong_there_is_quarantined(
    pair: tuple[Leader, list[NodeProcess]], changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    leader, _ = pair
    mark = tmp_path / "mark"
    nobody = NodeFacts("", "", QUEUE, "", 0, "", "", 1)
    action = {"kind": "shell", "script": f"touch {mark}"}
    envelope = replace(leader.envelope(nobody, action, strategy="any"), **changes)
    sealed = leader.sealer.seal(envelope.payload()).decode()
    place = ids.place(0, 1, envelope.run)
    leader.client.put(leader.keys.message(QUEUE, place), task_message("crony.run", f"{envelope.run}:1", [sealed], {}))
    dead = until(lambda: leader.client.get(leader.keys.dead(QUEUE, place)), what="the message is quarantined")
    assert told in dead.value.decode() and not mark.exists()
