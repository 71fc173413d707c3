"""A node that loses etcd (N5): what runs goes on, or is stopped before anybody can take it over, as its job says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from crony.domain.node import NodeFacts
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from tests.helpers.etcd import EtcdServer
from tests.helpers.node import JOBS, Leader, NodeProcess, running_node
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until

TTL, GRACE = 2, 3


class Made(NamedTuple):
    """A node behind a proxy, and what plays its leader beside it."""

    leader: Leader
    node: NodeProcess
    facts: NodeFacts
    proxy: Proxy
    pool: str


@pytest.fixture(scope="module", params=["prefork", "threads"])
def made(request: pytest.FixtureRequest, etcd: EtcdServer) -> Iterator[Made]:
    with Client([etcd.endpoint]) as client, Proxy(etcd.endpoint) as proxy:
        leader = Leader(client, Keys(f"node-cut-{request.param}-{os.getpid()}"))
        settings = {"pool": request.param, "concurrency": 4, "node_ttl": TTL, "grace": GRACE}
        with running_node(leader, proxy.endpoint, **settings) as node:
            facts = leader.node(node.name)
            assert facts is not None
            yield Made(leader, node, facts, proxy, request.param)


def holding(mark: Path, trap: str = "") -> dict[str, object]:
    """A shell that says it runs and goes on until `<mark>.go` exists."""
    script = f"{trap}echo $$ > {mark}.new; mv {mark}.new {mark}; while [ ! -e {mark}.go ]; do sleep 0.02; done"
    return {"kind": "shell", "script": script}


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def begun(mark: Path) -> int:
    return int(until(lambda: mark.exists() and mark.read_text().split(), what="the work to begin")[0])


def test_what_a_cut_node_runs_goes_on_or_is_gone_in_time(made: Made, tmp_path: Path) -> None:
    leader, facts, proxy = made.leader, made.facts, made.proxy
    names = ("goes on", "stops", "stubborn", "function")
    marks = {name: tmp_path / name.replace(" ", "-") for name in names}
    actions: dict[str, dict[str, object]] = {
        "goes on": holding(marks["goes on"]),
        "stops": holding(marks["stops"]),
        "stubborn": holding(marks["stubborn"], "trap '' TERM; "),
    }
    if made.pool == "prefork":  # in a thread it could not be stopped
        args = {"args": [str(marks["function"])], "kwargs": {"stubborn": True}}
        actions["function"] = {"kind": "python", "task": f"{JOBS}.hold", **args}
    told = {
        name: leader.envelope(facts, action, on_cut="continue" if name == "goes on" else "stop")
        for name, action in actions.items()
    }
    places = {name: leader.put(envelope) for name, envelope in told.items()}
    pids = {name: begun(marks[name]) for name in told}
    phases = {name: leader.claimed(facts.queue, place)[0].phase for name, place in places.items()}
    assert phases == {name: "C" if name == "goes on" else "S" for name in told}
    cut_at = time.monotonic()
    proxy.cut()
    # A leader sees the loss a TTL after the last renewal at the earliest, and takes over a grace later.
    stopped = {name: pid for name, pid in pids.items() if name != "goes on"}
    until(lambda: all(map(gone, stopped.values())), TTL + GRACE, "what must not go on to be gone", promised=True)
    assert time.monotonic() - cut_at < TTL + GRACE and not gone(pids["goes on"])
    proxy.heal()
    Path(f"{marks['goes on']}.go").touch()
    assert leader.ended(told["goes on"].run).kind == "succeeded"
    for name in stopped:
        ended = leader.ended(told[name].run)
        assert ended.kind == "lost", name
        # What its node had to stop runs again, `retry.max` or not; a function that had to be killed is an attempt.
        assert ended.final is (name == "function"), name
        assert name == "function" or ended.reason == "stopped, because its node was cut off from etcd"


def test_a_cut_shorter_than_the_session_stops_nothing(made: Made, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    run = leader.send(made.facts, holding(mark), on_cut="stop")
    pid = begun(mark)
    made.proxy.break_links()
    assert leader.ended(leader.send(made.facts, {"kind": "shell", "script": "true"})).kind == "succeeded"
    since = time.monotonic()
    until(lambda: time.monotonic() - since > TTL, what="more than a TTL to pass")
    assert not gone(pid)
    Path(f"{mark}.go").touch()
    assert leader.ended(run).kind == "succeeded"
