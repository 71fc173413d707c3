"""Jobs that run after others: asked for once, whoever leads when, or a record says why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from crony.beat.book import Book
from crony.domain import ids
from crony.domain.gathering import Gathering
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome
from crony.etcd.keys import Keys
from crony.lifecycle.hold import turn
from tests.helpers.beat import Dying, FakeNode, Message, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


@pytest.fixture
def node(place: Stage) -> FakeNode:
    return place.node("n1")


def after(*parents: LiveJob, **more: Any) -> dict[str, Any]:
    """The field as it is published."""
    return {"jobs": [parent.name for parent in parents], "ids": [parent.id for parent in parents], **more}


def message_of(place: Stage, job: LiveJob) -> Message:
    """The run of a job that lies in a queue."""
    return until(lambda: next((m for m in place.messages() if m.envelope.job == job.id), None), 10, f"a run of {job}")


def end(node: FakeNode, message: Message, kind: str = Kind.SUCCEEDED, **facts: object) -> None:
    node.end(message, node.claim(message), kind, **facts)


def run_and_end(place: Stage, node: FakeNode, job: LiveJob, kind: str = Kind.SUCCEEDED, **options: Any) -> str:
    """Ask for a run of a job and end it."""
    run = place.ask(job, **options).run
    end(node, until(lambda: next((m for m in place.messages() if m.run == run), None), 10, "the run"), kind)
    return run


def skip_of(place: Stage, job: LiveJob) -> Outcome:
    return until(lambda: place.skips(job), 10, f"the record of {job}")[0]


def test_each_outcome_starts_those_that_wait_for_it(place: Stage, node: FakeNode) -> None:
    place.lead()
    parent = place.publish(name="close")
    children = {on: place.publish(name=f"on-{on}", after=after(parent, on=on)) for on in ("success", "failure", "end")}
    run = run_and_end(place, node, parent)
    for on in ("success", "end"):
        told = message_of(place, children[on]).envelope
        assert (told.trigger, told.chain, told.cause, told.fire_at) == ("chain", run, run, None)
        assert told.run == ids.chained_run_id(told.job, 1, run)
        end(node, message_of(place, children[on]))
    assert settled(lambda: place.skips(children["failure"])) == [], "no failure is no news"
    assert not [m for m in place.messages() if m.envelope.job == children["failure"].id]

    failed = run_and_end(place, node, parent, Kind.TIMED_OUT)
    for on in ("failure", "end"):
        assert message_of(place, children[on]).envelope.cause == failed
        end(node, message_of(place, children[on]))
    skip = skip_of(place, children["success"])
    assert (skip.reason, skip.detail) == ("parent", "close ended as timed_out; its success was awaited")
    assert (skip.trigger, skip.chain, skip.cause) == ("chain", failed, failed)

    run_and_end(place, node, parent, Kind.CANCELLED)
    end(node, message_of(place, children["end"]))
    until(lambda: place.skips(children["failure"]), 10, "a cancelled run is neither success nor failure")
    until(lambda: len(place.skips(children["success"])) == 2, 10, "for both")


def test_a_chain_keeps_its_beginning_and_a_failed_link_is_told_down_to_the_last(place: Stage, node: FakeNode) -> None:
    place.lead()
    first = place.publish(name="a")
    second = place.publish(name="b", after=after(first))
    third = place.publish(name="c", after=after(second))
    handler = place.publish(name="d", after=after(third, on="failure"))
    watcher = place.publish(name="e", after=after(handler, on="end"))
    run = run_and_end(place, node, first)
    middle = message_of(place, second)
    end(node, middle)
    told = message_of(place, third).envelope
    assert (told.chain, told.cause) == (run, middle.run)
    end(node, message_of(place, third))
    assert skip_of(place, handler).detail == "c ended as succeeded; its failure was awaited", "somebody waits for it"
    assert skip_of(place, watcher).detail == "d was skipped; its end was awaited"

    failed = run_and_end(place, node, first, Kind.FAILED)
    assert skip_of(place, second).cause == failed
    record = until(lambda: [skip for skip in place.skips(third) if skip.chain == failed], 10, "the third")[0]
    assert record.detail == "b was skipped; its success was awaited"
    assert record.cause == skip_of(place, second).run


def test_a_fire_starts_a_chain_with_its_instant(place: Stage, node: FakeNode) -> None:
    place.lead()
    parent = place.publish(schedule={"every": "1s"})
    child = place.publish(after=after(parent))
    message = message_of(place, parent)
    end(node, message)
    assert message_of(place, child).envelope.fire_at == message.envelope.fire_at is not None


def test_nothing_follows_a_run_asked_for_without_a_chain(place: Stage, node: FakeNode) -> None:
    place.lead()
    parent = place.publish()
    child = place.publish(after=after(parent))
    run_and_end(place, node, parent, no_chain=True)
    run_and_end(place, node, parent, Kind.FAILED, no_chain=True)
    assert settled(lambda: (place.messages(), place.requests(), place.skips(child))) == ([], [], [])


def test_only_the_last_attempt_counts(place: Stage, node: FakeNode) -> None:
    place.lead()
    parent = place.publish(retry={"max": 1, "delay": "0s"})
    child = place.publish(after=after(parent, on="failure"))
    run = place.ask(parent).run
    end(node, message_of(place, parent), Kind.FAILED)
    until(lambda: place.messages() and place.messages()[0].envelope.attempt == 2, 10, "the second attempt")
    assert settled(lambda: [m.envelope.job for m in place.messages()]) == [parent.id]
    end(node, message_of(place, parent), Kind.FAILED)
    assert message_of(place, child).envelope.cause == run


def test_a_paused_a_deleted_and_a_changed_child_do_not_run(place: Stage, node: FakeNode) -> None:
    place.lead()
    parent, other = place.publish(), place.publish()
    paused = place.publish(after=after(parent), enabled=False)
    gone = place.publish(after=after(parent))
    moved = place.publish(after=after(parent))
    turn(place.client, place.keys, True, by="eve")  # requests wait, and meanwhile the jobs change
    node.end(*_running(place, node, parent))
    until(lambda: len(place.requests()) == 3, 10, "the requests")
    place.delete(gone)
    place.edit(moved, after=after(other))
    turn(place.client, place.keys, False, by="eve")
    found = {job.id: skip_of(place, job) for job in (paused, gone, moved)}
    assert (found[paused.id].reason, found[paused.id].detail) == ("paused", "the job was paused")
    assert (found[gone.id].reason, found[gone.id].detail) == ("deleted", "the job is deleted")
    assert found[moved.id].detail == "the job does not run after it any more"
    place.edit(paused, enabled=True)
    run_and_end(place, node, parent)
    message_of(place, paused)
    run_and_end(place, node, other)
    message_of(place, moved)
    assert not [m for m in place.messages() if m.envelope.job == gone.id]


def _running(place: Stage, node: FakeNode, job: LiveJob) -> tuple[Message, int]:
    """A run of a job that was begun while nothing was held."""
    turn(place.client, place.keys, False, by="eve")
    place.ask(job)
    message = message_of(place, job)
    fence = node.claim(message)
    turn(place.client, place.keys, True, by="eve")
    return message, fence


@pytest.mark.parametrize("happened", [False, True])
def test_a_leader_that_dies_between_the_end_and_its_settling_neither_forgets_nor_doubles(
    place: Stage, node: FakeNode, happened: bool
) -> None:
    first = place.lead()
    parent = place.publish()
    child, other = (place.publish(after=after(parent, on=on)) for on in ("success", "failure"))
    watcher = place.publish(after=after(other, on="end"))
    dying = Dying(first, lambda txn: place.keys.settled in txn._puts, lose_answer=happened)
    run = run_and_end(place, node, parent)
    until(lambda: dying.dead, 10, "the leader to come to the end")
    assert len(place.requests()) == happened
    first.stop()
    place.lead(centre="two")
    assert message_of(place, child).envelope.cause == run
    end(node, message_of(place, child))
    until(lambda: place.skips(watcher), 10, "the branch not taken")
    assert settled(lambda: (place.requests(), place.messages())) == ([], [])
    assert sorted(r for r, _ in place.outs() if r.startswith(child.id)) == [ids.chained_run_id(child.id, 1, run)]


def test_a_child_saved_before_the_end_follows_though_the_leader_has_not_heard_of_it(
    place: Stage, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compare of `chains`: without it the end would be settled by what the leader knows."""
    place.lead()
    parent = place.publish()
    real, deaf = Book.put, [True]

    def put(book: Book, key: str, *rest: Any) -> None:
        if not (deaf[0] and key.startswith(f"{place.keys.root}obj/")):
            real(book, key, *rest)

    monkeypatch.setattr(Book, "put", put)
    child = place.publish(after=after(parent))
    run_and_end(place, node, parent)
    assert settled(place.messages) == [] and place.client.get(place.keys.settled) is None, "it waits to be told"
    deaf[0] = False
    place.edit(child, description="so that it is told again")
    message_of(place, child)


