"""P3, P4: nodes are drained or restarted one after the other under load: nothing is lost, nothing runs twice.

One round in `make test`; `CRONY_TEST_ROUNDS=20 pytest tests/acceptance/test_rolling_restart.py` for longer.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Process, platform
from tests.helpers.wait import until

ROUNDS = int(os.environ.get("CRONY_TEST_ROUNDS", "1"))


def test_a_rolling_restart_under_load_loses_and_doubles_nothing(own_etcd: EtcdServer, tmp_path: Path) -> None:
    pools = {"first": "prefork", "second": "threads", "third": "threads"}
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        crony.web()
        nodes = {name: crony.node(name, concurrency=2, pool=pool) for name, pool in pools.items()}
        crony.await_nodes(*nodes)
        ticking = crony.marking("ticking", overlap="allow", schedule={"every": "1s"})
        asked = crony.marking("asked", between="sleep 0.3", overlap="allow")
        runs: list[str] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.wait(0.1):
                runs.append(crony.trigger(asked))

        loading = threading.Thread(target=load)
        loading.start()
        try:
            for _ in range(ROUNDS):
                _restart(crony.nodes, nodes["first"])
                crony.call("PATCH", "nodes/second", {"drain": True})
                until(lambda: not crony.call("GET", "nodes/second")["holds"], 30, "a drained node to be empty")
                _restart(crony.nodes, nodes["second"])
                crony.call("PATCH", "nodes/second", {"drain": False})
                _restart(crony.nodes, nodes["third"])
        finally:
            stop.set()
            loading.join()
        crony.call("POST", f"jobs/{ticking['id']}:pause")
        crony.quiet()
        crony.archived()

        until(lambda: all(run["state"] == "ended" for run in crony.runs()), 10, "the console to see it")
        ended = {run["id"]: run for run in crony.runs()}
        assert set(runs) <= ended.keys(), "every run that was asked for has ended"
        bad = {run: found for run, found in ended.items() if found["outcome"] != "succeeded" or found["attempt"] != 1}
        assert not bad, f"no run failed, was lost or tried again: {[crony.run(run) for run in bad]}"
        assert Counter((run, what) for run, _, what, _ in crony.marked()) == Counter(
            (run, what) for run in ended for what in ("start", "end")
        ), "each began once and ended once"
        fires = sorted(run["fire_at"] for run in ended.values() if run["job"] == ticking["id"])
        assert len(fires) == len(set(fires)), "no fire came twice"
        assert not crony.skips(ticking), "and none was skipped"


def _restart(registered: object, node: Process) -> None:
    """SIGTERM, gone, started again, registered again."""
    assert callable(registered)
    assert node.stop() == 0
    until(lambda: node.name not in registered(), 10, f"{node.name} to be gone")
    node.start()
    until(lambda: node.name in registered(), 30, f"{node.name} to be back")
