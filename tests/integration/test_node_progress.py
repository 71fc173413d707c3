"""A function says how far it is: shown while it runs, the newest word, at a few writes, and gone with its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from crony.domain.node import NodeFacts
from crony.domain.outcome import Kind
from crony.domain.run import Beat, State
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.look import live_runs
from crony.lifecycle.progress import transaction
from tests.helpers.etcd import EtcdServer
from tests.helpers.node import JOBS, Leader, running_node
from tests.helpers.wait import until


@pytest.fixture(scope="module")
def made(etcd: EtcdServer) -> Iterator[tuple[Leader, NodeFacts]]:
    with Client([etcd.endpoint]) as client:
        leader = Leader(client, Keys(f"node-progress-{os.getpid()}"))
        with running_node(leader, etcd.endpoint, pool="prefork") as node:
            facts = leader.node(node.name)
            assert facts is not None
            yield leader, facts


def began(leader: Leader, facts: NodeFacts, folder: Path) -> str:
    action = {"kind": "python", "task": f"{JOBS}.get_on", "args": [], "kwargs": {"folder": str(folder)}}
    run = leader.send(facts, action)
    until((folder / "pid").exists, 30, "the function to have said it all")
    return run


def test_the_newest_word_is_shown_at_few_writes_and_goes_with_the_end(
    made: tuple[Leader, NodeFacts], tmp_path: Path
) -> None:
    leader, facts = made
    client, keys = leader.client, leader.keys
    run = began(leader, facts, tmp_path)

    def said() -> tuple[float | None, str] | None:
        (live,) = live_runs(client, keys, run=run)
        assert live.state is State.RUNNING
        return (round(live.beat.percent or 0, 2), live.beat.message) if live.beat else None

    until(lambda: said() == (99.97, "nearly there"), 20, "the last word")
    pair = client.get(keys.run_beat(run))
    assert pair is not None and pair.version <= 10, f"{pair.version} writes for 3001 words"
    client.put(keys.run_beat(run), Beat(1.0, 5.0, "of another attempt", 7).encode())
    assert said() is None
    (tmp_path / "go").touch()
    assert leader.ended(run).result == 3000
    assert client.get(keys.run_beat(run)) is None and not leader.left()


def test_a_process_that_dies_leaves_a_word_that_nobody_is_shown(made: tuple[Leader, NodeFacts], tmp_path: Path) -> None:
    leader, facts = made
    run = began(leader, facts, tmp_path)
    until(lambda: leader.client.get(leader.keys.run_beat(run)), 20, "a word")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert leader.ended(run).kind == Kind.LOST
    assert all(live.beat is None for live in live_runs(leader.client, leader.keys, run=run))


def test_only_the_holder_says_how_far_it_is(made: tuple[Leader, NodeFacts]) -> None:
    client, keys = made[0].client, made[0].keys
    claim = keys.claim("run.x", "9.j.1.1")
    client.put(claim, b"{}")
    fence = client.get(claim).mod  # type: ignore[union-attr]
    txn = transaction(keys, "j.1.1", "run.x", "9.j.1.1", fence, Beat(1.0, 5.0, "", 1))
    assert client.txn(txn).succeeded
    client.put(claim, b"{}")
    assert not client.txn(txn).succeeded
    client.delete(claim)
    assert not client.txn(txn).succeeded