def gathered(place: Stage) -> list[Gathering]:
    """What lies in `run/chain/`."""
    return [Gathering.read(kv.value) for kv in place.client.list(place.keys.run_chain("")).kvs]


def test_all_of_a_diamond_are_awaited_once_in_each_chain(place: Stage, node: FakeNode) -> None:
    place.lead()
    top = place.publish(name="top")
    left, right = place.publish(name="left", after=after(top)), place.publish(name="right", after=after(top))
    bottom = place.publish(name="bottom", after=after(left, right))
    run = run_and_end(place, node, top)
    end(node, message_of(place, left))
    (waits,) = until(lambda: gathered(place), 10, "one end to be noted")
    assert (waits.key, list(waits.ends), waits.decided) == (run, [left.id], False)
    assert not [m for m in place.messages() if m.envelope.job == bottom.id]
    second = message_of(place, right)
    end(node, second)
    told = message_of(place, bottom).envelope
    assert (told.chain, told.cause, told.run) == (run, second.run, ids.chained_run_id(bottom.id, 1, run))
    assert gathered(place) == []
    end(node, message_of(place, bottom))

    failed = run_and_end(place, node, top)
    end(node, message_of(place, left), Kind.FAILED)
    skip = skip_of(place, bottom)
    assert skip.detail == "left ended as failed; success of 2 of 2 was awaited" and skip.chain == failed
    assert [waits.decided for waits in gathered(place)] == [True], "the other one is to come, and starts nothing"
    end(node, message_of(place, right))
    until(lambda: not gathered(place), 10, "the record to go")
    assert settled(place.messages) == [] and len(place.skips(bottom)) == 1


