"""Runs in parts: each part is made once and somewhere, the run ends with its parts, whoever leads meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from crony.beat.duties import splitting, waiting
from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.join import Join
from crony.domain.node import NodeFacts
from crony.domain.outcome import Kind
from crony.domain.run import Request
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle.hold import turn
from tests.helpers.beat import FakeNode, Message, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        made.lead()
        yield made


def join_of(place: Stage, run: str) -> Join | None:
    """The record of a run in parts."""
    found = place.client.get(place.keys.run_join(run))
    return Join.read(found.value) if found is not None else None


def parts(place: Stage, run: str) -> list[Message]:
    """The parts that lie in queues, in order of their numbers."""
    found = [message for message in place.messages() if ids.whole(message.run) == run != message.run]
    return sorted(found, key=lambda message: message.envelope.part or 0)


def made(place: Stage, run: str, count: int) -> list[Message]:
    """Until so many parts lie in queues."""
    return until(lambda: len(found := parts(place, run)) == count and found, 10, f"{count} parts")


def end(nodes: dict[str, FakeNode], message: Message, kind: str = Kind.SUCCEEDED, **facts: object) -> None:
    """Claim a part and end it."""
    node = nodes[message.queue.removeprefix("run.")]
    node.end(message, node.claim(message), kind, **facts)


def whole_end(place: Stage, run: str) -> object:
    return until(lambda: place.outs().get((run, "end")), 10, "the end of the whole")


def test_parts_spread_by_the_strategy_and_the_run_ends_with_them(place: Stage) -> None:
    nodes = {name: place.node(name) for name in ("a", "b")}
    job = place.publish(routing={"parts": 4}, params={"x": 1})
    run = place.ask(job, idempotency="k").run
    found = made(place, run, 4)
    assert [message.run for message in found] == [f"{run}.{number}" for number in range(4)]
    assert [(m.envelope.part, m.envelope.parts, m.envelope.idem) for m in found] == [(n, 4, "") for n in range(4)]
    assert sorted(message.queue for message in found) == ["run.a", "run.a", "run.b", "run.b"]
    assert all(message.envelope.params == {"x": 1} for message in found)
    assert place.centres[0].status()["in_parts"] == 1
    began = SYSTEM.wall()
    for message in found[:3]:
        end(nodes, message, started_at=began)
    until(lambda: (join := join_of(place, run)) and join.ends == "sss.", 10, "three ends to be noted")
    assert (run, "end") not in place.outs()
    end(nodes, found[3], started_at=began + 1)
    out = whole_end(place, run)
    assert (out.kind, out.final, out.reason, out.attempt, out.parts) == (Kind.SUCCEEDED, True, "", 0, 4)
    assert out.result == {"parts": 4, "succeeded": 4} and out.started_at == began and out.idem == "k"
    assert join_of(place, run) is None and not place.requests() and not place.waits()


def test_it_says_which_parts_failed_and_each_part_retries_for_itself(place: Stage) -> None:
    nodes = {"a": place.node("a")}
    job = place.publish(routing={"parts": 3}, retry={"max": 1, "delay": "0s"})
    run = place.ask(job).run
    first = made(place, run, 3)
    end(nodes, first[0])
    end(nodes, first[1], Kind.FAILED)
    end(nodes, first[2], Kind.TIMED_OUT)
    tries = lambda: [(m.envelope.part, m.envelope.attempt) for m in parts(place, run)]  # noqa: E731
    until(lambda: tries() == [(1, 2), (2, 2)], 10, "both retries")
    second = parts(place, run)
    until(lambda: (join := join_of(place, run)) and join.ends == "s..", 10, "the one end to be noted")
    end(nodes, second[0], Kind.FAILED)
    end(nodes, second[1], Kind.TIMED_OUT)
    out = whole_end(place, run)
    assert out.kind == Kind.FAILED
    assert out.reason == "2 of 3 parts did not succeed; failed: 1; timed_out: 2"
    alerts = until(lambda: place.client.list(place.keys.alert("")).kvs, 10, "the alert")
    assert [kv.key.removeprefix(place.keys.alert("")) for kv in alerts] == [f"run_failed.{run}"], "one for all"


def test_a_broadcast_goes_to_each_node_that_fits_at_that_moment(place: Stage) -> None:
    nodes = {name: place.node(name, labels={"zone": "x"}) for name in ("a", "b", "c")}
    place.node("elsewhere", labels={"zone": "y"})
    place.control("c", cordoned=True)
    until(lambda: place.centres[0].centre.leader.office.book.controls.get("c"), 5, "the order to be known")  # type: ignore[union-attr]
    job = place.publish(routing={"strategy": "broadcast", "labels": {"zone": "x"}}, retry={"max": 1, "delay": "0s"})
    run = place.ask(job).run
    found = made(place, run, 2)
    assert [(m.queue, m.envelope.part, m.envelope.parts) for m in found] == [("run.a", 0, 2), ("run.b", 1, 2)]
    assert found[0].envelope.why == "each of 2 nodes has a part; strategy broadcast"
    join = join_of(place, run)
    assert join is not None and join.nodes == ["a", "b"]
    place.control("c")
    place.node("late", labels={"zone": "x"})
    end(nodes, found[0])
    end(nodes, found[1], Kind.FAILED)
    (again,) = until(lambda: parts(place, run), 10, "the retry")
    assert (again.queue, again.envelope.attempt) == ("run.b", 2), "elsewhere it would be another node's part"
    end(nodes, again, Kind.FAILED)
    out = whole_end(place, run)
    assert out.reason == "1 of 2 parts did not succeed; failed: 1 (b)"
    assert "cordoned: c" in out.why and "zone is y, not x: elsewhere" in out.why


def test_a_broadcast_without_a_node_is_a_recorded_skip(place: Stage) -> None:
    place.node("a", kinds=["http"])
    job = place.publish(routing={"strategy": "broadcast"})
    run = place.ask(job).run
    out = until(lambda: place.outs().get((run, "0")), 10, "the record")
    assert (out.kind, out.reason, out.detail) == (Kind.SKIPPED, "no_node", "does not run shell jobs: a")
    now = int(time.time())
    timed = place.publish(schedule={"every": "10s"}, routing={"strategy": "broadcast"}, overlap="allow", done=now - 15)
    until(lambda: place.skips(timed), 10, "fires as well")
    assert {skip.reason for skip in place.skips(timed)} == {"no_node"} and place.fires(timed) == []
    assert place.done(timed).upto_at >= now - 15


def test_a_lost_node_s_part_waits_for_its_own_node_then_is_lost(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 1.0)
    nodes = {name: place.node(name) for name in ("a", "b", "c")}
    job = place.publish(routing={"strategy": "broadcast"})
    run = place.ask(job).run
    found = made(place, run, 3)
    end(nodes, found[0])
    nodes["b"].claim(found[1])
    nodes["b"].vanish()
    nodes["c"].vanish()
    nodes["c"] = place.node("c")
    back = until(
        lambda: next((m for m in parts(place, run) if m.envelope.incarnation == nodes["c"].incarnation), None), 10
    )
    end(nodes, back)
    out = whole_end(place, run)
    assert out.kind == Kind.LOST and out.reason == "1 of 3 parts did not succeed; lost: 1 (b)"
    lost = place.outs()[f"{run}.1", "end"]
    assert lost.reason == "its node did not come back within 1 s; not registered: b"


def test_cancelling_the_whole_cancels_its_parts(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting, queued and running ones; none is made any more."""
    monkeypatch.setattr(splitting, "AT_ONCE", 2)
    nodes = {"a": place.node("a", labels={"zone": "a"})}
    job = place.publish(routing={"parts": 5, "labels": {"zone": "a"}}, retry={"max": 3})
    run = place.ask(job).run
    found = made(place, run, 5)
    fence = nodes["a"].claim(found[0])
    end(nodes, found[1], Kind.FAILED)
    until(lambda: f"{run}.1" in place.waits(), 10, "a part to wait for its next attempt")
    place.request(Request("cancel", run=run, job=job.id, generation=1, by="eve", reason="no more"))
    until(lambda: place.client.get(place.keys.cmd("a", f"{run}.0")), 10, "the order for what runs")
    until(lambda: (join := join_of(place, run)) and join.ends == ".cccc", 10, "the others to end")
    assert not parts(place, run)[1:] and not place.waits()
    place.request(Request("cancel", run=run, job=job.id, generation=1))
    nodes["a"].end(found[0], fence, Kind.CANCELLED)
    out = whole_end(place, run)
    assert (out.kind, out.reason) == (Kind.CANCELLED, "no more")
    until(lambda: not place.requests(), 10, "the second request to be dropped")
    assert place.client.list(place.keys.alert("")).kvs == [], "a cancel is no failure"


