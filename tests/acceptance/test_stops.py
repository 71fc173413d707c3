"""Every kind of work, in every pool, is stopped within two seconds: by a cancel, and by its timeout."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crony.domain.node import NodeFacts
from crony.domain.outcome import Kind, Outcome
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from tests.helpers.etcd import EtcdServer
from tests.helpers.grpc_server import GrpcServer, grpc_server
from tests.helpers.node import JOBS, Leader, NodeProcess, running_node
from tests.helpers.service import talker
from tests.helpers.wait import until

PROMISE = 2.0


@dataclass
class Made:
    """A running node and what plays its leader."""

    leader: Leader
    node: NodeProcess
    facts: NodeFacts
    pool: str


@pytest.fixture(scope="module", params=["threads", "prefork", "solo"])
def made(request: pytest.FixtureRequest, etcd: EtcdServer) -> Iterator[Made]:
    """One node per pool for all tests of this file."""
    with Client([etcd.endpoint]) as client:
        leader = Leader(client, Keys(f"stops-{request.param}-{os.getpid()}"))
        with running_node(leader, etcd.endpoint, pool=request.param) as node:
            facts = leader.node(node.name)
            assert facts is not None
            yield Made(leader, node, facts, request.param)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    """A gRPC service that sleeps when told to."""
    with grpc_server(tmp_path_factory.mktemp("ledger")) as server:
        yield server


@dataclass
class Work:
    """Work that never ends by itself."""

    action: dict[str, Any]
    begun: Callable[[], object]
    over: Callable[[], object] = lambda: True
    """Nothing of it goes on."""
    let_go: Callable[[], object] = lambda: None
    more: dict[str, Any] = field(default_factory=dict)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def pids(listed: Path) -> list[int]:
    return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []


def a_shell(folder: Path, stack: ExitStack, ledger: GrpcServer) -> Work:
    listed = folder / "pids"
    script = f"sleep 600 & echo $$ $! >> {listed}; setsid sh -c 'echo $$ >> {listed}; sleep 600' & wait"
    return Work(
        {"kind": "shell", "script": script}, lambda: len(pids(listed)) == 3, lambda: all(map(gone, pids(listed)))
    )


def a_function(folder: Path, stack: ExitStack, ledger: GrpcServer) -> Work:
    mark = folder / "mark"
    action = {"kind": "python", "task": f"{JOBS}.hold", "args": [str(mark)], "kwargs": {}}
    return Work(action, mark.exists, let_go=Path(f"{mark}.go").touch)


def a_silent_service(folder: Path, stack: ExitStack, ledger: GrpcServer) -> Work:
    asked, ended, hold = threading.Event(), threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        asked.set()
        connection.recv(1)  # the end of it
        ended.set()

    stack.callback(hold.set)
    return Work({"kind": "http", "url": stack.enter_context(talker(script))}, asked.is_set, ended.is_set)


def a_service_that_drips(folder: Path, stack: ExitStack, ledger: GrpcServer) -> Work:
    asked, ended = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        asked.set()
        try:
            while not ended.wait(0.1):
                connection.sendall(b"x")
        except OSError:
            ended.set()

    return Work({"kind": "http", "url": stack.enter_context(talker(script))}, asked.is_set, ended.is_set)


def a_grpc_call(folder: Path, stack: ExitStack, ledger: GrpcServer) -> Work:
    name = f"sleep:60.{time.monotonic_ns() % 10**6}"

    def had(event: str) -> bool:
        return any((one["event"], one["request"]["name"]) == (event, name) for one in ledger.asked())

    action = {"kind": "grpc", "address": ledger.address, "method": "ledger.v1.Ledger/Close", "request": {"name": name}}
    return Work(action, lambda: had("called"), lambda: had("cancelled"))


Begin = Callable[[Path, ExitStack, GrpcServer], Work]
WORK = pytest.mark.parametrize("begin", [a_shell, a_function, a_silent_service, a_service_that_drips, a_grpc_call])


def checked(made: Made, work: Work, ended: Outcome) -> None:
    until(work.over, 5, "nothing of it goes on")
    work.let_go()
    left_behind = "cannot be stopped" in ended.reason
    assert left_behind == (made.pool == "threads" and work.action["kind"] == "python")
    assert not made.leader.left(), "no message, claim or order stays"
    after = made.leader.send(made.facts, {"kind": "shell", "script": "true"})
    assert made.leader.ended(after).kind == Kind.SUCCEEDED, "the node goes on"


@WORK
def test_cancel(made: Made, tmp_path: Path, ledger: GrpcServer, begin: Begin) -> None:
    with ExitStack() as stack:
        work = begin(tmp_path, stack, ledger)
        run = made.leader.send(made.facts, work.action, retry={"max": 5}, **work.more)
        until(work.begun, what="the work begins")
        ordered = time.time()
        made.leader.cancel(made.facts, run)
        ended = made.leader.ended(run)
        assert (ended.kind, ended.final) == (Kind.CANCELLED, True), ended.reason
        assert ended.ended_at - ordered <= PROMISE
        checked(made, work, ended)


@WORK
def test_timeout(made: Made, tmp_path: Path, ledger: GrpcServer, begin: Begin) -> None:
    with ExitStack() as stack:
        work = begin(tmp_path, stack, ledger)
        run = made.leader.send(made.facts, work.action, timeout=1.0, **work.more)
        ended = made.leader.ended(run)
        assert (ended.kind, ended.final) == (Kind.TIMED_OUT, True), ended.reason
        assert ended.started_at is not None
        assert ended.ended_at - ended.started_at <= 1.0 + PROMISE
        assert work.begun()
        checked(made, work, ended)
