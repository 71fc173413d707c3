"""P4, P5, P7: etcd, the database or the web go away under load and come back; nothing is lost, nobody exits."""

from __future__ import annotations

import time
from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.helpers.history import judge, starts
from tests.helpers.mariadb import MariaServer
from tests.helpers.platform import Document, Platform, platform
from tests.helpers.wait import until


def _settle(crony: Platform, jobs: list[Document], period: int, first: int, last: int, timeout: float = 60) -> None:
    until(
        lambda: all(judge(crony.runs(job), crony.skips(job), period, first, last).lost == [] for job in jobs),
        timeout,
        "every fire to be recorded",
        every=0.5,
    )
    for job in jobs:
        verdict = judge(crony.runs(job), crony.skips(job), period, first, last)
        assert verdict.lost == [] and verdict.doubled == [], verdict


def test_etcd_away_for_twenty_seconds_loses_nothing(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        crony.centre("two")
        crony.web()
        crony.node("n1", concurrency=8)
        crony.node("n2", concurrency=4, pool="prefork")
        crony.await_nodes("n1", "n2")
        every = crony.marking("every", schedule={"every": "2s"}, overlap="allow", misfire={"after": "10m"})
        latest = crony.marking(
            "latest", schedule={"every": "2s"}, overlap="allow", misfire={"after": "5s", "policy": "fire_once"}
        )
        during = crony.marking("during", between="sleep 6", overlap="allow")
        first = int(time.time()) + 2
        until(lambda: len(starts(crony.marked())) >= 4, 20, "work to flow")
        long = crony.trigger(during)
        until(lambda: starts(crony.marked())[(long, 1)] == 1, 10, "the long run to start")

        own_etcd.kill()
        away = time.monotonic()
        until(lambda: time.monotonic() - away > 20, 30, "twenty seconds without etcd")
        own_etcd.start()

        back = int(time.time())
        until(lambda: any(at > back for *_, what, at in crony.marked() if what == "start"), 30, "work to flow again")
        last = int(time.time())
        _settle(crony, [every, latest], 2, first, last)
        assert judge(crony.runs(every), [], 2, first, last).skipped == 0, (
            "late by less than its patience: dispatched as itself"
        )
        assert judge(crony.runs(latest), crony.skips(latest), 2, first, last).skipped >= 4, (
            "later than 5 s: only the latest"
        )
        assert all(skip["reason"] == "misfire" for skip in crony.skips(latest))
        ended = crony.wait(long)
        assert ended["outcome"] == "succeeded" and len(ended["attempts"]) == 1, "running work went on"
        assert all(process.running for process in crony.processes), "nobody exited"
        assert max(starts(crony.marked()).values()) == 1


def test_the_database_away_for_thirty_seconds_costs_nothing(
    own_etcd: EtcdServer, maria: MariaServer, tmp_path: Path
) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint], maria.fresh()) as crony:
        crony.centre("one")
        crony.web()
        crony.node("n1", concurrency=8)
        crony.await_nodes("n1")
        jobs = [
            crony.marking(f"load/{number}", schedule={"every": "1s"}, overlap="allow", misfire={"after": "1h"})
            for number in range(5)
        ]
        first = int(time.time()) + 1
        until(lambda: len(starts(crony.marked())) >= 5, 20, "work to flow")

        maria.kill()
        away = time.monotonic()
        before = len(starts(crony.marked()))
        until(lambda: time.monotonic() - away > 30, 40, "thirty seconds without a database")
        until(lambda: len(starts(crony.marked())) - before >= 5 * 28, 10, "dispatch to go on meanwhile")
        maria.start()

        last = int(time.time())
        _settle(crony, jobs, 1, first, last, timeout=90)
        assert all(process.running for process in crony.processes)
        assert max(starts(crony.marked()).values()) == 1


def test_the_web_away_does_not_stop_work_and_its_output_arrives_afterwards(
    own_etcd: EtcdServer, tmp_path: Path
) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        crony.centre("one")
        web = crony.web()
        crony.node("n1")
        crony.await_nodes("n1")
        job = crony.shell(
            "talk",
            'i=0; while [ $i -lt 2000 ]; do echo "line $i of $CRONY_RUN_ID"; i=$((i+1)); done',
            schedule={"every": "2s"},
        )
        until(lambda: crony.runs(job), 20, "a first run")
        web.kill()
        gone = int(time.time())

        def late() -> set[str]:
            outs = {kv.key.removeprefix(crony.keys.outs).split("/")[0] for kv in crony.client.list(crony.keys.outs).kvs}
            return {run for run in outs if int(run.rsplit(".", 1)[1]) > gone}

        until(lambda: len(late()) >= 3, 20, "runs to end while the web is away")
        runs = sorted(late())[:3]
        web.start()
        for run in runs:
            until(lambda run=run: crony.output(run).count("\n") == 2000, 40, "the output to arrive")
            assert crony.output(run).splitlines()[-1] == f"line 1999 of {run}"
