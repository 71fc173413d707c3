"""A real node calls, is told that the answer comes later, and is free: what the callee gets, and what stays in etcd."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crony.domain.callback import Report, Token
from crony.domain.node import NodeFacts
from crony.domain.run import Accepted
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.complete import Contradicted, Told, complete
from tests.helpers.etcd import EtcdServer
from tests.helpers.grpc_server import grpc_server
from tests.helpers.node import ROOT, Leader, NodeProcess, running_node
from tests.helpers.service import Asked, service, talker
from tests.helpers.wait import until

ACCEPT = f"cd {ROOT} && {sys.executable} -m crony accept"
API = "http://127.0.0.1:9/"
SECRETS = "first-secret-of-32-characters-000,second-secret-of-32-characters-00"
LATER = {"deadline": 600.0, "heartbeat": 30.9, "retry": {"max": 2}, "fire_at": 1700000000.0, "name": "billing/日终 1"}


class Made(NamedTuple):
    """A running node and what plays its leader."""

    leader: Leader
    node: NodeProcess
    facts: NodeFacts

    def accepted(self, run: str) -> Accepted | None:
        """The record of an accepted run."""
        found = self.leader.client.get(self.leader.keys.run_acc(run))
        return Accepted.read(found.value) if found else None

    def left(self, run: str) -> list[str]:
        """Keys of a run but its outcomes."""
        return [key for key in self.leader.left() if run in key]


@pytest.fixture(scope="module")
def made(etcd: EtcdServer) -> Iterator[Made]:
    """One node for all tests of this file."""
    with Client([etcd.endpoint]) as client:
        leader = Leader(client, Keys(f"node-async-{os.getpid()}"))
        with running_node(leader, etcd.endpoint, pool="prefork", api=API, call_secrets=SECRETS) as node:
            facts = leader.node(node.name)
            assert facts is not None
            yield Made(leader, node, facts)


def http(url: str, **more: Any) -> dict[str, Any]:
    return {"kind": "http", "method": "POST", "url": f"{url}/do?a=1&b=%20", "json": {"day": 1}, **more}


def test_a_202_leaves_the_run_to_its_callee_and_the_node_is_free(made: Made) -> None:
    leader = made.leader
    with service(lambda asked: (202, {}, b"on it")) as there:
        before = time.time()
        run = leader.send(made.facts, http(there.url, expect_status=[200]), **LATER)
        record = until(lambda: made.accepted(run), 20, "the run is accepted")
        plain = leader.ended(leader.send(made.facts, http(there.url)))
    assert (plain.kind, plain.code) == ("succeeded", 202), "for other jobs it is an answer like any other"
    assert made.left(run) == [leader.keys.run_acc(run)], "no message, no claim: nothing of it is on the node"
    given, other = there.asked[0].headers, there.asked[1].headers
    token = Token.read(given["x-crony-token"])
    assert (record.secret, record.fence, record.attempt) == (token.digest, token.fence, 1)
    assert token.secret not in str(record) and token.secret not in made.node.text()
    assert given["x-crony-callback"] == f"{API}api/v1/runs/{run}/attempts/1"
    assert given["x-crony-deadline"].endswith("+00:00")
    assert abs(datetime.fromisoformat(given["x-crony-deadline"]).timestamp() - before - 600) < 15
    assert abs(record.deadline_at - before - 600) < 15 and record.heartbeat == 30.9
    told = {name: given[f"x-crony-{name}"] for name in ("run", "attempt", "fence", "job", "retry-max", "heartbeat")}
    assert told == {
        "run": run, "attempt": "1", "fence": str(token.fence), "job": "billing%2F%E6%97%A5%E7%BB%88%201",
        "retry-max": "2", "heartbeat": "30",
    }  # fmt: skip
    assert given["x-crony-fire-time"] == "2023-11-14T22:13:20+00:00" and "x-crony-fire-time" not in other
    assert 1 <= int(given["x-crony-timeout"]) <= 30 and given["idempotency-key"] == run
    assert not {name for name in other if name in ("x-crony-token", "x-crony-callback", "x-crony-deadline")}
    assert len(given["traceparent"]) == 55 and given["traceparent"] != other["traceparent"]
    for asked in there.asked:
        assert asked.headers["x-crony-signature"] == signed(asked, SECRETS.split(",")[0])
    report = Report(True, result=[1])
    assert complete(leader.client, leader.keys, run, 1, token, report) == Told("ended", "succeeded")
    out = leader.ended(run)
    assert (out.node, out.incarnation, out.result) == (made.node.name, made.facts.incarnation, [1])
    assert made.left(run) == []


def signed(asked: Asked, secret: str) -> str:
    """The signature as the contract says, worked out anew."""
    head = asked.headers
    lines = [
        "v1", head["x-crony-timestamp"], asked.method, asked.path, head["x-crony-run"], head["x-crony-attempt"],
        head["x-crony-fence"], head.get("x-crony-callback", ""), hashlib.sha256(asked.body).hexdigest(),
    ]  # fmt: skip
    assert abs(int(head["x-crony-timestamp"]) - time.time()) < 60
    return "v1=" + hmac.new(secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()


def test_a_callee_may_be_faster_than_its_own_answer(made: Made) -> None:
    leader = made.leader
    told: list[Told] = []

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        token, run = Token.read(asked.headers["x-crony-token"]), asked.headers["x-crony-run"]
        told.append(complete(leader.client, leader.keys, run, 1, token, Report(True, result=run[-1])))
        return int(asked.path[-3:]), {}, b""

    with service(answer) as there:
        runs = [
            leader.send(made.facts, {"kind": "http", "url": f"{there.url}/{code}"}, **LATER) for code in (202, 200, 500)
        ]
        ended = [leader.ended(run) for run in runs]
        until(lambda: "(accepted): its callee has ended it as succeeded" in made.node.text(), 20, "the node finds it")
    assert told == [Told("ended", "succeeded")] * 3
    assert [(out.kind, out.result) for out in ended] == [("succeeded", run[-1]) for run in runs]
    assert not any(made.left(run) for run in runs)


def test_a_shell_command_hands_over_by_a_file(made: Made, tmp_path: Any) -> None:
    leader = made.leader
    kept = tmp_path / "kept"
    look = f'(stat -c %a "$CRONY_CALLBACK_TOKEN_FILE"; cat "$CRONY_CALLBACK_TOKEN_FILE"; echo; env) > {kept}; '
    accepting = leader.send(made.facts, {"kind": "shell", "script": look + ACCEPT}, **LATER)
    until(lambda: made.accepted(accepting), 30, "the run is accepted")
    mode, text, *environment = kept.read_text().splitlines()
    token = Token.read(text)
    assert mode == "600" and not [line for line in environment if token.secret in line]
    facts = dict(line.split("=", 1) for line in environment if line.startswith("CRONY_CALLBACK"))
    assert facts["CRONY_CALLBACK"].endswith(f"/{accepting}/attempts/1") and facts["CRONY_CALLBACK_HEARTBEAT"] == "30"
    assert not os.path.exists(facts["CRONY_CALLBACK_TOKEN_FILE"]), "it goes with the command"
    complete(leader.client, leader.keys, accepting, 1, token, Report(False, reason="no", final=True))
    assert leader.ended(accepting).final
    others = {
        'touch "$CRONY_CALLBACK_ACCEPT_FILE"; exit 3': ("failed", 3),
        "true": ("succeeded", 0),
    }
    for script, expected in others.items():
        out = leader.ended(leader.send(made.facts, {"kind": "shell", "script": script}, **LATER))
        assert (out.kind, out.code) == expected
    plain = leader.ended(leader.send(made.facts, {"kind": "shell", "script": ACCEPT}))
    assert (plain.kind, plain.code) == ("failed", 2), "nobody would wait"


def test_the_ok_of_a_grpc_method_can_mean_accepted(made: Made, tmp_path: Path) -> None:
    leader = made.leader
    with grpc_server(tmp_path) as there:
        action = {"kind": "grpc", "address": there.address, "method": "ledger.v1.Ledger/Close", "async": True}
        run = leader.send(made.facts, action, **LATER)
        until(lambda: made.accepted(run), 30, "the run is accepted")
        plain = leader.ended(leader.send(made.facts, {**action, "async": False}, **LATER))
    assert plain.kind == "succeeded" and made.left(run) == [leader.keys.run_acc(run)]
    given = there.asked()[0]["metadata"]
    assert given["x-crony-callback"] == f"{API}api/v1/runs/{run}/attempts/1" and given["x-crony-heartbeat"] == "30"
    complete(leader.client, leader.keys, run, 1, Token.read(given["x-crony-token"]), Report(True, result=[1]))
    assert leader.ended(run).result == [1] and made.left(run) == []


def test_a_report_after_a_call_without_an_answer_is_told_how_it_was_ended(made: Made) -> None:
    leader, calls = made.leader, list[bytes]()

    def hang_up(connection: socket.socket) -> None:
        calls.append(connection.recv(65536))

    with talker(hang_up) as url:
        run = leader.send(made.facts, http(url), **LATER)
        assert leader.ended(run).kind == "unknown"
    head = dict(line.split(": ", 1) for line in calls[0].decode().split("\r\n") if ": " in line)
    with pytest.raises(Contradicted) as caught:
        complete(leader.client, leader.keys, run, 1, Token.read(head["X-Crony-Token"]), Report(True))
    assert caught.value.members == {"outcome": "unknown", "attempt": 1}


def test_a_cancel_that_comes_with_the_acceptance_ends_it(made: Made) -> None:
    leader, held = made.leader, []

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        held.append(1)
        until(lambda: len(held) > 1, 20, "the order")
        return 202, {}, b""

    with service(answer) as there:
        run = leader.send(made.facts, http(there.url), **LATER)
        until(lambda: held, 20, "the call")
        leader.cancel(made.facts, run)
        out = leader.ended(run)
        held.append(1)
    assert (out.kind, out.final) == ("cancelled", True) and made.left(run) == []