def test_any_runs_once_in_a_chain_and_a_number_of_them_likewise(place: Stage, node: FakeNode) -> None:
    place.lead()
    top = place.publish(name="top")
    branches = [place.publish(name=f"branch{number}", after=after(top)) for number in range(3)]
    first = place.publish(name="first", after=after(*branches, of="any"))
    two = place.publish(name="two", after=after(*branches, of=2))
    run = run_and_end(place, node, top)
    runs = [message_of(place, branch) for branch in branches]
    end(node, runs[0], Kind.FAILED)
    end(node, runs[1])
    assert message_of(place, first).envelope.cause == runs[1].run
    assert settled(lambda: [m for m in place.messages() if m.envelope.job == two.id]) == []
    end(node, message_of(place, first))
    end(node, runs[2])
    assert message_of(place, two).envelope.chain == run
    until(lambda: not gathered(place), 10, "the records to go")
    assert settled(lambda: [m.envelope.job for m in place.messages()]) == [two.id], "the first ran once"


def test_fires_of_one_second_are_one_chain_and_a_record_of_many_fires_speaks_for_each(
    place: Stage, node: FakeNode
) -> None:
    place.lead()
    fire = int(time.time()) - 30
    once, gone = place.publish(name="once", done=fire), place.publish(name="gone", done=fire)
    child = place.publish(name="child", after=after(once, gone))
    for job in (once, gone):
        until(lambda job=job: place.centres[0].centre.leader.office.book.jobs.get(job.id), 5, "the job")  # type: ignore[misc, union-attr]

    def ends_as_fire(job: LiveJob, at: int, kind: str = Kind.SUCCEEDED, **more: Any) -> None:
        run = ids.fire_run_id(job.id, 1, at)
        out = Outcome(run, job.id, job.name, 1, 1, 1, kind, True, "schedule", time.time(), fire_at=at, **more)
        place.client.put(place.keys.out(run, 0 if kind == Kind.SKIPPED else 1), out.encode())

    ends_as_fire(once, fire)
    ends_as_fire(gone, fire)
    told = message_of(place, child).envelope
    assert told.run == ids.chained_run_id(child.id, 1, str(fire)) and told.fire_at == fire
    end(node, message_of(place, child))
    for at in (fire + 5, fire + 9):
        ends_as_fire(once, at)
    until(lambda: len(gathered(place)) == 2, 10, "both to wait")
    ends_as_fire(gone, fire + 4, Kind.SKIPPED, to_at=fire + 8, count=4, reason="misfire")
    skips = until(lambda: len(place.skips(child)) == 2 and place.skips(child), 10, "its first fire, and the other one")
    assert {skip.run for skip in skips} == {ids.chained_run_id(child.id, 1, str(fire + at)) for at in (4, 5)}
    assert {skip.detail for skip in skips} == {"gone was skipped; success of 2 of 2 was awaited"}
    left = {str(fire + 4): True, str(fire + 9): False}
    until(lambda: {waits.key: waits.decided for waits in gathered(place)} == left, 10, "the others to wait")


def test_who_cannot_come_is_not_waited_for(place: Stage, node: FakeNode) -> None:
    place.lead()
    one, other = place.publish(name="one"), place.publish(name="other")
    child = place.publish(name="child", after=after(one, other))
    lenient = place.publish(name="lenient", after=after(one, other, of="any"))
    run_and_end(place, node, one)
    message_of(place, lenient)
    said = "no run of other is part of a chain that began so; success of 2 of 2 was awaited"
    assert skip_of(place, child).detail == said
    assert gathered(place) == []


