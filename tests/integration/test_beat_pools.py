"""Named pools (Q3): a limit that jobs share holds at every revision of etcd, whatever becomes of the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from crony.beat.duties import slots
from crony.domain.callback import Report
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.pool import Slot
from crony.domain.shards import shard_of
from crony.etcd.keys import Keys
from crony.lifecycle import admit, enqueue, fire, release
from crony.lifecycle.complete import Told, complete
from crony.lifecycle.handback import hand_back
from crony.lifecycle.move import Dispatch, Move, sent
from crony.lifecycle.quarantine import quarantine
from tests.helpers.beat import FakeNode, Message, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.pool_history import PoolHistory
from tests.helpers.wait import until
from tests.integration.test_beat_deadlines import taken


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of nobody are looked for more often."""
    monkeypatch.setattr(slots, "EVERY", 0.3)


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        made.lead()
        yield made


@pytest.fixture
def history(place: Stage) -> Iterator[PoolHistory]:
    """Judged at the end of every test: nothing was wrong, and every slot belongs to a live run."""
    with PoolHistory(place.client, place.keys) as watched:
        yield watched
        found = watched.caught_up()
        assert found.wrong == [] and found.held == found.needed


def in_line(place: Stage) -> list[str]:
    """Runs that wait for a slot."""
    return sorted(run for run, wait in place.waits().items() if wait.reason == "pool")


def job(place: Stage, *pools: str, **fields: object) -> LiveJob:
    return place.publish(overlap="allow", limits=[f"pool:{name}" for name in pools], **fields)


def test_a_shared_limit_and_who_is_next(place: Stage, history: PoolHistory) -> None:
    place.pool("a", 2)
    node = place.node("n1", capacity=10)
    one, two = job(place, "a"), job(place, "a", priority=5)
    first = [place.ask(one).run for _ in range(4)]
    until(lambda: len(place.waits()) == 2, 10, "two of four to wait")
    assert in_line(place) == sorted(first[2:]) and len(node.messages()) == 2
    wait = place.waits()[first[2]]
    assert (wait.detail, wait.finished) == ("pool a lets 2 run at a time", 0)
    assert place.slots() == {"a/0": first[0], "a/1": first[1]}
    assert [m.envelope.slots for m in node.messages()] == [["a/0"], ["a/1"]]
    urgent = place.ask(two).run
    until(lambda: urgent in in_line(place), 10, "the urgent one to line up")
    for follows in (urgent, first[2], first[3]):
        ended(place, node, next(m for m in node.messages() if m.run != urgent))
        until_next(place, follows)
        assert len(node.messages()) == 2
    node.run_all()
    assert place.slots() == {} and history.most == {"a": 2}


def until_next(place: Stage, run: str) -> Message:
    """That run's message, once it has its turn."""
    return until(lambda: next((m for m in place.messages() if m.run == run), None), 12, f"{run} to have its turn")


def head(node: FakeNode) -> Message:
    """What the node is to take next; who waits for a slot may be told before who has it is sent."""
    return until(node.messages, 10, "a message")[0]


def ended(place: Stage, node: FakeNode, message: Message) -> None:
    node.end(message, node.claim(message))


def failed(place: Stage, node: FakeNode, message: Message) -> None:
    node.end(message, node.claim(message), Kind.FAILED)


def cancelled(place: Stage, node: FakeNode, message: Message) -> None:
    enqueue.cancel(place.client, place.keys, message.run)


def rerouted(place: Stage, node: FakeNode, message: Message) -> None:
    node.vanish()


def taken_over(place: Stage, node: FakeNode, message: Message) -> None:
    node.claim(message)
    node.vanish()


def taken_back(place: Stage, node: FakeNode, message: Message) -> None:
    told = (place.client, place.keys, message.envelope, message.sealed, message.place, node.claim(message))
    assert hand_back(*told, at=1.0, detail="", node=node.name)


def set_aside(place: Stage, node: FakeNode, message: Message) -> None:
    fence = node.claim(message)
    assert quarantine(place.client, place.keys, message.queue, message.place, fence, "expired", node=node.name)


def lost(place: Stage, node: FakeNode, message: Message) -> None:
    place.client.delete(place.keys.message(message.queue, message.place))


