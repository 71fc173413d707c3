"""P3 with a real node that is killed, or paused and believed dead: what becomes of its work by the job's policy, and
that nothing of an at-most-once job starts twice (N2, both sides of the start permit, I6)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.helpers import zygote
from tests.helpers.etcd import EtcdServer
from tests.helpers.history import starts
from tests.helpers.platform import Platform, platform
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until


def release(crony: Platform, run: str) -> str:
    """`crony run release RUN`."""
    environ = {**os.environ, "CRONY_API": crony.api, "CRONY_TOKEN": crony.token}
    done = zygote.run([sys.executable, "-m", "crony", "run", "release", run], environ)
    return f"{done.returncode}: {(done.stdout + done.stderr).strip()}"


@pytest.mark.parametrize(("pool", "killed"), [("prefork", True), ("threads", False)])
def test_each_policy_before_and_after_the_start(own_etcd: EtcdServer, tmp_path: Path, pool: str, killed: bool) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony, Proxy(own_etcd.endpoint) as proxy:
        crony.centre("one")
        crony.web()
        node = crony.node("doomed", concurrency=4, pool=pool, CRONY_ETCD_ENDPOINTS=proxy.endpoint)
        crony.await_nodes("doomed")
        made = {
            name: crony.marking(name, between=crony.at_gate, overlap="allow", **fields)
            for name, fields in {
                "once": {"delivery": "at_most_once"},
                "fail": {"on_node_loss": "fail", "retry": {"max": 3, "delay": "0s"}},
                "hold": {"on_node_loss": "hold"},
            }.items()
        }
        started = {name: crony.trigger(job) for name, job in made.items()}
        until(lambda: set(starts(crony.marked())) == {(run, 1) for run in started.values()}, 20, "all to start")
        proxy.swallow('"phase":"S"')
        unstarted = crony.trigger(made["once"])
        until(lambda: f"the permit of run {unstarted} attempt 1 cannot" in node.tail(400), 20, "no permit to be had")
        crony.node("heir")
        crony.await_nodes("doomed", "heir")

        if killed:
            node.kill()
        else:
            node.signal_group(signal.SIGSTOP)
        until(lambda: (unstarted, 1) in starts(crony.marked()), 20, "what had not started to start elsewhere")
        for name in ("once", "fail"):
            ended = crony.wait(started[name])
            assert (ended["outcome"], ended["attempt"]) == ("lost", 1), name
        held = until(lambda: (run := crony.run(started["hold"]))["state"] == "waiting" and run, 20, "the third to wait")
        assert held["reason"].startswith("hold") and held["attempts"][0]["outcome"] == "lost"
        assert release(crony, started["hold"]) == f"0: asked to release {started['hold']}"
        until(lambda: (started["hold"], 2) in starts(crony.marked()), 20, "the next attempt")
        crony.gate.touch()
        assert crony.wait(started["hold"])["outcome"] == "succeeded"
        assert crony.wait(unstarted)["outcome"] == "succeeded"
        assert "is not on hold" in release(crony, started["hold"])

        if not killed:
            proxy.heal()
            node.signal_group(signal.SIGCONT)
            until(lambda: f"run {unstarted} attempt 1 does not start" in node.tail(400), 30, "the zombie to give way")
            until(lambda: node.tail(400).count("stale end of run") == 3, 30, "its late ends to be refused")
        expected = {(run, 1): 1 for run in (*started.values(), unstarted)} | {(started["hold"], 2): 1}
        assert starts(crony.marked()) == expected
        kinds = {alert["kind"]: alert for alert in crony.call("GET", "alerts")["items"]}
        assert kinds["run_held"]["run"] == started["hold"]
