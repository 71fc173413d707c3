"""Shared queues, the leader's side: whoever takes from one gets its runs, and none is forgotten in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crony.beat.duties import failover
from crony.domain.outcome import Kind
from crony.domain.run import Claim, Request
from crony.etcd.keys import Keys
from crony.lifecycle.end import Stale
from crony.lifecycle.quarantine import quarantine
from tests.helpers.beat import Message, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

ANY = {"strategy": "any"}
QUEUE = "run.@any.shell"


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        made.lead()
        yield made


def shared(place: Stage, run: str = "") -> list[Message]:
    """What lies in the shared queue, in order."""
    return [message for message in place.messages() if message.queue == QUEUE and run in ("", message.run)]


def test_whoever_is_free_claims_and_a_lost_holder_is_taken_over(place: Stage) -> None:
    one, two = place.node("one", queues=["any"]), place.node("two", queues=["any"])
    job = place.publish(overlap="allow", routing=ANY)
    runs = [place.ask(job, priority=number).run for number in (0, 5, 9)]
    messages = until(lambda: len(found := shared(place)) == 3 and found, 10, "the runs")
    assert [message.run for message in messages] == runs[::-1], "priority first"
    assert all(message.envelope.incarnation == "" for message in messages)
    assert messages[0].envelope.why == "the first of 2 nodes to take it from the shared queue any; strategy any"
    first, second, third = messages
    fence = one.claim(first)
    two.end(second, two.claim(second))
    assert place.outs()[second.run, "1"].node == "two"
    one.vanish()
    again = until(lambda: shared(place, first.run) and shared(place, first.run)[0], 10, "the takeover")
    again = until(lambda: (found := shared(place, first.run)) and found[0].envelope.attempt == 2 and found[0], 10)
    out = place.outs()[first.run, "1"]
    assert (out.kind, out.final, out.node, out.incarnation) == (Kind.LOST, False, "one", one.incarnation)
    assert isinstance(one.end(first, fence), Stale)
    assert again.envelope.losses == 1 and again.envelope.avoid == ["one"]
    for message in (again, third):
        two.end(message, two.claim(message))
    assert place.outs()[first.run, "2"].final and place.outs()[third.run, "1"].final


def test_nobody_takes_from_it(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits visibly, with the reason; one that lies there when the last taker goes comes back and says so too."""
    monkeypatch.setattr(failover, "FORSAKEN", 0.5)
    place.node("deaf")
    job = place.publish(overlap="allow", routing=ANY)
    run = place.ask(job).run
    wait = until(lambda: place.waits().get(run), 10, "it to wait")
    assert (wait.reason, wait.detail) == ("no_node", "does not take from the queue any: deaf")
    taker = place.node("taker", queues=["any"])
    (message,) = until(lambda: shared(place), 10, "it to go when one comes")
    assert message.run == run and not place.waits()
    place.control("taker", cordoned=True)
    wait = until(lambda: (found := place.waits().get(run)) and found.reason == "no_node" and found, 10, "it back")
    assert "cordoned: taker" in wait.detail
    place.control("taker")
    (message,) = until(lambda: shared(place), 10, "it to go again")
    assert message.envelope.attempt == 1
    taker.end(message, taker.claim(message))
    assert place.outs()[run, "1"].final


def test_a_claim_given_back_is_free_for_the_others(place: Stage) -> None:
    one, two = place.node("one", queues=["any"]), place.node("two", queues=["any"])
    run = place.ask(place.publish(routing=ANY)).run
    (message,) = until(lambda: shared(place), 10, "the run")
    one.claim(message)
    key = place.keys.claim(message.queue, message.place)
    place.client.put(key, Claim("", count=1, node="one").encode())
    one.vanish()
    found = place.client.get(key)
    assert found is not None
    place.client.put(key, Claim(two.incarnation, count=2, node="two").encode())
    fence = place.client.get(key).mod  # type: ignore[union-attr]
    two.end(message, fence)
    out = place.outs()[run, "1"]
    assert out.final and out.node == "two", "its former holder's loss changes nothing"


def test_cancel_where_it_lies_and_where_it_is_held(place: Stage) -> None:
    node = place.node("one", queues=["any"])
    job = place.publish(overlap="allow", routing=ANY)
    lying, held = place.ask(job).run, place.ask(job).run
    until(lambda: len(shared(place)) == 2, 10, "the runs")
    (message,) = shared(place, held)
    fence = node.claim(message)
    for run in (lying, held):
        place.request(Request("cancel", run=run, job=job.id, generation=1, by="eve"))
    out = until(lambda: place.outs().get((lying, "1")), 10, "the one that lies there to end")
    assert out.kind == Kind.CANCELLED and not shared(place, lying)
    order = until(lambda: place.client.get(place.keys.cmd("one", held)), 10, "the order to its holder")
    assert b"eve" in order.value
    node.end(message, fence, Kind.CANCELLED)
    until(lambda: place.client.get(place.keys.cmd("one", held)) is None, 10, "the order to go with the run")


def test_a_cancel_of_a_run_that_then_fails_keeps_it_from_going_on(place: Stage) -> None:
    node = place.node("one", queues=["any"])
    job = place.publish(routing=ANY, retry={"max": 3, "delay": "0s"})
    run = place.ask(job).run
    (message,) = until(lambda: shared(place), 10, "the run")
    fence = node.claim(message)
    place.request(Request("cancel", run=run, job=job.id, generation=1))
    until(lambda: place.client.get(place.keys.cmd("one", run)), 10, "the order")
    node.end(message, fence, Kind.FAILED)
    out = until(lambda: place.outs().get((run, "end")), 10, "its end")
    assert out.kind == Kind.CANCELLED and not shared(place)


def test_quarantine_and_labels(place: Stage) -> None:
    node = place.node("one", queues=["any"])
    job = place.publish(overlap="allow", routing=ANY)
    run = place.ask(job).run
    (message,) = until(lambda: shared(place), 10, "the run")
    fence = node.claim(message)
    assert quarantine(place.client, place.keys, QUEUE, message.place, fence, "expired", node="one")
    (back,) = until(lambda: shared(place), 10, "the genuine one to come back")
    assert (back.run, back.envelope.avoid, back.envelope.deliveries) == (run, ["one"], 1)
    node.end(back, node.claim(back))
    odd = place.ask(job, labels={"zone": "a"}).run
    out = until(lambda: place.outs().get((odd, "end")), 10, "labels to be refused")
    assert out.kind == Kind.REFUSED and "labels" in out.reason and "shared queue" in out.reason