def test_cancelling_one_part_leaves_the_others(place: Stage) -> None:
    nodes = {"a": place.node("a")}
    job = place.publish(routing={"parts": 2})
    run = place.ask(job).run
    found = made(place, run, 2)
    place.request(Request("cancel", run=found[0].run, job=job.id, generation=1))
    until(lambda: place.outs().get((found[0].run, "1")), 10, "its end")
    end(nodes, found[1])
    out = whole_end(place, run)
    assert (out.kind, out.reason) == (Kind.CANCELLED, "1 of 2 parts did not succeed; cancelled: 0")


def test_parts_of_a_shared_queue_and_of_hashed_keys(place: Stage) -> None:
    for name in ("a", "b", "c"):
        place.node(name, queues=["any"])
    run = place.ask(place.publish(routing={"strategy": "any", "parts": 3})).run
    assert {message.queue for message in made(place, run, 3)} == {"run.@any.shell"}
    hashed = place.publish(routing={"strategy": "hash", "parts": 12}, overlap="allow")
    first, second = place.ask(hashed).run, place.ask(hashed).run
    where = [[message.queue for message in made(place, each, 12)] for each in (first, second)]
    assert where[0] == where[1] and len(set(where[0])) > 1, "spread, and part by part on the same node again"


def test_each_part_needs_a_slot_of_its_own(place: Stage) -> None:
    nodes = {"a": place.node("a")}
    place.pool("reports", 2)
    job = place.publish(routing={"parts": 5}, limits=["pool:reports"])
    run = place.ask(job).run
    begun: list[str] = []
    while len(begun) < 5:
        found = until(lambda: (now := parts(place, run)) and len(now) == min(2, 5 - len(begun)) and now, 10, "the next")
        assert [message.envelope.slots for message in found] and len(place.waits()) == 5 - len(begun) - len(found)
        end(nodes, found[0])
        begun.append(found[0].run)
    assert len(set(begun)) == 5 and whole_end(place, run).kind == Kind.SUCCEEDED
    assert place.client.count(place.keys.pools) == 0, "every slot is free again"