@pytest.mark.parametrize(
    "what", [ended, failed, cancelled, rerouted, taken_over, taken_back, set_aside, lost], ids=lambda f: f.__name__
)
def test_every_way_out_gives_the_slot_to_the_next(
    place: Stage, history: PoolHistory, what: Callable[[Stage, FakeNode, Message], None]
) -> None:
    place.pool("a", 1)
    node = place.node("n1")
    made = job(place, "a", retry={"max": 1, "delay": "60s"})
    first, second = place.ask(made).run, place.ask(made).run
    until(lambda: in_line(place) == [second], 10, "the second to wait")
    if what in (rerouted, taken_over):
        place.node("heir")
    what(place, node, head(node))
    message = until_next(place, second)
    assert place.slots() == {"a/0": second} and message.envelope.slots == ["a/0"]
    assert all(m.run != first for m in place.messages())


def test_a_run_between_its_attempts_holds_nothing_and_lines_up_again(place: Stage, history: PoolHistory) -> None:
    place.pool("a", 1)
    node = place.node("n1")
    made = job(place, "a", retry={"max": 1, "delay": "0s"})
    first, second = place.ask(made).run, place.ask(made).run
    until(lambda: in_line(place) == [second], 10, "the second to wait")
    failed(place, node, head(node))
    until_next(place, second)
    until(lambda: in_line(place) == [first], 10, "the first to wait for its next attempt")
    ended(place, node, head(node))
    again = until_next(place, first)
    assert again.envelope.attempt == 2
    ended(place, node, again)
    assert place.slots() == {}


@pytest.mark.parametrize("how", ["completes", "is late", "is cancelled"])
def test_an_accepted_run_keeps_its_slot_until_its_callee_is_done(place: Stage, history: PoolHistory, how: str) -> None:
    place.pool("a", 1)
    node = place.node("n1")
    made = job(place, "a", **{"async": {"deadline": "1s" if how == "is late" else "1h"}})
    first, second = place.ask(made).run, place.ask(made).run
    until(lambda: in_line(place) == [second], 10, "the second to wait")
    token = taken(node, head(node))
    looks = 3 * slots.EVERY  # those for slots that are nobody's
    if how != "is late":
        assert settled(lambda: (place.slots(), place.messages()), still=looks) == ({"a/0": first}, [])
    if how == "completes":
        assert complete(place.client, place.keys, first, 1, token, Report(True)) == Told("ended", "succeeded")
    elif how == "is cancelled":
        enqueue.cancel(place.client, place.keys, first)
    until_next(place, second)
    assert place.slots() == {"a/0": second}
    ended(place, node, head(node))


def test_a_limit_that_is_raised_lowered_and_removed(place: Stage, history: PoolHistory) -> None:
    node = place.node("n1", capacity=20)
    made = job(place, "a")
    runs = [place.ask(made).run for _ in range(9)]
    until(lambda: len(in_line(place)) == 9, 10, "all to wait for a pool that is not published")
    assert place.waits()[runs[0]].detail == "there is no pool a"
    place.pool("a", 5)
    until(lambda: len(node.messages()) == 5, 10, "five to go")
    place.pool("a", 2, revision=2)
    for left in (4, 3, 2):
        ended(place, node, head(node))
        assert settled(lambda: len(node.messages()), still=0.15) == left, "what runs goes on, nothing new comes"
        if left == 2:
            break
    ended(place, node, head(node))
    until(lambda: len(node.messages()) == 2 and len(place.waits()) == 3, 10, "one to follow one")
    place.pool("a", 0, revision=3)
    ended(place, node, head(node))
    assert settled(lambda: len(node.messages())) == 1
    place.pool("a", 0, revision=4, deleted=True)
    until(lambda: len(node.messages()) == 4, 10, "a pool that was deleted to limit nothing")
    node.run_all()
    assert not place.waits() and place.slots() == {}


def test_a_job_of_several_pools_takes_all_or_nothing(place: Stage, history: PoolHistory) -> None:
    place.pool("a", 1)
    place.pool("b", 2)
    node = place.node("n1", capacity=20)
    both, other, only = job(place, "a", "b"), job(place, "b", "a"), job(place, "b")
    runs = [place.ask(each).run for each in (both, other, only, only, both)]
    until(lambda: len(node.messages()) == 1 and len(in_line(place)) == 4, 10, "one to hold both")
    assert place.slots() == {"a/0": runs[0], "b/0": runs[0]}, "the first that a keeps waiting has a place of b kept"
    for _ in range(5):
        message = until(node.messages, 10, "somebody's turn")[0]
        ended(place, node, message)
    until(lambda: not node.messages() and not place.waits(), 10, "all to have run")
    assert len(place.outs()) == 5 and place.slots() == {}


