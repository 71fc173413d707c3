"""Lost, restarted, drained and leaving nodes: what they had goes elsewhere, and nothing runs twice by our doing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from crony.domain.outcome import Kind
from crony.domain.run import Claim
from crony.domain.signing import Sealer
from crony.etcd.keys import Keys
from crony.lifecycle.end import Stale
from crony.lifecycle.quarantine import Dead, quarantine
from tests.helpers.beat import FakeNode, Message, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        made.lead()
        yield made


def load(place: Stage, node: FakeNode, count: int) -> list[str]:
    """Runs of one allow job, all in the node's queue."""
    job = place.publish(overlap="allow")
    runs = [place.ask(job).run for _ in range(count)]
    until(lambda: len(node.messages()) == count, 10, "the runs")
    return runs


def test_unstarted_work_moves_at_once_with_the_same_attempt(place: Stage) -> None:
    lost = place.node("lost")
    runs = load(place, lost, 30)
    heir = place.node("heir")
    lost.vanish()
    moved = until(lambda: len(found := heir.messages()) == 30 and found, 10, "all to move")
    assert {m.run for m in moved} == set(runs) and {m.envelope.attempt for m in moved} == {1}
    assert not lost.messages() and place.outs() == {} and not place.waits()


def test_started_work_is_taken_over_after_the_grace(place: Stage) -> None:
    lost = place.node("lost")
    (run,) = load(place, lost, 1)
    message = lost.messages()[0]
    fence = lost.claim(message)
    heir = place.node("heir")
    gone = time.monotonic()
    lost.vanish()
    second = until(heir.messages, 10, "the takeover")[0]
    assert time.monotonic() - gone >= 0.28, "not before the grace"
    assert second.envelope.attempt == 2 and second.envelope.losses == 1
    out = place.outs()[run, "1"]
    assert (out.kind, out.final, out.node, out.fence) == (Kind.LOST, False, "lost", 0)
    assert isinstance(lost.end(message, fence), Stale), "the late end is refused"
    heir.run_all()
    assert place.outs()[run, "2"].final


def test_the_same_incarnation_back_within_the_grace_keeps_its_work(etcd: EtcdServer, keys: Keys) -> None:
    with stage(etcd.endpoint, keys, grace=3.0) as place:
        place.lead()
        node = place.node("n1")
        load(place, node, 1)
        message = node.messages()[0]
        fence = node.claim(message)
        place.node("heir")
        for _ in range(3):
            node.vanish()
            node.appear()
        node.vanish()
        until(lambda: node.incarnation not in place.centres[0].centre.leader.office.book.sessions, 10, "the loss")  # type: ignore[union-attr]
        node.appear()
        since = time.monotonic()
        until(lambda: time.monotonic() - since > 3.3, 10, "more than the grace to pass")
        assert not isinstance(node.end(message, fence), Stale), "it is still its own"


def test_a_restart_under_the_same_name_does_not_hide_the_dead(place: Stage) -> None:
    old = place.node("n1")
    runs = load(place, old, 3)
    claimed = old.messages()[0]
    old.claim(claimed)
    old.vanish()
    new = place.node("n1")
    renewed = lambda: [m for m in new.messages() if m.envelope.incarnation == new.incarnation]  # noqa: E731
    moved = until(lambda: len(found := renewed()) == 3 and found, 10, "the work to reach the new incarnation")
    assert {m.run for m in moved} == set(runs) and len(new.messages()) == 3
    assert {m.run: m.envelope.attempt for m in moved}[claimed.run] == 2


def test_drained_and_leaving_nodes_lose_what_they_have_not_started(place: Stage) -> None:
    drained, leaving = place.node("drained"), place.node("leaving")
    job = place.publish(overlap="allow")
    runs = {place.ask(job).run for _ in range(8)}
    until(lambda: len(place.messages()) == 8, 10, "the runs")
    kept = drained.messages()[0]
    drained.claim(kept)
    heir = place.node("heir")
    place.control("drained", drain=True)
    until(lambda: len(drained.messages()) == 1, 10, "the drained one to keep only what it holds")
    started = leaving.messages()[0]
    fence = leaving.claim(started)
    leaving.say(draining=True)
    until(lambda: len(leaving.messages()) == 1, 10, "the leaving one as well")
    key = place.keys.claim(started.queue, started.place)
    place.client.put(key, Claim("", count=1).encode())  # it gives the claim back
    until(lambda: not leaving.messages(), 10, "the claim given back to move too")
    assert fence
    until(lambda: {m.run for m in heir.messages()} | {kept.run} == runs, 10, "all of it to be queued at the heir")
    assert place.outs() == {}


def test_a_run_that_takes_five_nodes_with_it_is_given_up(place: Stage) -> None:
    job = place.publish()
    run = place.ask(job).run
    for number in range(5):
        node = place.node(f"n{number}")
        message = until(node.messages, 8, f"attempt {number + 1}")[0]
        assert message.envelope.attempt == number + 1
        node.claim(message)
        node.vanish()
    out = until(lambda: place.outs().get((run, "5")), 12, "the end")
    assert out.kind == Kind.LOST and out.final and "5 nodes" in out.reason
    place.node("innocent")
    assert not place.waits() and not place.messages()


