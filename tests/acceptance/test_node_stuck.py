"""P4: a node whose loop is stuck lets its lease end by itself; its work goes elsewhere; it comes back when it moves."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance import stuck
from tests.helpers.etcd import EtcdServer
from tests.helpers.history import starts
from tests.helpers.platform import platform
from tests.helpers.wait import until

PATIENCE = 5.0


def test_a_stuck_loop_costs_the_node_its_lease(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint], imports="tests.acceptance.stuck") as crony:
        crony.centre("one")
        crony.web()
        free = tmp_path / "free"
        more = {"CRONY_NODE_STUCK": str(PATIENCE), "CRONY_TEST_FREE": str(free)}
        sick = [crony.node(pool, concurrency=1, pool=pool, **more) for pool in ("threads", "prefork")]
        crony.await_nodes("threads", "prefork")
        runs = [
            crony.trigger(crony.marking(f"long-{node.name}", between=crony.at_gate, routing={"exclude": [other.name]}))
            for node, other in zip(sick, reversed(sick), strict=True)
        ]
        until(lambda: all(starts(crony.marked())[(run, 1)] == 1 for run in runs), 30, "the runs to start")
        for node in sick:
            until(lambda node=node: "the loop is watched" in node.tail(400), 20, "the loop to be watched")
        crony.node("heir")
        crony.await_nodes("threads", "prefork", "heir")

        for node in sick:
            assert node.popen is not None
            node.popen.send_signal(stuck.SIGNAL)
        until(
            lambda: all(starts(crony.marked())[(run, 2)] == 1 for run in runs),
            PATIENCE + crony.node_ttl + crony.grace + 2,
            "the work to start elsewhere",
            promised=True,
        )
        crony.gate.touch()
        for run, node in zip(runs, sick, strict=True):
            ended = crony.wait(run)
            assert {a["n"]: a["outcome"] for a in ended["attempts"]} == {1: "lost", 2: "succeeded"}
            assert "in block" in node.tail(400), f"the log says where the loop is\n{node.tail()}"

        free.touch()
        crony.await_nodes("threads", "prefork", "heir")
        for node in sick:
            again = crony.trigger(crony.marking(f"again-{node.name}", routing={"node": node.name}))
            assert crony.wait(again)["outcome"] == "succeeded", "and the node works again"