def test_who_does_not_come_in_time_is_given_up(place: Stage, node: FakeNode) -> None:
    """And a record that nobody can read goes."""
    place.lead()
    top = place.publish(name="top")
    left, right = place.publish(name="left", after=after(top)), place.publish(name="right", after=after(top))
    child = place.publish(name="child", after=after(left, right, within="1m"))
    gone = place.publish(name="gone", after=after(left, right))
    run_and_end(place, node, top)
    end(node, message_of(place, left))
    waits = {each.job: each for each in until(lambda: len(gathered(place)) == 2 and gathered(place), 10, "both")}
    assert waits[child.id].until_at == waits[child.id].chain_at + 60
    place.delete(gone)
    for each in waits.values():
        late = replace(each, until_at=time.time() - 61)
        place.client.put(place.keys.run_chain(each.run), late.encode())
    place.client.put(place.keys.run_chain("nonsense"), b"[[[")
    skip = skip_of(place, child)
    assert skip.detail == "right did not end within 1m after its chain began" and skip.cause
    until(lambda: gathered(place) == [], 10, "all to go")
    end(node, message_of(place, right))
    assert settled(lambda: (place.messages(), len(place.skips(child)))) == ([], 1), "what is over stays over"


@pytest.mark.parametrize("happened", [False, True])
def test_ends_of_several_survive_a_leader_s_death(place: Stage, node: FakeNode, happened: bool) -> None:
    first = place.lead()
    top = place.publish(name="top")
    left, right = place.publish(name="left", after=after(top)), place.publish(name="right", after=after(top))
    child = place.publish(name="child", after=after(left, right))
    run = run_and_end(place, node, top)
    runs = [message_of(place, job) for job in (left, right)]
    for number, message in enumerate(runs):
        dying = Dying(first, lambda txn: place.keys.settled in txn._puts, lose_answer=happened)
        end(node, message)
        until(lambda dying=dying: dying.dead, 10, "the leader to come to the end")  # type: ignore[misc]
        first.stop()
        first = place.lead(centre=f"c{number}")
    assert message_of(place, child).envelope.chain == run
    end(node, message_of(place, child))
    assert settled(lambda: [*place.messages(), *place.requests(), *gathered(place), *place.skips(child)]) == []


def test_shards_that_know_nothing_of_each_other_s_jobs(etcd: EtcdServer, keys: Keys) -> None:
    with stage(etcd.endpoint, keys, shards=3) as place:
        place.lead()
        node = place.node("n1")
        parents = [place.publish() for _ in range(4)]
        children = [place.publish(after=after(parent)) for parent in parents]
        for parent, child in zip(parents, children, strict=True):
            run_and_end(place, node, parent)
            end(node, message_of(place, child))


def test_results_become_parameters(place: Stage, node: FakeNode) -> None:
    """Also when a leader has died since the first of them was told."""
    first = place.lead()
    top = place.publish(name="top")
    left, right = place.publish(name="left", after=after(top)), place.publish(name="right", after=after(top))
    takes = {"total": {"job": "left", "path": "sum.total"}, "how": {"job": "right", "fact": "outcome"}}
    child = place.publish(params={"total": 0, "x": 1}, after=after(left, right, on="end", results=takes))
    alone = place.publish(after=after(left, results={"total": "sum.total"}))
    run_and_end(place, node, top)
    end(node, message_of(place, left), result={"sum": {"total": 12.5}})
    assert message_of(place, alone).envelope.params == {"total": 12.5}
    until(lambda: [each.params for each in gathered(place)] == [{"total": 12.5}], 10, "it to be kept")
    first.stop()
    place.lead(centre="two")
    end(node, message_of(place, right), Kind.FAILED)
    assert message_of(place, child).envelope.params == {"total": 12.5, "x": 1, "how": "failed"}
    end(node, message_of(place, alone))

    run_and_end(place, node, top)
    end(node, message_of(place, left), result={"sum": 1})
    said = "there is nothing for the parameter total; the run of left has no `sum.total`"
    assert skip_of(place, alone).detail == said


def test_forty_follow_one_and_what_makes_no_sense_stops_nobody(place: Stage, node: FakeNode) -> None:
    place.lead()
    parent = place.publish()
    children = [place.publish(after=after(parent)) for _ in range(40)]
    for number, value in enumerate((b"[[[", b"{}", b'{"job": "x", "parents": 3}')):
        place.client.put(place.keys.chain(f"j{number}"), value)
    for _ in range(3):
        place.ask(parent)
        end(node, message_of(place, parent))
    wanted = {child.id for child in children}
    until(lambda: {m.envelope.job for m in place.messages()} == wanted, 20, "each of them")
    until(lambda: len([1 for (_, n), out in place.outs().items() if n == "0"]) == 80, 20, "overlap skips the others")
