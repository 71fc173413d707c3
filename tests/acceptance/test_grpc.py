"""gRPC jobs on real nodes of every pool; in a pool of processes also when each process makes one call and goes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from crony.domain.sealing import new_secret_key
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from tests.helpers.etcd import EtcdServer
from tests.helpers.grpc_server import grpc_server, sdk_server
from tests.helpers.node import Leader, running_node
from tests.helpers.platform import platform
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


def test_a_service_with_the_sdk_answers_later(etcd: EtcdServer, tmp_path: Path) -> None:
    secret = "one-secret-of-32-characters-and-more"
    with sdk_server(tmp_path / "service", secret) as there, platform(tmp_path / "crony", [etcd.endpoint]) as crony:
        crony.centre("one")
        crony.web()
        crony.node("n1", CRONY_CALL_SECRETS=secret)
        crony.await_nodes("n1")
        action = {"kind": "grpc", "address": there.address, "handler": "long", "request": {"gate": "open"}}
        later = {"deadline": "10m", "heartbeat": "3s"}
        job = crony.job({"name": "grpc", "action": action, "overlap": "allow", "async": later})
        run, other = crony.trigger(job), crony.trigger(job)
        for one in (run, other):
            until(lambda one=one: crony.client.get(crony.keys.run_acc(one)), 20, "the acceptance")
        crony.call("POST", f"runs/{other}:cancel", {})
        assert crony.wait(other)["outcome"] == "cancelled"
        until(lambda: f"{other} 1 cancelled" in there.journal.read_text(), 20, "the work hears of it")
        (tmp_path / "service" / "open").touch()
        ended = crony.wait(run)
        assert (ended["outcome"], ended["result"]) == ("succeeded", {"attempt": 1})
        until(lambda: "it has begun" in crony.output(run), 10, "its output")
        final = crony.job({"name": "final", "action": {**action, "handler": "breaks", "request": {"final": True}},
                           "retry": {"max": 3, "delay": "1s"}})  # fmt: skip
        ended = crony.wait(crony.trigger(final))
        assert (ended["outcome"], ended["code"], len(ended["attempts"])) == ("failed", 17, 1), "it asked for no other"


def test_parameters_of_one_run_and_secrets_reach_the_service_and_nothing_else(etcd: EtcdServer, tmp_path: Path) -> None:
    canary = "c4n4ry-of-gRPC-Zq7"
    with grpc_server(tmp_path / "ledger") as there, platform(tmp_path / "crony", [etcd.endpoint]) as crony:
        crony.extra["CRONY_SECRET_KEY"] = new_secret_key()
        crony.centre("one")
        crony.web()
        crony.node("n1")
        crony.await_nodes("n1")
        crony.call("PUT", "secrets/ledger-token", {"value": canary})
        action = {
            "kind": "grpc", "address": there.address, "method": "ledger.v1.Ledger/Close",
            "request": {"name": "{{params.day}} by {{secret.TOKEN}}"},
            "metadata": {"authorization": "Bearer {{secret.TOKEN}}", "x-day": "{{params.day}}"},
        }  # fmt: skip
        job = crony.job({"name": "close", "action": action, "overlap": "allow", "secrets": {"TOKEN": "ledger-token"},
                         "params": {"day": "monday", "row_count": 7}})  # fmt: skip
        runs = [crony.trigger(job), crony.trigger(job, params={"day": "tuesday", "row_count": 2**53 + 1})]
        ended = [crony.wait(run) for run in runs]
        assert [one["outcome"] for one in ended] == ["succeeded"] * 2, ended
        asked = {one["metadata"]["x-crony-run"]: one for one in there.asked() if one["event"] == "called"}
        for run, day, rows in zip(runs, ("monday", "tuesday"), ("7", str(2**53 + 1)), strict=True):
            assert asked[run]["request"] == {"name": f"{day} by {canary}", "row_count": rows}
            assert asked[run]["metadata"]["authorization"] == f"Bearer {canary}"
            assert asked[run]["metadata"]["x-day"] == day
        assert ended[1]["result"]["name"] == "closed tuesday by ***", "the service gives back what it got"
        wrong = crony.wait(crony.trigger(job, params={"row_count": "many"}))
        assert wrong["outcome"] == "failed" and "row_count" in wrong["reason"], wrong
        assert len([one for one in there.asked() if one["event"] == "called"]) == 2, "it was not sent"
        until(lambda: "tuesday by" in crony.output(runs[1]), 10, "its output")
        files = [path.read_bytes() for path in crony.folder.rglob("*") if path.is_file()]
        pairs = [kv.value for kv in crony.client.list(crony.keys.root).kvs]
        shown = [crony.http.get(f"{crony.api}/api/v1/runs/{run}{part}", timeout=60).content
                 for run in runs for part in ("", "/attempts", "/output")]  # fmt: skip
        assert not [data for data in (*files, *pairs, *shown) if canary.encode() in data]
