"""Accepted runs under a leader: late, silent, cancelled, in the way of others, and handed on to the next leader."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from crony.domain.callback import Report, Token
from crony.domain.run import Accepted
from crony.etcd.keys import Keys
from crony.lifecycle.accept import Waiting, accept
from crony.lifecycle.complete import Contradicted, Told, complete
from crony.lifecycle.enqueue import cancel
from crony.lifecycle.heartbeat import Sign, heartbeat
from crony.lifecycle.permit import permit, starting
from tests.helpers.beat import FakeNode, Message, ShiftedClock, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

RETRY = {"max": 1, "delay": "0s"}
LONG = {"deadline": "1h"}


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


def called(node: FakeNode, message: Message) -> Token:
    """The node calls; what the callee was given."""
    stage, token = node.stage, Token.new(message.queue, message.place)
    claim = starting(node.incarnation, 1, node=node.name, at=time.time(), secret=token.digest)
    fence = permit(stage.client, stage.keys, message.queue, message.place, node.claim(message), claim)
    assert fence
    return token.under(fence)


def taken(node: FakeNode, message: Message, **changes: float) -> Token:
    """The node calls, and its callee accepts."""
    told, now, token = message.envelope, time.time(), called(node, message)
    record = Accepted(
        told.run, message.sealed, told.attempt, token.fence, token.digest, now + told.deadline, told.heartbeat,
        node.name, node.incarnation, now, now,
    )  # fmt: skip
    assert accept(node.stage.client, node.stage.keys, told, message.place, replace(record, **changes)) == Waiting()
    return token


def first(node: FakeNode) -> Message:
    return until(node.messages, 10, "a message")[0]


def test_a_late_callee_times_out_and_the_retry_policy_goes_on(place: Stage) -> None:
    node = place.node("n1")
    running = place.lead()
    run = place.ask(place.publish(retry=RETRY, **{"async": {"deadline": "1s"}})).run
    token = taken(node, first(node))
    heartbeat(place.client, place.keys, run, 1, token)
    second = until(node.messages, 10, "attempt 2")[0]
    out = place.outs()[run, "1"]
    assert (out.kind, out.final, out.reason) == ("timed_out", False, "not completed within 1s")
    assert (out.node, out.fence, out.secret) == ("n1", token.fence, token.digest)
    assert second.envelope.attempt == 2 and place.client.get(place.keys.run_beat(run)) is None
    assert complete(place.client, place.keys, run, 2, taken(node, second), Report(True)) == Told("ended", "succeeded")
    assert heartbeat(place.client, place.keys, run, 1, token) == Told("ended", "timed_out", cancel=True)
    assert running.counts()["overdue"] == 1
    until(lambda: running.status()["accepted"] == 0, 10, "the leader to know it ended")


def test_a_silent_callee_times_out_and_one_that_beats_does_not(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    quiet, lively = (place.publish(**{"async": {"deadline": "1h", "heartbeat": "1s"}}) for _ in range(2))
    silent, beating = place.ask(quiet).run, place.ask(lively).run
    until(lambda: len(node.messages()) == 2, 10, "both messages")
    tokens = {message.run: taken(node, message) for message in node.messages()}
    beats = 0
    while not (out := place.outs().get((silent, "1"))) or beats < 25:
        told = heartbeat(place.client, place.keys, beating, 1, tokens[beating], Sign(percent=beats))
        assert told == Told("running")
        beats += 1
        threading.Event().wait(0.1)
    assert (out.kind, out.final, out.reason) == ("timed_out", True, "nothing was heard of it for 1s")
    out = until(lambda: place.outs().get((beating, "1")), 10, "the other falls silent, too")
    assert out.kind == "timed_out"


def test_a_cancel_ends_it_where_it_lies_and_its_callee_is_told(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    run = place.ask(place.publish(retry=RETRY, **{"async": LONG})).run
    token = taken(node, first(node))
    heartbeat(place.client, place.keys, run, 1, token)
    cancel(place.client, place.keys, run, by="li")
    out = until(lambda: place.outs().get((run, "1")), 10, "its end")
    assert (out.kind, out.final, out.secret) == ("cancelled", True, token.digest)
    assert heartbeat(place.client, place.keys, run, 1, token) == Told("ended", "cancelled", cancel=True)
    until(lambda: not place.requests(), 10, "the request goes")
    left = [kv.key for kv in place.client.list(place.keys.run).kvs if run in kv.key]
    assert left == [place.keys.out(run, 1)]


def test_an_accepted_run_is_in_the_way_of_the_next_one(place: Stage) -> None:
    node = place.node("n1")
    leader = place.lead()
    job = place.publish(overlap="queue_one", **{"async": LONG})
    run = place.ask(job).run
    token = taken(node, first(node))
    until(lambda: leader.status()["accepted"] == 1, 10, "the leader sees it")
    following = place.ask(job).run
    until(lambda: following in place.waits(), 10, "the next one to stand in line")
    assert place.waits()[following].reason == "overlap" and not node.messages()
    complete(place.client, place.keys, run, 1, token, Report(True))
    assert first(node).run == following


def test_a_node_lost_during_the_call_takes_the_attempt_with_it(place: Stage) -> None:
    doomed = place.node("n1")
    place.lead()
    run = place.ask(place.publish(retry=RETRY, **{"async": LONG})).run
    token = called(doomed, first(doomed))
    doomed.vanish()
    heir = place.node("n2")
    second = until(heir.messages, 15, "attempt 2")[0]
    with pytest.raises(Contradicted) as caught:
        complete(place.client, place.keys, run, 1, token, Report(True))
    assert caught.value.members == {"outcome": "lost", "attempt": 2}
    heir.end(second, heir.claim(second))


def test_its_slot_stays_taken_until_it_ends_however_that_comes(place: Stage) -> None:
    node = place.node("n1", capacity=10)
    place.lead()
    place.pool("one", 1)
    short, long = ({"async": {"deadline": time_}} for time_ in ("1s", "1h"))
    documents = [short, long, long, {}]
    jobs = [place.publish(overlap="allow", limits=["pool:one"], **document) for document in documents]
    runs = [place.ask(job).run for job in jobs]
    for run, how in zip(runs, ("late", "completed", "cancelled", "last"), strict=True):
        message = until(lambda run=run: [m for m in node.messages() if m.run == run], 15, f"{run} to have its turn")[0]
        assert place.slots() == {"one/0": run} and len(node.messages()) == 1
        if how == "last":
            break
        token = taken(node, message)
        assert place.slots() == {"one/0": run} and not node.messages(), "kept while it is accepted"
        if how == "completed":
            complete(place.client, place.keys, run, 1, token, Report(True))
        elif how == "cancelled":
            cancel(place.client, place.keys, run)
    outs = [place.outs()[run, "1"].kind for run in runs[:3]]
    assert outs == ["timed_out", "succeeded", "cancelled"]


def test_the_next_leader_goes_on_watching(place: Stage) -> None:
    node = place.node("n1")
    one = place.lead()
    run = place.ask(place.publish(**{"async": {"deadline": "3s"}})).run
    taken(node, first(node))
    until(lambda: one.status()["accepted"] == 1, 10, "the leader sees it")
    one.stop()
    assert (run, "1") not in place.outs()
    place.lead(centre="two")
    assert until(lambda: place.outs().get((run, "1")), 15, "its end").kind == "timed_out"


def test_a_step_of_the_clock_ends_nothing(place: Stage) -> None:
    clock = ShiftedClock()
    node = place.node("n1")
    running = place.centre(clock=clock).leads()
    run = place.ask(place.publish(**{"async": {"deadline": "100s", "heartbeat": "50s"}})).run
    taken(node, first(node))
    until(lambda: running.status()["accepted"] == 1, 10, "the leader sees it")
    clock.shift = 1.5  # more, and it would not lead
    short = place.ask(place.publish(**{"async": {"deadline": "1s"}})).run
    taken(node, until(lambda: [m for m in node.messages() if m.run == short], 10)[0])
    until(lambda: place.outs().get((short, "1")), 10, "another one times out meanwhile")
    assert (run, "1") not in place.outs()


def test_a_record_that_nobody_can_read_stops_nobody(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    job = place.publish(overlap="allow", **{"async": {"deadline": "1s"}})
    odd = place.ask(job).run
    taken(node, first(node), deadline_at="soon")  # type: ignore[arg-type]
    sound = place.ask(job).run
    taken(node, until(lambda: [m for m in node.messages() if m.run == sound], 10)[0])
    until(lambda: place.outs().get((sound, "1")), 10, "the other ends")
    assert (odd, "1") not in place.outs()
    cancel(place.client, place.keys, odd)
    assert until(lambda: place.outs().get((odd, "1")), 10, "a cancel ends it").kind == "cancelled"