def test_a_record_that_makes_no_sense_ends_its_run(place: Stage) -> None:
    place.node("a")
    job = place.publish(routing={"parts": 2})
    run = place.ask(job).run
    made(place, run, 2)
    join = join_of(place, run)
    assert join is not None
    other = f"{job.id}.1.m1"
    place.client.put(place.keys.run_join(other), replace(join, run=other).encode())
    forged = replace(join, run=f"{other}2", total=900, envelope=join.envelope)
    place.client.put(place.keys.run_join(f"{other}2"), forged.encode())
    place.client.put(place.keys.run_join(f"{other}3"), b"[[[")
    for each in (other, f"{other}2", f"{other}3"):
        assert whole_end(place, each).kind == Kind.REFUSED
    place.client.put(place.keys.run_join(run), replace(join, total=900).encode())
    assert "another run" in whole_end(place, run).reason, "how many parts there are was sealed"
    place.request(Request("parts", run=other, job=job.id, parts={"0": "succeeded"}))
    place.request(Request("parts", run="nonsense", job=job.id))
    until(lambda: not place.requests(), 10, "both to be dropped")


def test_nothing_is_handed_out_while_dispatch_is_stopped(place: Stage) -> None:
    nodes = {"a": place.node("a")}
    run = place.ask(place.publish(routing={"parts": 2})).run
    first = made(place, run, 2)
    turn(place.client, place.keys, True, by="eve")
    for message in first:
        end(nodes, message)
    whole_end(place, run)
    held = place.ask(place.publish(routing={"parts": 2})).run
    assert settled(lambda: parts(place, held)) == []
    turn(place.client, place.keys, False, by="eve")
    made(place, held, 2)


