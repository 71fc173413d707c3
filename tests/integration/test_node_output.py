"""Output of real nodes reaches the web: live, after the end, after outages and after being killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.ingest import Kept, ingest
from tests.helpers.node import JOBS, Leader, running_node
from tests.helpers.wait import until


@pytest.fixture
def leader(client: Client, keys: Keys) -> Leader:
    return Leader(client, keys)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_output_is_live_and_complete(leader: Leader, etcd: EtcdServer, tmp_path: Path, pool: str) -> None:
    mark = tmp_path / "mark"
    (port,) = free_ports(1)
    stored, api = Kept(), f"http://127.0.0.1:{port}"
    with running_node(leader, etcd.endpoint, pool=pool, name="n1", api=api, token="node-token") as node:
        facts = leader.node("n1")
        assert facts is not None
        script = f"echo first; while [ ! -e {mark} ]; do sleep 0.02; done; echo oops >&2; echo last"
        run = leader.send(facts, {"kind": "shell", "script": script})
        until(lambda: "output stays on this node" in node.text(), what="the web is away")
        with ingest(port, stored):
            until(lambda: stored.data.get((run, 1)) == b"first\n", what="output is live")
            printed = leader.send(facts, {"kind": "python", "task": f"{JOBS}.say", "args": ["hello"]})
            leader.ended(printed)
            mark.touch()
            leader.ended(run)
            until(lambda: (run, 1) in stored.final and (printed, 1) in stored.final, what="the ends")
            assert node.stop() == 0
    assert stored.streams(run) == [("stdout", b"first\n"), ("stderr", b"oops\n"), ("stdout", b"last\n")]
    (_, out), (_, err), (source, logged) = stored.streams(printed)[:3]
    assert (out, err, source) == (b"hello\n", b"err hello\n", "log") and b"WARNING somebody: log hello" in logged


def test_output_outlives_a_killed_node(leader: Leader, etcd: EtcdServer, tmp_path: Path) -> None:
    mark, spool = tmp_path / "mark", tmp_path / "spool"
    (port,) = free_ports(1)
    told = {"api": f"http://127.0.0.1:{port}", "token": "node-token", "spool_dir": spool}
    with running_node(leader, etcd.endpoint, name="n1", **told) as node:
        facts = leader.node("n1")
        assert facts is not None
        run = leader.send(facts, {"kind": "shell", "script": f"echo half; touch {mark}; sleep 600"})
        until(lambda: mark.exists() and list(spool.rglob("*.open")), what="something is in the spool")
        node.kill()
    with ingest(port) as web, running_node(leader, etcd.endpoint, name="n1", **told):
        until(lambda: (run, 1) in web.final, what="the next start sends it")
        assert web.data[run, 1] == b"half\n"


def test_output_of_a_dead_pool_process_says_so(leader: Leader, etcd: EtcdServer) -> None:
    with ingest() as web:
        api = web.service.url  # type: ignore[union-attr]
        with running_node(leader, etcd.endpoint, pool="prefork", name="n1", api=api, token="node-token"):
            facts = leader.node("n1")
            assert facts is not None
            run = leader.send(facts, {"kind": "python", "task": f"{JOBS}.die"})
            assert leader.ended(run).kind == "lost"
            until(lambda: (run, 1) in web.final, what="its output is complete")
    assert b"the process that ran it died" in web.data[run, 1]
