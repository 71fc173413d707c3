"""A job is due while it runs: runs in line, one at a time and in order, each fire one run or one record (P1, P2)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.etcd.keys import Keys
from crony.lifecycle.enqueue import cancel
from tests.helpers.beat import FakeNode, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

DAY = 86_400


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


def five_days(place: Stage, **fields: object) -> LiveJob:
    """A job with five fires to decide at once and none for hours."""
    now = int(time.time())
    at = (now - 6 * 3600) % DAY
    schedule = {"every": "1d", "anchor": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))}
    misfire = {"policy": "fire_all"}
    return place.publish(schedule=schedule, misfire=misfire, done=now - 5 * DAY, **fields)


def one_after_the_other(place: Stage, node: FakeNode, job: LiveJob) -> list[str]:
    """End what runs until nothing is left; the runs in the order they ran."""
    ran: list[str] = []
    while place.waits() or node.messages():
        (message,) = until(node.messages, 10, "the next one")
        ran.append(message.run)
        node.end(message, node.claim(message))
    return ran


def test_fires_stand_in_line_and_outlive_their_leader(place: Stage) -> None:
    node = place.node("n1")
    first = place.lead()
    job = five_days(place, overlap="queue_all", overlap_limit=3)
    (skip,) = until(lambda: place.skips(job), 10, "the fire without a place")
    fires = place.fires(job)
    assert len(fires) == 4 and [wait.reason for wait in place.waits().values()] == ["overlap"] * 3
    assert (skip.reason, skip.count, skip.fire_at) == ("overlap", 1, fires[-1] + DAY) and "limit 3" in skip.detail
    assert place.done(job).upto_at == skip.fire_at and place.done(job).fires == 4
    (message,) = node.messages()
    assert message.envelope.fire_at == fires[0], "the earliest goes, the others wait behind it"
    first.stop()
    node.end(message, node.claim(message))
    place.lead(centre="two")
    ran = one_after_the_other(place, node, job)
    assert [ids.parse_run_id(run).fire for run in ran] == fires[1:], "in order, one at a time, each once"
    assert len(place.skips(job)) == 1


def test_one_waits_and_a_newer_one_is_skipped(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    job = place.publish(overlap="queue_one", retry={"max": 1, "delay": "300ms", "jitter": False})
    runs = [place.ask(job).run for _ in range(3)]
    out = until(lambda: place.outs().get((runs[2], "0")), 10, "the third to be skipped")
    assert (out.kind, out.reason) == (Kind.SKIPPED, "overlap") and "limit 1" in out.detail
    (message,) = until(node.messages, 10, "the first")
    assert message.run == runs[0] and list(place.waits()) == [runs[1]]
    node.end(message, node.claim(message), Kind.FAILED)
    (again,) = until(node.messages, 10, "its retry")
    assert (again.run, again.envelope.attempt) == (runs[0], 2), "a run keeps its turn through its attempts"
    cancel(place.client, place.keys, runs[1])
    until(lambda: not place.waits(), 10, "the cancel of the one in line")
    later = place.ask(job, not_before_at=time.time() + 0.2).run
    until(lambda: (wait := place.waits().get(later)) and wait.reason == "overlap", 10, "a delayed run in line")
    node.run_all()
    until(lambda: [m.run for m in node.messages()] == [later], 10, "its turn")


def test_the_turn_comes_without_a_node_and_a_deleted_job_has_no_line(place: Stage) -> None:
    node = place.node("n1")
    centre = place.lead()
    job = place.publish(overlap="queue_all")
    runs = [place.ask(job).run for _ in range(3)]
    until(lambda: len(place.waits()) == 2, 10, "two in line")
    place.control("n1", cordoned=True)
    leader = centre.centre.leader
    assert leader is not None
    until(lambda: "n1" in leader.office.book.controls, 10, "the leader to know")
    node.run_all()
    until(lambda: place.waits()[runs[1]].reason == "no_node", 10, "the second to look for a node")
    assert place.waits()[runs[2]].reason == "overlap", "it had the turn, so the third still waits"
    place.delete(job)
    place.control("n1")
    until(lambda: not place.waits(), 10, "the ends of both")
    assert [place.outs()[run, "end"].kind for run in runs[1:]] == [Kind.CANCELLED] * 2 and not node.messages()


def test_a_line_of_a_job_that_allows_many_from_now_on_is_let_go(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    job = place.publish(overlap="queue_all")
    runs = [place.ask(job).run for _ in range(3)]
    until(lambda: len(place.waits()) == 2, 10, "two in line")
    place.edit(job, overlap="allow")
    until(lambda: {m.run for m in node.messages()} == set(runs), 10, "all of them")


def test_the_newest_stops_the_one_before_it_and_waits_for_its_end(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    job = place.publish(overlap="cancel_previous", retry={"max": 3, "delay": "60s"})
    runs = [place.ask(job).run]
    (message,) = until(node.messages, 10, "the first")
    fence = node.claim(message)
    runs.append(place.ask(job).run)
    order = place.keys.cmd("n1", runs[0])
    until(lambda: place.client.get(order), 10, "the order to stop")
    assert list(place.waits()) == [runs[1]], "it does not run beside the other"
    runs.append(place.ask(job, not_before_at=time.time() + 0.2).run)
    out = until(lambda: place.outs().get((runs[1], "0")), 10, "the end of the one that waited")
    assert (out.kind, out.reason, out.detail) == (Kind.SKIPPED, "overlap", "a later one took its place")
    assert list(place.waits()) == [runs[2]] and not place.requests(), "the order is given once"
    node.end(message, fence, Kind.FAILED)
    until(lambda: [m.run for m in node.messages()] == [runs[2]], 10, "the newest")
    assert place.outs()[runs[0], "end"].kind == Kind.CANCELLED, "no further attempt of what was to stop"
    assert place.client.get(order) is None
    runs.append(place.ask(job).run)
    out = until(lambda: place.outs().get((runs[2], "1")), 10, "the end of what nobody had begun")
    assert (out.kind, out.reason) == (Kind.CANCELLED, "a later one took its place")
    until(lambda: [m.run for m in node.messages()] == [runs[3]], 10, "the last")


def test_fires_that_stop_each_other_have_one_record_each(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    job = five_days(place, overlap="cancel_previous")
    (skip,) = until(lambda: place.skips(job), 10, "the earlier ones")
    assert (skip.count, skip.detail) == (4, "a later one took its place")
    assert one_after_the_other(place, node, job) == [f"{job.id}.1.{(skip.to_at or 0) + DAY}"]


def test_a_pause_with_an_end_ends_by_itself(place: Stage) -> None:
    """Nobody and no database is asked: the leader goes on by the document alone, and records what was passed over."""
    place.node("n1")
    place.lead()
    begun = int(time.time())
    job = place.publish(schedule={"every": "1s"}, overlap="allow", paused_until=rfc3339(begun + 1), done=begun - 3)
    fires = until(lambda: place.fires(job), 10, "a fire")
    (skip,) = place.skips(job)
    assert (skip.reason, skip.fire_at, skip.to_at, skip.count) == ("paused", begun - 2, begun + 1, 4)
    assert fires[0] == begun + 2
