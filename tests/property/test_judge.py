"""The judge itself: it says nothing about a good history, and names what is wrong with a bad one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.property.history import Change, History
from tests.property.judge import judged, rules
from tests.property.plan import Plan, matches

PLAN = Plan(("q0", "q1"), (("d", "k", "q0"), ("d", "k", "q1"), ("f", "", "q1")))


class Story:
    """A small history, told step by step. Times are a second apart, revisions one."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.ops: list[dict[str, Any]] = []
        self.revision = 0
        self.left: list[str] = []
        self.change("session", queue="A")
        self.change("session", queue="B")

    def change(self, kind: str, *, put: bool = True, same: bool = False, **facts: Any) -> int:
        """One change; `same`: in the revision before."""
        self.revision += not same
        told = {"queue": "", "place": "", "ident": "", "count": 0, "life": 0.0, **facts}
        self.changes.append(Change(self.revision, float(self.revision), put, kind, **told))
        return self.revision

    def op(self, op: str, actor: str = "a", **facts: Any) -> None:
        """What an actor says."""
        self.ops.append({"op": op, "actor": actor, "t": len(self.ops), "at": float(self.revision), **facts})

    def send(self, ident: str, *queues: str, place: str, exchange: str = "", key: str = "q0") -> None:
        """A confirmed publish."""
        self.op("send", id=ident, exchange=exchange, key=key)
        for number, queue in enumerate(queues):
            self.change("message", same=number > 0, queue=queue, place=place, ident=ident)
        self.op("sent", id=ident)

    def deliver(self, ident: str, place: str, queue: str = "q0", holder: str = "A", count: int = 1) -> int:
        """A claim and its delivery; the fence."""
        fence = self.change("claim", queue=queue, place=place, ident=holder, count=count, life=float(self.revision))
        facts = {"queue": queue, "place": place, "fence": fence, "count": count, "incarnation": holder}
        self.op("deliver", holder, **facts, id=ident, consumer=f"{holder}/1", redelivered=count > 1)
        return fence

    def settle(self, what: str, place: str, fence: int, queue: str = "q0", holder: str = "A") -> None:
        """What a consumer says of a message."""
        self.op(what, holder, queue=queue, place=place, fence=fence)
        self.op("told", holder, queue=queue, place=place, fence=fence)

    def gone(self, place: str, queue: str = "q0", *, claim: bool = True) -> None:
        """Message and claim are deleted."""
        self.change("message", put=False, queue=queue, place=place)
        if claim:
            self.change("claim", put=False, same=True, queue=queue, place=place)

    def acked(self, ident: str, place: str, queue: str = "q0") -> None:
        """Delivered, acknowledged, gone."""
        self.settle("ack", place, self.deliver(ident, place, queue), queue)
        self.gone(place, queue)

    def history(self) -> History:
        """As the judge gets it."""
        plan = {"queues": list(PLAN.queues), "bindings": [list(each) for each in PLAN.bindings], "alone": True}
        self.change("binding", queue="x.steady.1")
        return History(1, "/r/", plan, self.ops, self.changes, self.left, ended=True)


def place(number: int, priority: int = 0) -> str:
    return f"{9 - priority}{number:016x}.e1"


ONE, TWO, URGENT = place(1), place(2), place(3, 9)


def good(story: Story) -> None:
    story.send("p.1", "q0", place=ONE)
    story.send("p.2", "q0", "q1", place=TWO, exchange="d", key="k")
    story.acked("p.1", ONE)
    story.acked("p.2", TWO)
    story.acked("p.2", TWO, "q1")
    story.send("p.3", "q0", place=ONE[:-1] + "2")
    fence = story.deliver("p.3", ONE[:-1] + "2")
    story.settle("requeue", ONE[:-1] + "2", fence)
    story.change("claim", queue="q0", place=ONE[:-1] + "2", count=1)
    story.settle("ack", ONE[:-1] + "2", story.deliver("p.3", ONE[:-1] + "2", holder="B", count=2), holder="B")
    story.gone(ONE[:-1] + "2")


def a_confirmed_message_is_nowhere(story: Story) -> None:
    story.op("send", id="p.1", exchange="", key="q0")
    story.op("sent", id="p.1")


def a_message_stays(story: Story) -> None:
    story.send("p.1", "q0", place=ONE)


def a_message_goes_unseen(story: Story) -> None:
    story.send("p.1", "q1", place=ONE, key="q1")
    story.gone(ONE, "q1", claim=False)


def one_queue_is_left_out(story: Story) -> None:
    story.send("p.1", "q0", place=ONE, exchange="d", key="k")
    story.acked("p.1", ONE)


def one_queue_comes_later(story: Story) -> None:
    story.send("p.1", "q0", place=ONE, exchange="d", key="k")
    story.change("message", queue="q1", place=ONE, ident="p.1")
    story.acked("p.1", ONE)
    story.acked("p.1", ONE, "q1")


