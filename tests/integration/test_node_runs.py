"""A real node in each pool executes what a leader puts into its queue, and ends it fenced."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from crony.domain.figures import NODE_COUNTS, numbers
from crony.domain.node import NodeFacts
from crony.domain.run import Wait
from crony.domain.signing import Sealer, new_key
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.workers.keeper_main import below
from tests.helpers.etcd import EtcdServer
from tests.helpers.node import JOBS, Leader, NodeProcess, running_node
from tests.helpers.service import service
from tests.helpers.wait import until


class Made(NamedTuple):
    """A running node and what plays its leader."""

    leader: Leader
    node: NodeProcess
    facts: NodeFacts
    pool: str


@pytest.fixture(scope="module", params=["threads", "prefork", "solo"])
def made(request: pytest.FixtureRequest, etcd: EtcdServer) -> Iterator[Made]:
    """One node per pool for all tests of this file."""
    with Client([etcd.endpoint]) as client:
        leader = Leader(client, Keys(f"node-runs-{request.param}-{os.getpid()}"))
        with running_node(leader, etcd.endpoint, pool=request.param) as node:
            facts = leader.node(node.name)
            assert facts is not None
            yield Made(leader, node, facts, request.param)


ONLY_PROCESSES = pytest.mark.parametrize("made", ["prefork"], indirect=True)
"""For what only a pool of processes can do: outlive one of them, limit it hard."""


def python(task: str, *args: object, **kwargs: object) -> dict[str, object]:
    return {"kind": "python", "task": f"{JOBS}.{task}", "args": list(args), "kwargs": kwargs}


def shell(script: str) -> dict[str, object]:
    return {"kind": "shell", "script": script}


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_the_record_says_what_the_node_can_do(made: Made) -> None:
    facts = made.facts
    assert (facts.queue, facts.pid) == (f"run.{made.node.name}", made.node.popen.pid)
    assert facts.capacity == (1 if made.pool == "solo" else 2)
    assert facts.kinds == ["grpc", "http", "python", "shell"]
    assert made.leader.client.get(made.leader.keys.session(facts.incarnation)) is not None


def test_outcomes(made: Made) -> None:
    leader, facts = made.leader, made.facts
    with service(lambda asked: (200, {"Content-Type": "application/json"}, b"[1]")) as there:
        runs = [
            leader.send(facts, shell("exit 3"), fire_at=1700000000.0, why="because"),
            leader.send(facts, python("add", 1), params={"b": 2}),
            leader.send(facts, {"kind": "http", "url": there.url}),
            leader.send(facts, python("fail", "no luck")),
            leader.send(facts, {"kind": "carrier pigeon"}),
        ]
        ended = [leader.ended(run) for run in runs]
    assert [(o.kind, o.code, o.result) for o in ended] == [
        ("failed", 3, None),
        ("succeeded", None, 3),
        ("succeeded", 200, [1]),
        ("failed", None, None),
        ("refused", None, None),
    ]
    first = ended[0]
    assert (first.node, first.incarnation, first.final, first.attempt) == (made.node.name, facts.incarnation, True, 1)
    assert (first.fire_at, first.why, first.name, first.trigger) == (1700000000.0, "because", "tests/job", "manual")
    assert first.started_at is not None and first.requested_at <= first.started_at < first.ended_at
    assert ended[3].reason == "ValueError: no luck"
    until(lambda: not leader.left(), what="nothing of the runs is left")


def test_a_failed_attempt_parks_its_envelope(made: Made) -> None:
    leader = made.leader
    envelope = leader.envelope(made.facts, shell("exit 1"), retry={"max": 1, "elsewhere": True})
    leader.put(envelope)
    ended = leader.ended(envelope.run)
    assert (ended.kind, ended.final) == ("failed", False)
    parked = leader.client.get(leader.keys.run_wait(envelope.run))
    assert parked is not None
    wait = Wait.read(parked.value)
    assert (wait.reason, wait.finished, wait.outcome, wait.avoid) == ("ended", 1, "failed", [made.node.name])
    assert parked.mod == leader.client.get(leader.keys.out(envelope.run, 1)).mod  # type: ignore[union-attr]
    leader.client.delete(parked.key)
    last = leader.envelope(made.facts, shell("exit 1"), run=envelope.run, attempt=2, retry={"max": 1})
    leader.put(last)
    assert leader.ended(envelope.run, 2).final
    assert not leader.left()


def test_a_cancel_that_came_first(made: Made) -> None:
    envelope = made.leader.envelope(made.facts, shell("exit 0"))
    made.leader.cancel(made.facts, envelope.run)
    # The order and the message are separate keys: what counts is that the order is known when the run starts.
    made.leader.ended(made.leader.send(made.facts, shell("true")))
    made.leader.put(envelope)
    assert made.leader.ended(envelope.run).kind in ("cancelled", "succeeded")
    assert made.leader.client.get(made.leader.keys.cmd(made.node.name, envelope.run)) is None


def test_a_stale_end_writes_nothing(made: Made, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    envelope = leader.envelope(made.facts, shell(f"echo $$ > {mark}; while [ ! -e {mark}.go ]; do sleep 0.02; done"))
    place = leader.put(envelope)
    until(mark.exists, what="the shell begins")
    claim, found = leader.claimed(made.facts.queue, place)
    leader.client.put(found.key, found.value)  # as a take-over and a new claim would: another revision
    Path(f"{mark}.go").touch()
    until(lambda: f"stale end of run {envelope.run}" in made.node.text(), what="the node notices")
    assert leader.outcome(envelope.run) is None
    assert leader.claim(made.facts.queue, place)[0] == claim  # type: ignore[index]
    leader.client.delete(found.key)
    leader.client.delete(leader.keys.message(made.facts.queue, place))


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({}, {"sealer": Sealer(new_key()[0])}, "not signed by a trusted key"),
        ({"expires_at": 1.0}, {}, "expired"),
        ({}, {"task_id": "another:1"}, "came as 'another:1'"),
        ({"attempt": 0}, {}, "attempt 0"),
    ],
)
def test_what_is_not_genuine_is_quarantined(
    made: Made, changes: dict, options: dict, told: str, tmp_path: Path
) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    envelope = leader.envelope(made.facts, shell(f"touch {mark}"), **changes)
    place = leader.put(envelope, **options)
    key = leader.keys.dead(made.facts.queue, place)
    dead = until(lambda: leader.client.get(key), what="the message is quarantined")
    assert told in dead.value.decode() and envelope.run in dead.value.decode()
    assert not mark.exists()
    assert not [key for key in leader.left() if place in key]
    until(lambda: "ALARM" in made.node.text(), what="the alarm is logged")
    assert leader.ended(leader.send(made.facts, shell("true"))).kind == "succeeded"


def test_an_envelope_of_another_queue_is_quarantined(made: Made) -> None:
    leader = made.leader
    envelope = leader.envelope(made.facts, shell("true"), queue="run.elsewhere")
    stolen = leader.put(envelope)
    value = leader.client.get(leader.keys.message("run.elsewhere", stolen)).value  # type: ignore[union-attr]
    leader.client.delete(leader.keys.message("run.elsewhere", stolen))
    leader.client.put(leader.keys.message(made.facts.queue, stolen), value)
    dead = until(lambda: leader.client.get(leader.keys.dead(made.facts.queue, stolen)), what="it is quarantined")
    assert "run.elsewhere" in dead.value.decode()


def test_what_a_process_of_the_pool_counts_is_in_the_record_and_nothing_listens(made: Made) -> None:
    leader = made.leader

    def quarantined() -> float:
        facts = leader.node(made.node.name)
        assert facts is not None
        return numbers(facts.figures, "c", NODE_COUNTS).get("quarantined", {}).get("", 0)

    before = quarantined()
    leader.put(leader.envelope(made.facts, shell("true"), attempt=0))
    until(lambda: quarantined() > before, 20, "the record to say so")
    assert not _listens(made.node.popen.pid)


def _listens(pid: int) -> bool:
    """Whether a process has a socket that listens on TCP: proc_pid_net(5), state 0A."""
    lines = "".join(Path(f"/proc/{pid}/net/{kind}").read_text() for kind in ("tcp", "tcp6")).splitlines()
    listening = {f"socket:[{row[9]}]" for row in map(str.split, lines) if row[3] == "0A"}
    assert listening, "etcd listens, and is told of"
    return any(os.readlink(fd) in listening for fd in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(fd))


def test_a_message_for_an_earlier_start_goes_back_to_the_leader(made: Made, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    envelope = leader.envelope(made.facts, shell(f"touch {mark}"), incarnation="iformer", attempt=2)
    leader.put(envelope)
    parked = until(lambda: leader.client.get(leader.keys.run_wait(envelope.run)), what="it is handed back")
    wait = Wait.read(parked.value)
    assert (wait.reason, wait.finished) == ("reroute", 1)
    assert not mark.exists() and leader.outcome(envelope.run, 2) is None
    leader.client.delete(parked.key)
    assert not leader.left()


@pytest.mark.parametrize("value", [b"garbage", b'{"v":1}\nx', b"\xff\xfe"])
def test_garbage_in_the_queue_does_not_stop_the_node(made: Made, value: bytes) -> None:
    leader = made.leader
    place = f"9{0:016x}.garbage{value.hex()}"
    leader.client.put(leader.keys.message(made.facts.queue, place), value)
    assert leader.ended(leader.send(made.facts, shell("true"))).kind == "succeeded"
    until(lambda: not leader.left(), what="the garbage is set aside")


@ONLY_PROCESSES
def test_a_run_that_kills_its_process_is_lost(made: Made) -> None:
    leader = made.leader
    run = leader.send(made.facts, python("die"), retry={"max": 1})
    ended = leader.ended(run)
    assert (ended.kind, ended.final) == ("lost", False)
    assert "signal 9" in ended.reason
    wait = Wait.read(leader.client.get(leader.keys.run_wait(run)).value)  # type: ignore[union-attr]
    assert (wait.reason, wait.losses) == ("ended", 1)
    leader.client.delete(leader.keys.run_wait(run))
    assert leader.ended(leader.send(made.facts, python("add", 1))).kind == "succeeded"
    assert not leader.left()


@ONLY_PROCESSES
def test_celerys_hard_limit_ends_the_attempt_too(made: Made, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    envelope = leader.envelope(made.facts, python("hold", str(mark), stubborn=True))
    leader.put(envelope, soft_limit=1, hard_limit=2.5)
    ended = leader.ended(envelope.run)
    assert (ended.kind, ended.final) == ("timed_out", True)
    assert "hard time limit" in ended.reason and ended.started_at is not None


@ONLY_PROCESSES
def test_a_pool_process_takes_its_shell_along(made: Made, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    run = leader.send(made.facts, shell(f"trap '' TERM HUP; echo $$ > {mark}; while :; do sleep 0.1; done"))
    until(lambda: mark.exists() and mark.read_text().strip(), what="the shell begins")
    owner = next(pid for pid in made.node.children() if int(mark.read_text()) in dict(below(pid)))
    os.kill(owner, signal.SIGKILL)
    assert leader.ended(run).kind == "lost"
    until(lambda: gone(int(mark.read_text())), 5, "the shell dies too")


def test_drained_by_order(made: Made) -> None:
    leader, order = made.leader, made.leader.keys.nodectl(made.node.name)
    leader.client.put(order, json.dumps({"v": 1, "drain": True}).encode())
    until(lambda: "is drained" in made.node.text(), what="the node obeys")
    envelope = leader.envelope(made.facts, shell("true"))
    place = leader.put(envelope)
    leader.client.put(order, json.dumps({"v": 1, "drain": False}).encode())
    ended = leader.ended(envelope.run)
    assert ended.kind == "succeeded", "it takes work again"
    assert leader.claim(made.facts.queue, place) is None


def test_no_grpc_and_no_surprise_in_the_parent(made: Made) -> None:
    maps = Path(f"/proc/{made.node.popen.pid}/maps").read_text()
    assert "grpc" not in maps
