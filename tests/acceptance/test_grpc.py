"""gRPC jobs on real nodes of every pool; in a pool of processes also when each process makes one call and goes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from tests.helpers.etcd import EtcdServer
from tests.helpers.grpc_server import grpc_server
from tests.helpers.node import Leader, running_node
from tests.helpers.wait import until

RUNS = int(os.environ.get("CRONY_TEST_GRPC_RUNS", "8"))
"""Calls by as many processes, each of which loads gRPC anew: 200 is the promise, and takes a minute of CPU."""


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_calls_and_commands_take_turns_and_a_cancel_works(pool: str, etcd: EtcdServer, tmp_path: Path) -> None:
    with Client([etcd.endpoint]) as client, grpc_server(tmp_path, health="SERVING") as there:
        leader = Leader(client, Keys(f"grpc-{secrets.token_hex(4)}"))
        action = {"kind": "grpc", "address": there.address, "method": "ledger.v1.Ledger/Close", "request": {}}
        settings = {"max_tasks": 1} if pool == "prefork" else {}
        with running_node(leader, etcd.endpoint, pool=pool, **settings) as node:
            facts = leader.node(node.name)
            assert facts is not None
            runs = []
            for _ in range(RUNS if pool == "prefork" else 6):
                runs.append(leader.send(facts, action, timeout=120.0))
                if len(runs) % 4 == 0:
                    assert leader.ended(leader.send(facts, {"kind": "shell", "script": "true"}), timeout=60).kind
            ended = [leader.ended(run, timeout=120) for run in runs]
            assert [one.kind for one in ended] == ["succeeded"] * len(runs), ended
            assert sorted(there.runs()) == sorted(runs), "each was called once"
            assert "grpc" not in Path(f"/proc/{node.popen.pid}/maps").read_text() or pool != "prefork"

            slow = leader.send(facts, {**action, "request": {"name": "sleep:60"}}, timeout=90.0)
            until(lambda: slow in there.runs(), 20, "the call arrives")
            leader.cancel(facts, slow)
            assert leader.ended(slow, timeout=2).kind == "cancelled"
            until(lambda: there.asked()[-1]["event"] == "cancelled", what="the service hears of it")
        until(lambda: not leader.left(), what="nothing of the runs is left")
