"""What a lost node means by the job's policy: once, fail, hold; before and after the start permit (13, N2, N13)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from crony.domain.alert import Alert
from crony.domain.outcome import Kind
from crony.etcd.keys import Keys
from crony.lifecycle import enqueue
from crony.lifecycle.end import Ended
from tests.helpers.beat import FakeNode, Message, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

ONCE = {"delivery": "at_most_once"}
FAIL = {"on_node_loss": "fail", "retry": {"max": 3, "delay": "0s"}}
HOLD = {"on_node_loss": "hold"}


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        made.lead()
        yield made


def claimed(place: Stage, node: FakeNode, **fields: Any) -> tuple[Message, int]:
    """A run of such a job in the node's hands, and the fence."""
    place.ask(place.publish(overlap="allow", **fields))
    message = until(node.messages, 10, "the run")[0]
    return message, node.claim(message)


@pytest.mark.parametrize("fields", [ONCE, FAIL, HOLD])
def test_what_has_not_started_goes_elsewhere_as_the_same_attempt(place: Stage, fields: dict[str, Any]) -> None:
    lost = place.node("lost")
    message, fence = claimed(place, lost, **fields)
    heir = place.node("heir")
    lost.vanish()
    moved = until(heir.messages, 10, "the work to move")[0]
    assert (moved.run, moved.envelope.attempt, moved.envelope.deliveries) == (message.run, 1, 1)
    assert place.outs() == {} and not place.waits() and not lost.messages()
    with pytest.raises(AssertionError):
        lost.permit(message, fence)


@pytest.mark.parametrize("fields", [ONCE, FAIL])
def test_what_has_started_ends_as_lost(place: Stage, fields: dict[str, Any]) -> None:
    lost = place.node("lost")
    message, fence = claimed(place, lost, **fields)
    lost.permit(message, fence)
    place.node("heir")
    lost.vanish()
    out = until(lambda: place.outs().get((message.run, "1")), 10, "the end")
    assert (out.kind, out.final, out.reason, out.node) == (Kind.LOST, True, "its node was lost", "lost")
    assert settled(lambda: (place.messages(), place.waits(), place.requests())) == ([], {}, [])


def test_nothing_of_at_most_once_is_run_again_however_it_ended(place: Stage) -> None:
    node = place.node("n1")
    job = place.publish(overlap="allow", **ONCE)
    for kind in (Kind.FAILED, Kind.LOST, Kind.TIMED_OUT):
        run = place.ask(job).run
        message = until(node.messages, 10, "the run")[0]
        assert message.run == run
        assert isinstance(node.end(message, node.permit(message, node.claim(message)), kind), Ended)
        assert place.outs()[run, "1"].final and not place.waits()
    refused = place.ask(job, retries=2).run
    end = until(lambda: place.outs().get((refused, "end")), 10, "the request with retries to be refused")
    assert end.kind == Kind.REFUSED and "at most once" in end.reason


def on_hold(place: Stage, run: str) -> bool:
    wait = place.waits().get(run)
    return wait is not None and wait.reason == "hold"


def test_a_run_on_hold_waits_for_a_person(etcd: EtcdServer, keys: Keys) -> None:
    with stage(etcd.endpoint, keys) as place:
        first = place.lead()
        lost = place.node("lost")
        message, fence = claimed(place, lost, **HOLD)
        lost.permit(message, fence)
        heir = place.node("heir")
        lost.vanish()
        until(lambda: on_hold(place, message.run), 10, "the run to be put on hold")
        out = place.outs()[message.run, "1"]
        assert (out.kind, out.final, out.held) == (Kind.LOST, False, True)
        alert = until(lambda: place.client.get(keys.alert(f"run_held.{message.run}.1")), 10, "the alert")
        assert Alert.read(alert.value).sentence().endswith("waits for a person to decide: its node was lost")
        first.stop()
        place.lead(centre="two")
        place.node("another")
        assert settled(lambda: (on_hold(place, message.run), len(place.messages()))) == (True, 0)
        for _ in range(2):
            enqueue.release(place.client, keys, message.run, by="anna")
        again = until(heir.messages, 10, "the next attempt")[0]
        assert (again.run, again.envelope.attempt, again.envelope.losses) == (message.run, 2, 1)
        until(lambda: not place.requests(), 10, "the second release to be taken off")
        heir.run_all()
        assert place.outs()[message.run, "2"].final and not place.messages() and not place.waits()


def test_a_run_on_hold_can_be_cancelled(place: Stage) -> None:
    node = place.node("n1")
    message, fence = claimed(place, node, **HOLD)
    assert isinstance(node.end(message, node.permit(message, fence), Kind.LOST), Ended)
    until(lambda: on_hold(place, message.run), 10, "the loss of its process alone to put it on hold")
    assert place.outs()[message.run, "1"].held
    enqueue.cancel(place.client, place.keys, message.run)
    out = until(lambda: place.outs().get((message.run, "2")), 10, "its end")
    assert (out.kind, out.final) == (Kind.CANCELLED, True) and not place.waits()
    enqueue.release(place.client, place.keys, message.run)
    until(lambda: not place.requests(), 10, "a late release to be taken off")
    assert settled(lambda: (place.messages(), place.waits())) == ([], {})


def test_what_is_delivered_in_vain_too_often_is_given_up(place: Stage) -> None:
    message = None
    for number in range(6):
        node = place.node(f"n{number}")
        if message is None:
            message, _ = claimed(place, node, **ONCE)
        else:
            message = until(node.messages, 10, f"delivery {number + 1}")[0]
            node.claim(message)
        assert (message.envelope.attempt, message.envelope.deliveries) == (1, number)
        node.vanish()
    assert message is not None
    out = until(lambda: place.outs().get((message.run, "end")), 10, "the end")
    assert (out.kind, out.final) == (Kind.REFUSED, True)
    assert out.reason == "given up: delivered 6 times and never started; its node was lost before the work started"
    assert not place.waits() and not place.messages()
