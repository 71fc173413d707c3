"""Backfills: each instant becomes one run, at most so many at a time, whoever dies at any step; counted and stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.backfill import Backfill, Stop, planned
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.schedule import resolved
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle import backfill as backfills
from crony.lifecycle.hold import turn
from tests.helpers.beat import Dying, FakeNode, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

T0 = 1_700_000_000 // 3600 * 3600
HOURLY = {"every": "1h"}


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, shards=3) as made:
        yield made


def ask(place: Stage, job: LiveJob, hours: int, **changes: Any) -> str:
    """Ask for a backfill of so many hours from `T0` on; its id."""
    wanted = planned(
        ident=ids.backfill_id(), job=job.id, name=job.name, generation=job.generation,
        schedules=resolved(job.job.schedules, job.id), schedule=json.dumps(job.job.schedule_document()),
        start=T0, end=T0 + hours * 3600, now=time.time(), **changes,
    )  # fmt: skip
    made, new = backfills.ask(place.client, place.keys, wanted)
    assert new and made == wanted
    return wanted.id


def now(place: Stage, ident: str) -> Backfill:
    return backfills.find(place.client, place.keys, ident)


class Runs:
    """A node that ends what it gets, and notes it."""

    def __init__(self, place: Stage, ident: str, *nodes: FakeNode) -> None:
        self.place, self.ident, self.nodes = place, ident, nodes
        self.instants: list[int] = []
        self.most = 0

    def some(self, kind: str = Kind.SUCCEEDED) -> bool:
        """End what lies in the queues; whether the backfill has ended."""
        alive = [m for m in self.place.messages() if ids.parse_run_id(m.run).backfill == self.ident]
        self.most = max(self.most, len(alive))
        for node in self.nodes:
            for message in node.messages():
                if message in alive or message.run in {m.run for m in alive}:
                    assert message.envelope.trigger == "backfill"
                    self.instants.append(int(message.envelope.fire_at or 0))
                    node.end(message, node.claim(message), kind)
        return now(self.place, self.ident).ended

    def all(self) -> Backfill:
        """Until it has ended."""
        until(self.some, 20, "the backfill to end")
        return now(self.place, self.ident)


def hours(first: int, last: int) -> list[int]:
    return [T0 + hour * 3600 for hour in range(first, last)]


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_each_instant_runs_once_in_order_beside_the_schedule(place: Stage, order: str) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(schedule=HOURLY, params={"region": "cn", "day": "1"})
    by_hand = place.ask(job).run
    until(lambda: [m.run for m in node.messages()] == [by_hand], 10, "a run by hand, which stays alive")
    ident = ask(place, job, 7, order=order, params={"day": "2"})
    runs = Runs(place, ident, node)
    first = until(lambda: [m for m in node.messages() if m.run != by_hand], 10, "the first")[0]
    assert first.envelope.params == {"region": "cn", "day": "2"}
    found = runs.all()
    assert runs.instants == (hours(0, 7) if order == "oldest" else hours(0, 7)[::-1]) and runs.most == 1
    assert (found.state, found.total, found.made, found.succeeded, found.left) == ("done", 7, 7, 7, 0)
    second = place.ask(job).run
    until(lambda: (second, "0") in place.outs(), 10, "overlap to go by the run by hand alone")
    assert not place.requests() and {m.run for m in node.messages()} == {by_hand}


def test_its_runs_are_followed_unless_it_was_asked_for_without(place: Stage) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(schedule=HOURLY)
    child = place.publish(after={"jobs": [job.name], "ids": [job.id]}, overlap="allow")
    for alone, followers in ((True, 0), (False, 2)):
        ident = ask(place, job, 2, no_chain=alone)
        Runs(place, ident, node).all()
        until(lambda n=followers: len(node.messages()) == n, 10, "those that follow")
        assert settled(lambda: {m.envelope.job for m in place.messages()}) == ({child.id} if followers else set())


def test_at_most_so_many_are_alive_and_a_failure_is_counted_after_its_retries(place: Stage) -> None:
    place.lead()
    nodes = place.node("n1"), place.node("n2")
    job = place.publish(schedule=HOURLY, retry={"max": 1, "delay": "0s"}, pause_after=1)
    ident = ask(place, job, 20, parallel=3)
    until(lambda: len(place.messages()) == 3, 10, "three runs")
    runs = Runs(place, ident, *nodes)
    failing = place.messages()[0]
    node = next(node for node in nodes if node.queue == failing.queue)
    node.end(failing, node.claim(failing), Kind.FAILED)
    again = until(lambda: [m for m in place.messages() if m.run == failing.run], 10, "its second attempt")[0]
    node = next(node for node in nodes if node.queue == again.queue)
    node.end(again, node.claim(again), Kind.FAILED)
    found = runs.all()
    assert (found.succeeded, found.failed, found.made) == (19, 1, 20) and runs.most <= 3
    assert sorted([*runs.instants, int(again.envelope.fire_at or 0)]) == hours(0, 20)
    assert not place.done(job).held, "a backfill pauses no job"


@pytest.mark.parametrize("happened", [False, True])
@pytest.mark.parametrize("step", ["advance", "count", "end"])
def test_a_leader_that_dies_at_any_step_loses_and_doubles_nothing(place: Stage, step: str, happened: bool) -> None:
    first = place.lead()
    node = place.node("n1")
    job = place.publish(schedule=HOURLY)
    told = place.keys.run_in("s")
    meant: dict[str, Callable[[Txn], bool]] = {
        "advance": lambda txn: any("/m/" in key for key in txn._puts) and runs.instants != [],
        "count": lambda txn: any(key.startswith(told) for key in txn._deletes),
        "end": lambda txn: any(key.startswith(told) for key in txn._deletes) and len(runs.instants) == 4,
    }
    ident = ask(place, job, 4, parallel=2)
    runs = Runs(place, ident, node)
    dying = Dying(first, meant[step], lose_answer=happened)
    until(lambda: runs.some() or dying.dead, 20, "the leader to die")
    assert dying.dead, "the step was never taken"
    first.stop()
    place.lead(centre="two")
    found = runs.all()
    assert sorted(runs.instants) == hours(0, 4) and runs.most <= 2
    assert (found.state, found.made, found.succeeded) == ("done", 4, 4) and not place.requests()


def test_it_stops_with_or_without_what_runs(place: Stage) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(schedule=HOURLY)
    for how, kinds in ((Stop.REST, {"n1": Kind.SUCCEEDED}), (Stop.ALL, {"n1": Kind.CANCELLED})):
        ident = ask(place, job, 9, parallel=2)
        one, two = until(lambda: len(found := node.messages()) == 2 and found, 10, "two runs")
        fence = node.claim(one)
        backfills.stop(place.client, place.keys, ident, how, by="li")
        assert now(place, ident).state == "stopping"
        if how == Stop.ALL:
            order = until(lambda run=one.run: place.client.get(place.keys.cmd("n1", run)), 10, "an order to stop")
            assert b"cancelled by li" in order.value
            until(lambda run=two.run: (run, "1") in place.outs(), 10, "the other to be cancelled where it lies")
        else:
            node.end(two, node.claim(two))
        node.end(one, fence, kinds["n1"])
        found = until(lambda ident=ident: (each := now(place, ident)).ended and each, 10, "the end")
        counts = (found.succeeded, found.cancelled)
        assert counts == ((2, 0) if how == Stop.REST else (0, 2))
        assert (found.state, found.made, found.left, found.stopped_by) == ("cancelled", 2, 7, "li")
        assert not node.messages()


def test_what_was_asked_for_is_what_runs_whatever_becomes_of_the_job(place: Stage) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(schedule=HOURLY)
    ident = ask(place, job, 3)
    runs = Runs(place, ident, node)
    until(lambda: runs.some() or runs.instants, 10, "the first run")
    job = place.edit(job, schedule={"every": "1s"}, enabled=False, timeout="7m")
    found = runs.all()
    assert (found.state, found.succeeded) == ("done", 3) and runs.instants == hours(0, 3)
    gone = ask(place, job.replace(document={**job.job.document(), "schedule": HOURLY}), 3)
    until(lambda: len(node.messages()) == 1, 10, "a run of a paused job")
    place.delete(job)
    node.run_all()
    found = until(lambda: (each := now(place, gone)).ended and each, 10, "the end")
    assert found.state == "given_up" and "deleted" in found.reason and (found.made, found.left) == (1, 2)


def test_nothing_starts_while_dispatch_is_stopped_or_no_node_fits(place: Stage) -> None:
    place.lead()
    job = place.publish(schedule=HOURLY)
    turn(place.client, place.keys, True, by="li")
    ident = ask(place, job, 3, parallel=2)
    other = place.publish(schedule=HOURLY)
    assert not place.waits() and now(place, ident).made == 0
    turn(place.client, place.keys, False, by="li")
    until(lambda: len(place.waits()) == 2, 10, "two to wait for a node")
    node = place.node("n1")
    found = Runs(place, ident, node).all()
    assert (found.succeeded, place.fires(other)) == (3, [])


def test_ends_that_nobody_told_do_not_keep_it_open_for_ever(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crony.beat.duties.backfilling.LOOK", 0.3)
    job = place.publish(schedule=HOURLY)
    ident = ask(place, job, 3)
    record = now(place, ident)
    lost = record.without(record.next(3))
    place.client.put(place.keys.backfill(ident), lost.encode())
    place.client.put(place.keys.backfill(ids.backfill_id()), b"not json")
    place.lead()
    found = until(lambda: (each := now(place, ident)).ended and each, 10, "the end")
    assert (found.made, found.cancelled) == (3, 3)
    until(lambda: place.client.count(f"{place.keys.root}dead/backfill/") == 1, 5, "the odd one to be set aside")
    monkeypatch.setattr("crony.beat.duties.backfilling.KEPT", 0.1)
    until(lambda: place.client.count(place.keys.backfill("")) == 0, 10, "it to be forgotten")


def test_a_pause_with_an_end_stops_what_a_fire_all_left_over(place: Stage) -> None:
    """As any pause does: none of those fires runs while the job is paused, and each is recorded."""
    node = place.node("n1")
    job = place.publish(schedule=HOURLY, overlap="allow", paused_until=rfc3339(int(time.time()) + 3600))
    fires = [*hours(0, 30)]
    rest = Backfill(ids.backfill_id(), job.id, job.name, 1, "schedule", fires=fires, requested_at=time.time())
    place.client.put(place.keys.backfill(rest.id), rest.encode())
    place.lead()
    until(lambda: not place.client.count(place.keys.backfill("")), 10, "it to be given up")
    (skip,) = place.skips(job)
    assert (skip.reason, skip.fire_at, skip.to_at, skip.count) == ("paused", fires[0], fires[-1], 30)
    assert not node.messages() and not place.waits()