def test_fires_wait_in_line_and_a_new_leader_knows_it(etcd: EtcdServer, keys: Keys) -> None:
    with stage(etcd.endpoint, keys) as place, PoolHistory(place.client, keys) as history:
        first = place.lead()
        place.pool("a", 1)
        node = place.node("n1")
        made = place.publish(overlap="allow", limits=["pool:a"], schedule={"every": "1s"})
        until(lambda: len(in_line(place)) >= 3, 15, "fires to wait")
        place.edit(made, enabled=False)
        first.stop()
        waiting = in_line(place)
        place.lead(centre="two")
        ended(place, node, head(node))
        for run in waiting:
            ended(place, node, until_next(place, run))
        until(lambda: not place.messages() and not place.waits(), 10, "all to have run")
        assert history.caught_up().wrong == [] and history.held == set() and history.most == {"a": 1}


def test_a_slot_of_nobody_is_given_back_and_one_of_somebody_never(place: Stage) -> None:
    place.pool("a", 3)
    node = place.node("n1")
    run = place.ask(job(place, "a")).run
    message = until(node.messages, 10, "the run")[0]
    stranger = Slot(message.run, message.queue, "9" * 17 + ".nowhere")
    place.client.put(place.keys.slot("a", 1), stranger.encode())
    place.client.put(place.keys.slot("a", 2), b"nonsense")
    until(lambda: place.client.get(place.keys.slot("a", 2)) is None, 20, "what nobody can read to be free")
    assert place.slots()["a/0"] == run
    ended(place, node, message)
    until(lambda: place.client.count(place.keys.pools) == 0, 20, "the other to be free once its run is nowhere")


# -- two leaders ------------------------------------------------------------------------------------


def two_leaders(place: Stage, deaf: bool) -> PoolHistory:
    """Two shards under two leaders share a pool of 3; one of them hears nothing of slots, if `deaf`."""
    place.pool("a", 3)
    node = place.node("n1", capacity=50)
    first, second = place.centre(centre="one"), place.centre(centre="two")
    running = (first, second)
    until(lambda: sorted(n for each in running for n, x in each.centre.leaders.items() if x.ready) == [0, 1], 20)
    if deaf:
        book = next(x.office.book for each in running for n, x in each.centre.leaders.items() if n == 1)
        book.pools.hold = lambda *_: None  # type: ignore[method-assign]
    jobs: dict[int, LiveJob] = {}
    while len(jobs) < 2:
        made = job(place, "a")
        jobs.setdefault(shard_of(made.id, 2), made)
    with PoolHistory(place.client, place.keys) as history:
        runs = {place.ask(jobs[number % 2]).run for number in range(30)}

        def all_ended() -> bool:
            for message in node.messages()[:2]:
                ended(place, node, message)
            return {run for run, _ in place.outs()} >= runs or bool(history.wrong)

        until(all_ended, 40, "all to end", every=0.03)
        return history.caught_up()


@pytest.mark.parametrize("deaf", [False, True])
def test_two_leaders_never_let_too_many_in(etcd: EtcdServer, keys: Keys, deaf: bool) -> None:
    with stage(etcd.endpoint, keys, shards=2) as place:
        history = two_leaders(place, deaf)
        assert history.wrong == [] and history.held == set() and history.most == {"a": 3}


def test_without_the_compare_of_a_slot_the_history_shows_it(
    etcd: EtcdServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(keys: Keys, dispatches: list[Dispatch]) -> Move:
        out = sent(keys, dispatches)
        return replace(out, seen={key: seen for key, seen in out.seen.items() if not key.startswith(keys.pools)})

    for module in (admit, fire, release):
        monkeypatch.setattr(module, "sent", careless)
    with stage(etcd.endpoint, keys, shards=2) as place:
        history = two_leaders(place, deaf=True)
        assert any("was taken by" in wrong for wrong in history.wrong), "a doubled slot must be seen"
        print(history.wrong[0])
