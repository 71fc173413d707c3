"""P3, P4, P6: a node is killed, or paused until everybody believes it dead; its work goes on elsewhere, fenced."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.helpers.history import starts
from tests.helpers.platform import Platform, platform
from tests.helpers.wait import until


def _bound(crony: Platform) -> float:
    return crony.node_ttl + crony.grace + 2


def test_work_of_a_killed_node_runs_elsewhere_in_time_and_under_the_right_attempt(
    own_etcd: EtcdServer, tmp_path: Path
) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        crony.web()
        doomed = crony.node("doomed", concurrency=2)
        crony.await_nodes("doomed")
        job = crony.marking("long", between=crony.at_gate, overlap="allow", retry={"max": 1, "delay": "0s"})
        runs = [crony.trigger(job) for _ in range(6)]
        until(lambda: len(starts(crony.marked())) == 2, 20, "two runs to start")
        claimed = {run for run, _ in starts(crony.marked())}
        until(lambda: crony.count("run/q/run.doomed/m/") == 6, 10, "six messages on the node's queue")
        crony.node("heir", concurrency=6)
        crony.await_nodes("doomed", "heir")

        doomed.kill()
        until(
            lambda: {run for run, attempt in starts(crony.marked()) if run not in claimed} == set(runs) - claimed,
            _bound(crony),
            "unclaimed work to start elsewhere",
            promised=True,
        )
        until(
            lambda: {run for run, attempt in starts(crony.marked()) if attempt == 2} == claimed,
            _bound(crony),
            "claimed work to start again",
            promised=True,
        )

        crony.gate.touch()
        for run in runs:
            ended = crony.wait(run)
            assert ended["outcome"] == "succeeded", ended
            attempts = {attempt["n"]: attempt["outcome"] for attempt in ended["attempts"]}
            assert attempts == ({1: "lost", 2: "succeeded"} if run in claimed else {1: "succeeded"})
        assert max(starts(crony.marked()).values()) == 1
        alerts = until(lambda: crony.call("GET", "alerts", kind="node_lost")["items"], 20, "the loss to be told")
        assert [alert["node"] for alert in alerts] == ["doomed"]


def test_a_paused_node_comes_back_to_find_its_attempt_lost_and_its_end_refused(
    own_etcd: EtcdServer, tmp_path: Path
) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        crony.web()
        zombie = crony.node("zombie", concurrency=1)
        crony.await_nodes("zombie")
        job = crony.marking("zombie-work", between=crony.at_gate, overlap="allow")
        run = crony.trigger(job)
        until(lambda: starts(crony.marked())[(run, 1)] == 1, 20, "the run to start")
        crony.node("heir")
        crony.await_nodes("zombie", "heir")

        paused_at = time.monotonic()
        zombie.signal_group(signal.SIGSTOP)
        until(
            lambda: starts(crony.marked())[(run, 2)] == 1, _bound(crony), "attempt 2 to start elsewhere", promised=True
        )
        crony.gate.touch()
        ended = crony.wait(run)
        assert {a["n"]: a["outcome"] for a in ended["attempts"]} == {1: "lost", 2: "succeeded"}
        until(lambda: time.monotonic() - paused_at > 3 * crony.node_ttl, 30, "three TTLs to pass")
        zombie.signal_group(signal.SIGCONT)
        until(lambda: "stale" in zombie.tail(400).lower(), 30, f"the late end to be refused\n{zombie.tail()}")
        crony.await_nodes("zombie", "heir")

        again = crony.run(run)
        assert again["outcome"] == "succeeded" and again["attempt"] == 2
        assert {a["n"]: a["outcome"] for a in again["attempts"]} == {1: "lost", 2: "succeeded"}
        fresh = crony.trigger(job, labels={})
        assert crony.wait(fresh)["outcome"] == "succeeded", "and the node works again"


def test_sigterm_hands_unstarted_work_back_at_once(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint], node_ttl=120.0) as crony:
        crony.centre("one")
        crony.web()
        leaving = crony.node("leaving", concurrency=1)
        crony.await_nodes("leaving")
        job = crony.marking("drain", between=crony.at_gate, overlap="allow")
        runs = [crony.trigger(job) for _ in range(4)]
        until(lambda: len(starts(crony.marked())) == 1, 20, "one run to start")
        crony.node("heir", concurrency=4)
        crony.await_nodes("leaving", "heir")
        leaving.popen.terminate()  # type: ignore[union-attr]
        until(
            lambda: len(starts(crony.marked())) == 4,
            5,
            "the unstarted work to start elsewhere, long before the TTL of two minutes",
        )
        crony.gate.touch()
        ended = [crony.wait(run) for run in runs]
        assert [run["outcome"] for run in ended] == ["succeeded"] * 4
        assert all(len(run["attempts"]) == 1 for run in ended), "nothing ran twice"
        until(lambda: not leaving.running, 20, "the node to leave")
