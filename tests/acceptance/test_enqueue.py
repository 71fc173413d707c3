"""`crony.enqueue` as a user's program calls it: jobs by name, own Celery tasks, inside a task too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import crony
from crony.errors import Conflict, Invalid, NotFound, TimedOut
from tests.acceptance import work
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, platform
from tests.helpers.wait import until


@pytest.fixture
def place(own_etcd: EtcdServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform whose nodes (both pools) import the user's module, and this process as its client."""
    with platform(tmp_path / "crony", [own_etcd.endpoint], imports="tests.acceptance.work") as crony_:
        crony_.centre("one")
        crony_.web()
        crony_.node("forks", pool="prefork", concurrency=2, CRONY_NODE_LABELS="pool=forks")
        crony_.node("threads", pool="threads", concurrency=2, CRONY_NODE_LABELS="pool=threads")
        crony_.await_nodes("forks", "threads")
        monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", own_etcd.endpoint)
        monkeypatch.setenv("CRONY_NAMESPACE", crony_.namespace)
        monkeypatch.setenv("CRONY_API", crony_.api)
        monkeypatch.setenv("CRONY_TOKEN", crony_.token)
        monkeypatch.setenv("CRONY_IMPORTS", "tests.acceptance.work")
        yield crony_


def test_enqueue(place: Platform) -> None:
    run = crony.enqueue(work.add, 1, x=2)
    assert run.created
    assert run.wait(30) == "succeeded"
    assert run.result() == 3
    assert run.state == "ended"
    until(lambda: "adding 1 and 2" in place.output(run.id), 20, "the task's own output")

    for pool in ("forks", "threads"):
        spread = crony.enqueue(work.spread, 3, labels={"pool": pool})
        spread.wait(30)
        inner = spread.result()
        assert len(inner) == 3
        assert [place.wait(ident)["result"] for ident in inner] == [1, 2, 3]

    failed = crony.enqueue(work.explode)
    failed.wait(30)
    ended = place.wait(failed.id)
    assert ended["outcome"] == "failed" and "ValueError" in ended["reason"] and "as asked" in ended["reason"]

    with pytest.raises((NotFound, Invalid)):
        crony.enqueue("report/dialy", region="eu")
    place.shell("report/daily", 'echo "region $CRONY_PARAM_REGION"', params={"region": "cn"}, overlap="allow")
    once = crony.enqueue("report/daily", region="eu", idempotency_key="daily-1")
    again = crony.enqueue("report/daily", region="eu", idempotency_key="daily-1")
    assert once.created and not again.created and again.id == once.id
    with pytest.raises(Conflict):
        crony.enqueue("report/daily", region="eu", idempotency_key="daily-1", on_conflict="error")
    once.wait(30)
    until(lambda: "region eu" in place.output(once.id), 20, "the output of the job")

    later = crony.enqueue("report/daily", delay="1h")
    with pytest.raises(TimedOut):
        later.wait(0.5)
    assert later.state == "waiting"
    later.cancel()
    assert place.wait(later.id)["outcome"] == "cancelled"

    asked = time.time()
    soon = crony.enqueue(work.add, 5, delay=1)
    soon.wait(30)
    assert soon.result() == 5
    assert time.time() - asked >= 1
