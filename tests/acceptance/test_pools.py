"""A pool with real processes: the limit holds while a node that holds all of it is killed, and the work goes on."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.helpers.history import starts
from tests.helpers.platform import platform
from tests.helpers.pool_history import PoolHistory
from tests.helpers.wait import until


def test_a_shared_limit_outlives_the_node_that_holds_it(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony, PoolHistory(crony.client, crony.keys) as history:
        crony.centre("one")
        crony.web()
        doomed = crony.node("doomed", concurrency=4, pool="prefork")
        crony.await_nodes("doomed")
        crony.call("PUT", "pools/db", {"limit": 2})
        jobs = [
            crony.marking(f"{name}-db", between=crony.at_gate, overlap="allow", limits=["pool:db"]) for name in "ab"
        ]
        runs = [crony.trigger(jobs[number % 2]) for number in range(6)]
        until(lambda: len(starts(crony.marked())) == 2, 20, "two of six to start")
        shown = until(lambda: (pool := crony.call("GET", "pools/db"))["waiting"] == 4 and pool, 10, "four to wait")
        assert shown["held"] == 2 and {holder["node"] for holder in shown["holders"]} == {"doomed"}

        crony.node("heir", concurrency=4)
        crony.await_nodes("doomed", "heir")
        doomed.kill()
        lost = {holder["run"] for holder in shown["holders"]}
        until(lambda: len(starts(crony.marked())) == 4, 20, "two more to start, somewhere else")
        crony.call("PUT", "pools/db", {"limit": 4})
        until(lambda: len(starts(crony.marked())) == 6, 20, "two more at once")
        crony.gate.touch()
        ended = [crony.wait(run) for run in runs]
        assert {run["outcome"] for run in ended} == {"succeeded"}
        assert {run["id"] for run in ended if run["attempt"] == 2} == lost
        until(lambda: crony.count("pool/") == 0, 10, "all slots to be free")
        assert history.caught_up().wrong == [] and history.most == {"db": 4}