def test_a_new_leader_finishes_the_failover(etcd: EtcdServer, keys: Keys) -> None:
    with stage(etcd.endpoint, keys) as place:
        first = place.lead()
        node = place.node("n1")
        runs = load(place, node, 4)
        for message in node.messages()[:2]:
            node.claim(message)
        first.stop()
        node.vanish()
        heir = place.node("heir")
        place.lead(centre="two")
        moved = until(lambda: len(found := heir.messages()) == 4 and found, 12, "everything to move")
        assert {m.run for m in moved} == set(runs) and sorted(m.envelope.attempt for m in moved) == [1, 1, 2, 2]


def test_a_genuine_message_comes_back_from_quarantine(place: Stage) -> None:
    node = place.node("n1")
    (run,) = load(place, node, 1)
    for _ in range(6):
        message = until(lambda: node.messages(), 10, "the message")[0]
        assert message.run == run and message.envelope.attempt == 1
        fence = node.claim(message)
        assert quarantine(place.client, place.keys, message.queue, message.place, fence, "expired", node="n1")
    out = until(lambda: place.outs().get((run, "end")), 10, "it to be given up")
    assert out.kind == Kind.REFUSED and out.final and "expired" in out.reason
    assert not place.messages() and not place.waits()


def test_a_forged_message_ends_its_run_and_stays_for_a_person(place: Stage) -> None:
    node = place.node("n1")
    (run,) = load(place, node, 1)
    message = node.messages()[0]
    key = place.keys.message(message.queue, message.place)
    place.client.put(key, message.value.replace(b"job/n", b"job/m"))
    fence = node.claim(node.messages()[0])
    assert quarantine(place.client, place.keys, message.queue, message.place, fence, "its seal is wrong", node="n1")
    out = until(lambda: place.outs().get((run, "end")), 10, "the run to end")
    assert out.kind == Kind.REFUSED and "seal" in out.reason
    (letter,) = place.client.list(f"{place.keys.root}dead/").kvs
    assert b'"judged": true' in letter.value and not place.waits() and not place.messages()


def dead(place: Stage, message: Message, queue: str = "") -> str:
    """A letter with this message, as whoever may write to etcd could put it; its key."""
    queue = queue or message.queue
    letter = Dead(queue=queue, place=message.place, reason="expired", message=message.value.decode())
    place.client.put(place.keys.dead(queue, message.place), letter.encode())
    return place.keys.dead(queue, message.place)


def judged(place: Stage, key: str) -> bool:
    found = place.client.get(key)
    return found is not None and bool(json.loads(found.value).get("judged"))


def test_a_replayed_letter_does_not_run_again(place: Stage) -> None:
    """It changes nothing about a run that has ended, and one from another queue is no proof of anything."""
    node = place.node("n1")
    first, second = load(place, node, 2)
    one, two = sorted(node.messages(), key=lambda message: message.run != first)
    node.end(one, node.claim(one))
    ended = until(lambda: place.outs().get((first, "1")), 5, "its end")
    replayed = dead(place, one)
    until(lambda: judged(place, replayed), 10, "the replay to be judged")
    assert not place.waits() and [message.run for message in place.messages()] == [second]
    assert {key: out for key, out in place.outs().items() if key[0] == first} == {(first, "1"): ended}
    place.client.delete(place.keys.message(two.queue, two.place))
    elsewhere = dead(place, two, "run.n2")
    until(lambda: judged(place, elsewhere), 10, "the other to be judged")
    assert place.outs()[second, "end"].kind == Kind.REFUSED and not place.waits() and not place.messages()


def test_dead_letters_of_any_shape_do_not_stop_the_judge(place: Stage) -> None:
    node = place.node("n1")
    (run,) = load(place, node, 1)
    message = node.messages()[0]
    deep = b"[" * 200_000
    at = [message.place.replace(run, f"{run}{letter}") for letter in "abcdefg"]
    odd = [deep, b"5", b'"x"', b"null", b'{"v":1}', b'{"a":' * 100_000,
           Dead("run.n1", at[6], "x", "{}\n" + deep.decode()).encode()]  # fmt: skip
    for place_, value in zip(at, odd, strict=True):
        place.client.put(place.keys.dead("run.n1", place_), value)
    fence = node.claim(message)
    assert quarantine(place.client, place.keys, message.queue, message.place, fence, "expired", node="n1")
    until(lambda: [m.run for m in node.messages()] == [run], 10, "the genuine one to come back")
    assert "Quarantine" not in place.centres[0].status()["failing"]


def test_a_claim_that_says_nonsense_does_not_stop_the_failover(place: Stage) -> None:
    node = place.node("n1")
    runs = load(place, node, 4)
    for message in node.messages()[:2]:
        place.client.put(
            place.keys.claim(message.queue, message.place),
            Claim(["x"], node=[5], at="x").encode(),  # type: ignore[arg-type]
        )
    node.vanish()
    heir = place.node("n2")
    until(lambda: {m.run for m in heir.messages()} == set(runs), 10, "all to move")


def test_a_new_leader_seals_everything_again_that_runs_out(etcd: EtcdServer, keys: Keys) -> None:
    with stage(etcd.endpoint, keys) as place:
        first = place.lead()
        node = place.node("n1")
        load(place, node, 120)
        first.stop()
        sealer, soon = Sealer(place.settings.signing_key), time.time() + 600
        for message in node.messages():
            sealed = sealer.seal(replace(message.envelope, expires_at=soon).payload()).decode()
            value = message.value.replace(json.dumps(message.sealed).encode(), json.dumps(sealed).encode())
            place.client.put(keys.message(message.queue, message.place), value)
        assert {m.envelope.expires_at for m in node.messages()} == {soon}
        place.lead(centre="two")
        until(lambda: all(m.envelope.expires_at > soon for m in node.messages()), 10, "all to be sealed again")
