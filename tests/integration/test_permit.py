"""The durable start permit (transaction 9, I6): on a real etcd, and by real nodes whose answers get lost or who die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from crony.domain.node import NodeFacts
from crony.domain.outcome import Kind
from crony.domain.run import Claim, Envelope, Wait
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult
from crony.lifecycle.end import Ended, Stale, end, outcome_of
from crony.lifecycle.handback import hand_back
from crony.lifecycle.permit import Cut, permit, standing, starting
from tests.helpers.attempts import envelope
from tests.helpers.etcd import EtcdServer
from tests.helpers.node import Leader, NodeProcess, running_node
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until

PERMIT = '"phase":"S"'
"""What only a permit's request holds."""


class Claimed:
    """A message that incarnation i0 has claimed, with its session."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client, self.keys = client, keys
        self.told = envelope({"kind": "shell", "command": ["true"]}, delivery="at_most_once")
        self.sealed = Leader(client, keys).sealer.seal(self.told.payload()).decode()
        self.place = f"9{0:016x}.{self.told.run}"
        self.key = keys.claim("run.n1", self.place)
        client.put(keys.session("i0"), b"{}")
        client.put(keys.message("run.n1", self.place), b"message")
        self.fence = client.put(self.key, Claim("i0", node="n1").encode())

    def permit(self, claim: Claim, commit: object = None) -> int | None:
        return permit(self.client, self.keys, "run.n1", self.place, self.fence, claim, commit=commit)  # type: ignore[arg-type]

    def end(self, fence: int) -> Ended | Stale:
        outcome = outcome_of(self.told, Kind.SUCCEEDED, ended_at=5.0, fence=fence, node="n1")
        return end(self.client, self.keys, self.sealed, self.place, fence, outcome)

    def there(self) -> Claim | None:
        found = self.client.get(self.key)
        return Claim.read(found.value) if found else None


@pytest.fixture
def claimed(client: Client, keys: Keys) -> Claimed:
    return Claimed(client, keys)


def start(secret: str = "") -> Claim:
    return starting("i0", 1, node="n1", at=7.0, secret=secret)


def test_a_permit_marks_the_start_and_moves_the_fence(claimed: Claimed) -> None:
    wanted = start("hash")
    fence = claimed.permit(wanted)
    assert fence is not None and fence > claimed.fence
    assert claimed.there() == wanted and wanted.phase == "S" and wanted.secret == "hash" and wanted.nonce
    held = standing(claimed.client, claimed.keys, "run.n1", claimed.place, "i0", 1)
    assert held is not None and held.fence == fence and held.started
    assert standing(claimed.client, claimed.keys, "run.n1", claimed.place, "i0", 2) is None, "another delivery"
    assert isinstance(claimed.end(claimed.fence), Stale), "the fence before ends nothing any more"
    assert isinstance(claimed.end(fence), Ended) and claimed.there() is None


def test_one_of_two_starts(claimed: Claimed) -> None:
    granted = [claimed.permit(start()) for _ in range(2)]
    assert granted[0] is not None and granted[1] is None


def test_what_was_handed_back_or_taken_over_is_not_permitted(claimed: Claimed) -> None:
    give = (claimed.client, claimed.keys, claimed.told, claimed.sealed, claimed.place, claimed.fence)
    assert hand_back(*give, at=1.0, detail="", node="n1")
    assert claimed.permit(start()) is None
    again = claimed.client.put(claimed.key, Claim("i0", count=2, node="n1").encode())
    assert claimed.permit(start()) is None, "a later claim of the same node is not this one"
    assert again == claimed.client.get(claimed.key).mod  # type: ignore[union-attr]


def test_a_permit_is_refused_while_the_session_is_away(claimed: Claimed) -> None:
    wanted = start()
    claimed.client.delete(claimed.keys.session("i0"))
    with pytest.raises(Cut):
        claimed.permit(wanted)
    assert claimed.there() == Claim("i0", node="n1"), "phase C: it can go elsewhere"
    claimed.client.put(claimed.keys.session("i0"), b"{}")
    assert claimed.permit(wanted)


@pytest.mark.parametrize("carried_out", ["before the repeat", "never", "after the repeat"])
def test_a_lost_answer_is_cleared_up_by_asking_again(claimed: Claimed, carried_out: str) -> None:
    wanted, late = start(), list[Txn]()

    def lossy(txn: Txn) -> TxnResult:
        if carried_out == "before the repeat":
            claimed.client.txn(txn)
        late.append(txn)
        raise EtcdUnknown("the answer was lost")

    with pytest.raises(EtcdUnknown):
        claimed.permit(wanted, lossy)
    fence = claimed.permit(wanted)
    if carried_out == "after the repeat":
        assert not claimed.client.txn(late[0]).succeeded, "the fence would move under the work's feet"
    assert fence == claimed.client.get(claimed.key).mod  # type: ignore[union-attr]
    assert isinstance(claimed.end(fence), Ended)  # type: ignore[arg-type]


def test_a_lost_answer_and_somebody_elses_permit(claimed: Claimed) -> None:
    mine, other = start(), start()
    assert claimed.permit(other)
    assert claimed.permit(mine) is None, "another nonce: never start"


# -- real nodes -----------------------------------------------------------------------------------


class Node(NamedTuple):
    """A node of one slot behind a proxy."""

    leader: Leader
    node: NodeProcess
    facts: NodeFacts
    proxy: Proxy
    pool: str

    def told(self, script: str, **changes: object) -> Envelope:
        """An envelope that needs a permit, not put yet."""
        changes = {"delivery": "at_most_once", "on_node_loss": "fail", **changes}
        return self.leader.envelope(self.facts, {"kind": "shell", "script": script}, **changes)


@pytest.fixture(scope="module", params=["threads", "prefork"])
def made(request: pytest.FixtureRequest, etcd: EtcdServer) -> Iterator[Node]:
    with Client([etcd.endpoint]) as client, Proxy(etcd.endpoint) as proxy:
        leader = Leader(client, Keys(f"permit-{request.param}-{os.getpid()}"))
        with running_node(leader, proxy.endpoint, pool=request.param, concurrency=1) as node:
            facts = leader.node(node.name)
            assert facts is not None
            yield Node(leader, node, facts, proxy, request.param)


ONLY_PROCESSES = pytest.mark.parametrize("made", ["prefork"], indirect=True)


def test_the_work_sees_the_fence_of_its_permit(made: Node, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    script = f"echo $CRONY_FENCE > {mark}.new; mv {mark}.new {mark}; until [ -e {mark}.go ]; do sleep .02; done"
    told = made.told(script, pools=["a"], slots=["a/0"])
    leader.client.put(leader.keys.slot("a", 0), b"{}")
    place = leader.put(told)
    until(mark.exists, what="the shell begins")
    claim, found = leader.claimed(made.facts.queue, place)
    assert (claim.phase, claim.node, claim.count) == ("S", made.node.name, 1)
    assert int(mark.read_text()) == found.mod
    Path(f"{mark}.go").touch()
    ended = leader.ended(told.run)
    assert (ended.kind, ended.fence) == ("succeeded", found.mod)
    assert leader.client.get(leader.keys.slot("a", 0)) is None, "its slot is free with its end"
    until(lambda: not leader.left(), what="nothing of it is left")


def test_work_that_may_run_twice_asks_for_no_permit(made: Node, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    told = made.told(f"touch {mark}; until [ -e {mark}.go ]; do sleep .02; done", delivery="at_least_once")
    place = leader.put(leader.envelope(made.facts, told.action, run=told.run))
    until(mark.exists, what="the shell begins")
    assert leader.claimed(made.facts.queue, place)[0].phase == "C"
    Path(f"{mark}.go").touch()
    assert leader.ended(told.run).kind == "succeeded"


def test_a_permit_whose_answer_is_lost_starts_the_work_once(made: Node, tmp_path: Path) -> None:
    made.leader.ended(made.leader.send(made.facts, {"kind": "shell", "script": "true"}))
    mark, lost = tmp_path / "mark", made.proxy.lost
    made.proxy.lose_answer_about(PERMIT)
    told = made.told(f"echo $CRONY_FENCE >> {mark}")
    made.leader.put(told)
    ended = made.leader.ended(told.run)
    assert made.proxy.lost == lost + 1
    assert (ended.kind, mark.read_text()) == ("succeeded", f"{ended.fence}\n")


def test_no_permit_no_start(made: Node, tmp_path: Path) -> None:
    """As long as no permit can be written nothing happens; a leader that takes the claim meanwhile wins."""
    leader, mark = made.leader, tmp_path / "mark"
    made.proxy.swallow(PERMIT)
    told = made.told(f"touch {mark}")
    place = leader.put(told)
    until(lambda: f"the permit of run {told.run} attempt 1 cannot be written yet" in made.node.text(), what="it tries")
    leader.client.delete(leader.keys.message(made.facts.queue, place))
    leader.client.delete(leader.keys.claim(made.facts.queue, place))
    made.proxy.heal()
    until(lambda: f"run {told.run} attempt 1 does not start" in made.node.text(), what="the node hears of it")
    assert leader.ended(leader.send(made.facts, {"kind": "shell", "script": "true"})).kind == "succeeded"
    assert not mark.exists() and leader.outcome(told.run) is None and not leader.left()


@ONLY_PROCESSES
def test_a_process_that_dies_before_its_permit_used_up_nothing(made: Node, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    made.proxy.swallow(PERMIT)
    told = made.told(f"touch {mark}", deliveries=1, pools=["a"], slots=["a/0"])
    leader.client.put(leader.keys.slot("a", 0), b"{}")
    leader.put(told)
    until(lambda: f"the permit of run {told.run} attempt 1 cannot be written yet" in made.node.text(), what="it tries")
    os.kill(made.node.children()[0], signal.SIGKILL)
    parked = until(lambda: leader.client.get(leader.keys.run_wait(told.run)), what="it is handed back")
    made.proxy.heal()
    wait = Wait.read(parked.value)
    assert (wait.reason, wait.finished, wait.deliveries) == ("reroute", 0, 2)
    assert leader.client.get(leader.keys.slot("a", 0)) is None, "and holds no slot while it waits"
    assert not mark.exists() and leader.outcome(told.run) is None
    leader.client.delete(parked.key)
    assert not leader.left()


@ONLY_PROCESSES
def test_a_process_that_dies_after_its_permit_is_ended_under_the_fence_of_it(made: Node, tmp_path: Path) -> None:
    leader, mark = made.leader, tmp_path / "mark"
    told = made.told(f"echo $CRONY_FENCE > {mark}; sleep 600")
    leader.put(told)
    fence = int(until(lambda: mark.exists() and mark.read_text().strip(), what="the shell begins"))
    os.kill(made.node.children()[0], signal.SIGKILL)
    ended = leader.ended(told.run)
    assert (ended.kind, ended.final, ended.fence) == ("lost", True, fence)
    until(lambda: not leader.left(), what="nothing of it is left")
