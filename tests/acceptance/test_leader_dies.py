"""P1, P2, P6: the leading centre is killed around fires, again and again; every fire is dispatched once."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.helpers.history import judge, starts
from tests.helpers.platform import Process, platform
from tests.helpers.wait import until

KILLS = 20


def test_each_fire_is_dispatched_once_though_the_leader_is_killed_twenty_times(
    own_etcd: EtcdServer, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    with platform(tmp_path / "crony", [own_etcd.endpoint]) as crony:
        centres: dict[str, Process] = {name: crony.centre(name) for name in ("one", "two")}
        crony.web()
        crony.node("n1", concurrency=8)
        crony.await_nodes("n1")
        crony.await_leader()
        each_second = {
            "schedule": {"every": "1s"},
            "overlap": "allow",
            "misfire": {"after": "1h"},
        }
        jobs = [crony.marking(f"tick/{number}", **each_second) for number in range(3)]
        first = int(time.time()) + 1
        until(lambda: len(starts(crony.marked())) >= 3, 20, "the first fires")

        for _ in range(KILLS):
            name = crony.await_leader()
            # somewhere between 200 ms before the next full second and 50 ms after it
            moment = int(time.time()) + 1 + chance.uniform(-0.2, 0.05)
            until(lambda moment=moment: time.time() >= moment, 5, "the moment of the kill", every=0.002)
            centres[name].kill()
            other = until(lambda name=name: (found := crony.leader()) and found != name and found, 15, "another leader")
            assert other in centres
            centres[name].start()

        last = int(time.time())
        until(
            lambda: all(judge(crony.runs(job), crony.skips(job), 1, first, last).lost == [] for job in jobs),
            60,
            "all fires recorded",
            every=0.5,
        )
        for job in jobs:
            verdict = judge(crony.runs(job), crony.skips(job), 1, first, last)
            assert verdict.lost == [] and verdict.doubled == [] and verdict.early == [], verdict
            assert verdict.skipped == 0, "nothing was late enough to be skipped"
        twice = {key: count for key, count in starts(crony.marked()).items() if count > 1}
        assert not twice, f"started twice: {twice}"