def test_the_parts_count_as_one_run_for_overlap(place: Stage) -> None:
    nodes = {"a": place.node("a")}
    job = place.publish(routing={"parts": 3}, overlap="queue_one")
    first = place.ask(job).run
    found = made(place, first, 3)
    second, third = place.ask(job).run, place.ask(job).run
    until(lambda: place.outs().get((third, "0")), 10, "the third to be skipped: one waits already")
    assert place.waits()[second].reason == "overlap"
    for message in found[:2]:
        end(nodes, message)
    until(lambda: (join := join_of(place, first)) and join.ended == 2, 10, "two ends")
    assert settled(lambda: place.waits()[second].reason) == "overlap", "one part is still alive"
    end(nodes, found[2])
    for message in made(place, second, 3):
        end(nodes, message)
    assert whole_end(place, second).kind == Kind.SUCCEEDED


def test_cancel_previous_replaces_the_whole(place: Stage) -> None:
    nodes = {"a": place.node("a")}
    job = place.publish(routing={"parts": 2}, overlap="cancel_previous")
    first = place.ask(job).run
    found = made(place, first, 2)
    fence = nodes["a"].claim(found[0])
    second = place.ask(job).run
    until(lambda: place.client.get(place.keys.cmd("a", found[0].run)), 10, "what runs to be told")
    assert second in place.waits() and not parts(place, second)
    nodes["a"].end(found[0], fence, Kind.CANCELLED)
    assert whole_end(place, first).reason == "a later one took its place"
    assert len(made(place, second, 2)) == 2


def test_a_broadcast_to_five_hundred_nodes_through_changes_of_leader(etcd: EtcdServer, keys: Keys) -> None:
    """Many transactions, each of them safe: every node gets its part once, whoever leads when."""
    with stage(etcd.endpoint, keys) as place:
        lease = place.client.grant(600)
        nodes = {}
        for number in range(500):
            node = FakeNode.__new__(FakeNode)
            node.stage, node.name, node.queue = place, f"n{number:03d}", f"run.n{number:03d}"
            node.incarnation, node.lease = ids.incarnation(), lease
            nodes[node.name] = node
        put_all(place, nodes, lease)
        job = place.publish(routing={"strategy": "broadcast"})
        run = place.ask(job).run
        for number in range(4):
            running = place.lead(centre=f"c{number}")
            wanted = min(500, (number + 1) * 120)
            until(lambda w=wanted: (join := join_of(place, run)) and join.made >= w, 20, "parts", every=0.0)  # type: ignore[misc]
            running.stop()
        place.lead(centre="last")
        found = made(place, run, 500)
        assert {message.queue for message in found} == {node.queue for node in nodes.values()}
        join = join_of(place, run)
        assert join is not None and join.made == join.total == 500
        for message in found:
            end(nodes, message)
        out = until(lambda: place.outs().get((run, "end")), 30, "the end")
        assert out.result == {"parts": 500, "succeeded": 500} and join_of(place, run) is None


def put_all(place: Stage, nodes: dict[str, FakeNode], lease: int) -> None:
    """The records of many nodes, under one lease."""
    names = list(nodes)
    for start in range(0, len(names), 40):
        txn = Txn()
        for name in names[start : start + 40]:
            node = nodes[name]
            facts = NodeFacts(name, node.incarnation, node.queue, "h", 1, "b", "0", 4, kinds=["shell"])
            txn.put(place.keys.session(node.incarnation), b"{}", lease=lease)
            txn.put(place.keys.node(name), facts.encode(), lease=lease)
        assert place.client.txn(txn).succeeded
