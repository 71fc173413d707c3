"""A delay after the end: each end moves the job once, whoever leads and dies in between."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.run import Done
from crony.etcd.keys import Keys
from crony.lifecycle.enqueue import cancel
from tests.helpers.beat import Dying, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

DELAY = {"every": "1s", "after": "end"}


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, shards=3) as made:  # who settles an end need not lead its job
        yield made


def fired(place: Stage, job: LiveJob, since: float) -> Done:
    """The cursor once a fire at `since` or later awaits its run."""
    return until(lambda: (done := place.done(job)).upto_at >= since and done.awaits and done, 10, "a fire")


def follows(place: Stage, job: LiveJob, ended_at: float, period: int = 1) -> Done:
    """The cursor once it knows the instant that follows from this end; nothing else may follow from it."""
    done = until(lambda: (done := place.done(job)).next_at and done, 10, "the next instant")
    assert done.next_at == math.ceil(ended_at) + period and not done.awaits
    return done


def test_each_kind_of_end_is_followed_once(place: Stage) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(schedule=DELAY, retry={"max": 1, "delay": "0s"})
    assert fired(place, job, 0).upto_at == job.since_at + 1, "the first comes a period after the creation"
    message = until(node.messages, 10, "the run")[0]
    node.end(message, node.claim(message), Kind.FAILED)
    again = until(node.messages, 10, "its second attempt")[0]
    assert place.done(job).awaits == again.run, "the end of an attempt is none of the run"
    node.end(again, node.claim(again), Kind.FAILED)
    done = follows(place, job, place.outs()[again.run, "2"].ended_at)

    fired(place, job, done.next_at or 0)
    (queued,) = until(node.messages, 10, "the next run")
    cancel(place.client, place.keys, queued.run)
    done = follows(place, job, until(lambda: place.outs().get((queued.run, "1")), 10, "its cancel").ended_at)

    fired(place, job, done.next_at or 0)
    claimed = until(node.messages, 10, "the next run")[0]
    node.claim(claimed)
    node.vanish()
    until(lambda: place.waits(), 10, "the lost run to wait")
    assert place.done(job).awaits == claimed.run
    other = place.node("n2")
    (moved,) = until(other.messages, 10, "it to go elsewhere")
    other.end(moved, other.claim(moved))
    done = follows(place, job, place.outs()[moved.run, str(moved.envelope.attempt)].ended_at)
    assert not place.skips(job) and not place.requests()


def test_a_fire_that_is_skipped_is_followed_too_and_runs_by_hand_move_nothing(place: Stage) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(schedule={"every": "2s", "after": "end"})
    run = place.ask(job).run
    until(node.messages, 10, "the run by hand")
    skip = until(lambda: place.skips(job), 10, "the fire to be skipped")[0]
    assert skip.fire_at == job.since_at + 2 and run in skip.detail
    done = place.done(job)
    assert done.next_at == math.ceil(skip.ended_at) + 2 and not done.awaits
    (message,) = node.run_all()
    assert message.run == run
    assert fired(place, job, done.next_at or 0).upto_at == done.next_at


@pytest.mark.parametrize("step", ["settle", "note"])
@pytest.mark.parametrize("happened", [False, True])
def test_a_leader_that_dies_at_any_step_loses_and_doubles_no_end(place: Stage, step: str, happened: bool) -> None:
    first = place.lead()
    node = place.node("n1")
    job = place.publish(schedule=DELAY)
    fired(place, job, 0)
    (message,) = until(node.messages, 10, "the run")
    key = {"settle": place.keys.settled, "note": place.keys.done(job.id)}[step]
    dying = Dying(first, lambda txn: key in txn._puts, lose_answer=happened)
    node.end(message, node.claim(message))
    ended_at = place.outs()[message.run, "1"].ended_at
    until(lambda: dying.dead, 10, "the leader to come to that step")
    assert len(place.requests()) == (1 if (step, happened) in (("settle", True), ("note", False)) else 0)
    first.stop()
    place.lead(centre="two")
    done = follows(place, job, ended_at)
    fired(place, job, done.next_at or 0)
    (following,) = node.messages()
    assert following.envelope.fire_at == done.next_at and not place.requests()


def test_an_edit_that_the_leader_has_not_seen_keeps_the_end_from_counting_for_the_new_schedule(place: Stage) -> None:
    first = place.lead()
    node = place.node("n1")
    job = place.publish(schedule=DELAY)
    fired(place, job, 0)
    (message,) = until(node.messages, 10, "the run")
    dying = Dying(first, lambda txn: place.keys.done(job.id) in txn._puts)  # its next one follows from the end
    node.end(message, node.claim(message))
    until(lambda: dying.dead, 10, "the leader to come to its note")
    place.edit(job, schedule={"every": "1h", "after": "end"})
    dying.client.txn = dying.real  # type: ignore[method-assign]
    until(lambda: not place.requests(), 10, "the end to be taken off")
    done = until(lambda: (found := place.done(job)).due_at and found, 10, "the hint when it is due next")
    assert done.next_at is None and done.due_at is not None and done.due_at >= time.time() + 3000


def test_an_end_that_nobody_told_stops_no_job_for_ever(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crony.beat.duties.ends.MISSED_EVERY", 0.3)
    job = place.publish(schedule=DELAY)
    lost = ids.fire_run_id(job.id, 1, job.since_at + 1)
    done = Done(job.since_at + 1, next_since=job.since_at, awaits=lost)
    place.client.put(place.keys.done(job.id), done.encode())
    began = time.time()
    place.lead()
    found = until(lambda: (done := place.done(job)).next_at and done, 10, "the delay to begin")
    assert found.next_at and found.next_at >= began + 1
