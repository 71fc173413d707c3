"""P1, P3: a broadcast, parts and a shared queue on real nodes, of which one is killed in the middle of its work."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.helpers.history import starts
from tests.helpers.platform import platform
from tests.helpers.wait import until


def test_nodes_share_the_work_and_one_of_them_is_killed(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        crony.web()
        nodes = {name: crony.node(name, concurrency=4) for name in ("a", "b", "doomed")}
        crony.await_nodes(*nodes)
        say = f'echo "part $CRONY_PART_INDEX of $CRONY_PART_TOTAL"; {crony.at_gate}'
        each = crony.marking("each", between=say, routing={"strategy": "broadcast"}, overlap="allow")
        split = crony.marking(
            "split", between=say, routing={"parts": 6, "strategy": "least_busy"}, retry={"max": 1, "delay": "0s"}
        )
        anyone = crony.marking("anyone", between=crony.at_gate, routing={"strategy": "any"}, overlap="allow")
        broadcast, whole = crony.trigger(each), crony.trigger(split)
        until(lambda: len(starts(crony.marked())) == 9, 30, "a part on each node, and six parts")
        shared = [crony.trigger(anyone) for _ in range(3)]
        until(lambda: len(starts(crony.marked())) == 12, 30, "whoever is free to take the others")

        def on(node: str) -> set[str]:
            return {run["id"] for run in crony.call("GET", "runs", node=node, state="running", limit=200)["items"]}

        until(lambda: sum(len(on(node)) for node in nodes) == 12, 10, "all to be shown where they run")
        held = on("doomed")
        killed = Counter(run.rsplit(".", 1)[0] if run.count(".") == 3 else run for run in held)
        assert killed[broadcast] == 1 and len(on("a")) == len(held) == 4, "each has its share"
        crony.node("heir", concurrency=6)
        crony.await_nodes(*nodes, "heir")
        nodes["doomed"].kill()
        again = {run for run in held if not run.startswith(f"{broadcast}.")}
        until(
            lambda: {run for run, attempt in starts(crony.marked()) if attempt == 2} >= again,
            crony.node_ttl + crony.grace + 5,
            "what the dead one held to start elsewhere",
        )
        crony.gate.touch()
        ended = crony.wait(whole, 60)
        assert ended["outcome"] == "succeeded" and ended["result"] == {"parts": 6, "succeeded": 6}
        parts = crony.call("GET", f"runs/{whole}/parts")["items"]
        assert [part["part"] for part in parts] == list(range(6))
        assert {part["id"]: part["attempt"] for part in parts} == {
            part["id"]: 2 if part["id"] in held else 1 for part in parts
        }
        assert all(crony.wait(run)["outcome"] == "succeeded" for run in shared)

        # The dead node's part of the broadcast is its own: it waits for the node, which comes back.
        (lost,) = [run for run in held if run.startswith(f"{broadcast}.")]
        until(lambda: crony.run(lost)["reason"].startswith("no_node"), 20, "it to wait for its node")
        assert crony.run(broadcast)["parts_ended"] == 2 and crony.run(broadcast)["state"] == "running"
        crony.node("doomed", concurrency=4)
        ended = crony.wait(broadcast, 60)
        assert ended["outcome"] == "succeeded" and ended["parts"] == 3
        found = {part["node"]: part["attempt"] for part in crony.call("GET", f"runs/{broadcast}/parts")["items"]}
        assert found == {"a": 1, "b": 1, "doomed": 2}
        until(lambda: "of 3" in crony.output(f"{broadcast}.0"), 20, "its output")
        crony.quiet()
        assert crony.count("run/join/") == 0
        assert max(starts(crony.marked()).values()) == 1, "no attempt was started twice"
        rows = [run["id"] for run in crony.runs()]
        assert sorted(rows) == sorted([broadcast, whole, *shared]), "one line for each run"
