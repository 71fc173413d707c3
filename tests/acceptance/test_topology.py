"""The shape of docker-compose.yml with local processes: three etcd, MariaDB, two centres, two nodes, two webs."""

from __future__ import annotations

import time
from pathlib import Path

from tests.helpers.etcd import EtcdCluster
from tests.helpers.history import judge, starts
from tests.helpers.mariadb import MariaServer
from tests.helpers.platform import platform
from tests.helpers.wait import until


def test_production_shape_survives_the_loss_of_one_of_each(maria: MariaServer, tmp_path: Path) -> None:
    with EtcdCluster(3) as cluster, platform(tmp_path / "crony", cluster.endpoints, maria.fresh()) as crony:
        centres = {name: crony.centre(name) for name in ("one", "two")}
        web = crony.web()
        nodes = [crony.node("n1"), crony.node("n2", pool="prefork", concurrency=2)]
        crony.await_nodes("n1", "n2")
        job = crony.marking(
            "tick", schedule={"every": "1s"}, overlap="allow", retry={"max": 2, "delay": "0s"}, misfire={"after": "1h"}
        )
        first = int(time.time()) + 1
        until(lambda: {run["node"] for run in crony.runs(job)} == {"n1", "n2"}, 30, "both nodes to be used")

        cluster.members[0].kill()
        centres[crony.await_leader()].kill()
        nodes[0].kill()
        until(lambda: crony.nodes() == {"n2"}, 30, "the lost node to be seen")
        crony.node("n3")
        crony.await_nodes("n2", "n3")
        web.kill()
        crony.web("web-two")

        last = int(time.time()) + 3
        until(lambda: time.time() > last + 1, 10, "some more fires")
        until(
            lambda: judge(crony.runs(job), crony.skips(job), 1, first, last).lost == [],
            60,
            "every fire to be recorded",
            every=0.5,
        )
        verdict = judge(crony.runs(job), crony.skips(job), 1, first, last)
        assert verdict.doubled == [] and verdict.skipped == 0, verdict
        assert max(starts(crony.marked()).values()) == 1