def a_sibling_gets_a_copy(story: Story) -> None:
    story.send("p.1", "q0", "q1", place=ONE)
    story.acked("p.1", ONE)
    story.acked("p.1", ONE, "q1")


def two_in_the_wrong_order(story: Story) -> None:
    story.send("p.1", "q0", place=ONE)
    story.send("p.2", "q0", place=TWO)
    story.acked("p.2", TWO)
    story.acked("p.1", ONE)


def the_urgent_one_last(story: Story) -> None:
    story.send("p.1", "q0", place=URGENT)
    story.send("p.2", "q0", place=ONE)
    story.acked("p.2", ONE)
    story.acked("p.1", URGENT)


def delivered_twice_by_one_claim(story: Story) -> None:
    story.send("p.1", "q0", place=ONE)
    fence = story.deliver("p.1", ONE)
    story.ops.append({**story.ops[-1], "t": len(story.ops)})
    story.settle("ack", ONE, fence)
    story.gone(ONE)


def delivered_without_a_claim(story: Story) -> None:
    story.send("p.1", "q0", place=ONE)
    story.acked("p.1", ONE)
    facts = {"queue": "q0", "place": ONE, "fence": 1, "count": 1, "incarnation": "A"}
    story.op("deliver", "A", **facts, id="p.1", consumer="A/2", redelivered=False)


def an_ack_has_no_effect(story: Story) -> None:
    story.send("p.1", "q0", place=ONE)
    fence = story.deliver("p.1", ONE)
    story.settle("ack", ONE, fence)
    story.op("flushed", "A", revision=story.revision)
    story.change("session", put=False, queue="A")
    story.settle("ack", ONE, story.deliver("p.1", ONE, holder="B", count=2), holder="B")
    story.gone(ONE)


def an_expired_one_is_delivered(story: Story) -> None:
    story.op("send", id="p.1", exchange="", key="q0")
    story.change("message", queue="q0", place=place(1), ident="p.1", life=0.5)
    story.acked("p.1", ONE)


def a_live_holder_is_robbed(story: Story) -> None:
    story.send("p.1", "q0", place=ONE)
    story.deliver("p.1", ONE)
    story.settle("ack", ONE, story.deliver("p.1", ONE, holder="B", count=2), holder="B")
    story.gone(ONE)


def a_claim_is_left(story: Story) -> None:
    story.left.append(f"q/q0/c/{ONE}")


def a_broadcast_is_missed(story: Story) -> None:
    story.change("binding", queue="x.s.1")
    for ident in ("p.1", "p.2"):
        story.change("broadcast", queue="f", place=ident, ident=ident)
    story.op("heard", "s", queue="x.s.1", id="p.2")


def an_actor_crashes(story: Story) -> None:
    story.op("crashed", error="KeyError")


BAD: dict[Callable[[Story], None], str] = {
    a_confirmed_message_is_nowhere: "nothing is lost",
    a_message_stays: "nothing is lost",
    a_message_goes_unseen: "nothing is lost",
    one_queue_is_left_out: "nothing is lost",
    one_queue_comes_later: "all queues at once",
    a_sibling_gets_a_copy: "no copies elsewhere",
    two_in_the_wrong_order: "in order",
    the_urgent_one_last: "urgent first",
    delivered_twice_by_one_claim: "delivered once for each claim",
    delivered_without_a_claim: "delivered is claimed",
    an_ack_has_no_effect: "settled is settled",
    an_expired_one_is_delivered: "expired is not delivered",
    a_live_holder_is_robbed: "a holder keeps it",
    a_claim_is_left: "nothing is left behind",
    a_broadcast_is_missed: "broadcasts come whole",
    an_actor_crashes: "nobody crashes",
}


def test_a_good_history_is_left_alone() -> None:
    story = Story()
    good(story)
    assert judged(story.history()) == []


@pytest.mark.parametrize("told", BAD, ids=lambda told: told.__name__)
def test_a_bad_history_is_named(told: Callable[[Story], None]) -> None:
    story = Story()
    told(story)
    assert rules(judged(story.history())) == {BAD[told]}


def test_a_kept_history_is_judged_the_same(tmp_path: Path) -> None:
    story = Story()
    two_in_the_wrong_order(story)
    history = story.history()
    again = History.load(history.save(tmp_path / "history.json"))
    assert asdict(again) == asdict(history)
    assert judged(again) == judged(history)
    assert judged(replace(history, ops=[*history.ops])) == judged(history)


@pytest.mark.parametrize(
    "pattern, key, fits",
    [("#", "a.b", True), ("a.*", "a.b", True), ("a.*", "a.b.c", False), ("a.#", "a.b.c", True), ("*.x", "b.x", True)],
)
def test_the_model_of_topics(pattern: str, key: str, fits: bool) -> None:
    assert matches(pattern, key) is fits
