"""P1, P2, P6 with several shards: two centres share four, one is killed and comes back, their number changes."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.helpers.etcd import EtcdServer
from tests.helpers.history import judge, starts
from tests.helpers.platform import Document, Platform, platform
from tests.helpers.wait import until

EACH_SECOND = {"schedule": {"every": "1s"}, "overlap": "allow", "misfire": {"after": "1h"}}
SHARDS = 4


def shares(crony: Platform) -> Counter[str]:
    """How many shards each centre leads."""
    found: Counter[str] = Counter(row["centre"] for row in crony.call("GET", "centres")["leaders"] if row["centre"])
    return found


def verdicts(crony: Platform, jobs: list[Document], first: int, last: int) -> None:
    """Every second had exactly one run of each job."""
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


def test_four_shards_two_centres_a_kill_and_resharding(own_etcd: EtcdServer, tmp_path: Path) -> None:
    with platform(tmp_path / "crony", [own_etcd.endpoint], extra={"CRONY_SHARDS": str(SHARDS)}) as crony:
        centres = {name: crony.centre(name) for name in ("one", "two")}
        crony.web()
        crony.node("n1", concurrency=8)
        crony.await_nodes("n1")
        until(lambda: shares(crony) == {"one": 2, "two": 2}, 20, "each centre to lead two")
        jobs = [crony.marking(f"tick/{number}", **EACH_SECOND) for number in range(6)]
        first = int(time.time()) + 2
        until(lambda: time.time() > first + 1, 10, "some fires")

        centres["one"].kill()
        led = {f"{crony.keys.leader(shard)}" for shard in range(SHARDS)}
        until(
            lambda: {kv.key for kv in crony.client.list(crony.keys.beat).kvs if b'"two"' in kv.value} >= led,
            crony.leader_ttl + 2,
            "two to lead all four",
            promised=True,
        )
        centres["one"].start()
        until(lambda: shares(crony) == {"one": 2, "two": 2}, 30, "balanced again")

        for count in (1, 4, 2):
            assert crony.call("PUT", "shards", {"count": count})["shards"] == count
            until(lambda count=count: sum(shares(crony).values()) == count, 20, f"{count} shards led")
            upto = int(time.time()) + 1
            until(lambda upto=upto: time.time() > upto, 5, "a fire")
        last = int(time.time())
        verdicts(crony, jobs, first, last)
