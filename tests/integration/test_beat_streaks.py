"""A job that its leader pauses after failures in a row: counted once whoever dies, told, ended by an edit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from crony.domain.alert import Alert, AlertKind
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle.settle import Position
from tests.helpers.beat import Dying, FakeNode, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, shards=3) as made:
        yield made


def ends(place: Stage, node: FakeNode, job: LiveJob, *kinds: str) -> None:
    """Runs by hand, one after the other, that end so."""
    for kind in kinds:
        run = place.ask(job).run
        message = until(lambda run=run: next((m for m in node.messages() if m.run == run), None), 10, "the run")
        node.end(message, node.claim(message), kind)
    told(place)


def told(place: Stage) -> None:
    """Until every end there is has been told, and acted on."""
    last = max((kv.mod, kv.key) for kv in place.client.list(place.keys.outs).kvs)

    def settled() -> bool:
        found = place.client.get(place.keys.settled)
        return found is not None and Position.read(found.value).covers(*last) and not place.requests()

    until(settled, 10, "all ends to be told")


def takes_off(place: Stage) -> Callable[[Txn], bool]:
    """The transaction that acts on an end."""
    return lambda txn: any(key.startswith(place.keys.run_in("s")) for key in txn._deletes)


def alerts(place: Stage) -> list[Alert]:
    found = [Alert.read(kv.value) for kv in place.client.list(place.keys.alert("")).kvs]
    return [alert for alert in found if alert.kind == AlertKind.JOB_PAUSED]


def test_it_is_paused_told_and_goes_on_after_an_edit(place: Stage) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(pause_after=2)
    ends(place, node, job, Kind.FAILED, Kind.SUCCEEDED, Kind.FAILED, Kind.CANCELLED, Kind.TIMED_OUT)
    done = until(lambda: (done := place.done(job)).held and done, 10, "the pause")
    assert (done.failures, done.held_for, done.held_revision) == (2, "failures", 1)
    (alert,) = alerts(place)
    assert (alert.job, alert.name, alert.outcome) == (job.id, job.name, Kind.TIMED_OUT) and alert.run in done.held
    ends(place, node, job, Kind.SUCCEEDED)
    assert place.done(job).held == done.held, "a run by hand is possible, and ends no pause"

    place.edit(job, description="repaired")
    until(lambda: not place.done(job).held, 5, "the pause to end")
    ends(place, node, job, Kind.FAILED)
    assert (place.done(job).failures, place.done(job).held) == (1, "")


def test_what_it_passes_over_is_one_record_and_none_of_it_runs(place: Stage) -> None:
    place.lead()
    node = place.node("n1")
    job = place.publish(schedule={"every": "1s"}, overlap="queue_all", pause_after=1, misfire={"policy": "fire_all"})
    message = until(node.messages, 10, "a fire")[0]
    node.end(message, node.claim(message), Kind.FAILED)
    done = until(lambda: (done := place.done(job)).held and done, 10, "the pause")
    until(lambda: time.time() > done.upto_at + 3.2, 10, "fires to be passed over")
    assert place.done(job).upto_at == done.upto_at
    made = place.fires(job)
    assert all(fire <= done.upto_at for fire in made)
    place.edit(job, description="repaired", schedule={"every": "1h"})
    skip = until(lambda: [skip for skip in place.skips(job) if skip.reason == "paused"], 10, "the record")[0]
    assert (skip.fire_at, skip.detail) == (done.upto_at + 1, done.held)
    assert skip.count >= 3 and skip.to_at == (skip.fire_at or 0) + skip.count - 1 == place.done(job).upto_at
    assert set(place.fires(job)) <= set(made)


@pytest.mark.parametrize("happened", [False, True])
def test_a_leader_that_dies_at_the_pause_neither_forgets_nor_doubles_a_failure(place: Stage, happened: bool) -> None:
    first = place.lead()
    node = place.node("n1")
    job = place.publish(pause_after=2)
    ends(place, node, job, Kind.FAILED)
    dying = Dying(first, takes_off(place), lose_answer=happened)
    message = until(lambda: place.ask(job) and node.messages(), 10, "the second run")[0]
    node.end(message, node.claim(message), Kind.FAILED)
    until(lambda: dying.dead, 10, "the leader to come to the pause")
    assert bool(place.done(job).held) is happened
    first.stop()
    place.lead(centre="two")
    told(place)
    done = until(lambda: (done := place.done(job)).held and done, 10, "the pause")
    assert done.failures == 2 and len(alerts(place)) == 1


def test_an_edit_that_the_leader_has_not_seen_keeps_it_from_pausing_the_job(place: Stage) -> None:
    first = place.lead()
    node = place.node("n1")
    job = place.publish(pause_after=1)
    dying = Dying(first, takes_off(place))
    message = until(lambda: place.ask(job) and node.messages(), 10, "the run")[0]
    node.end(message, node.claim(message), Kind.FAILED)
    until(lambda: dying.dead, 10, "the leader to come to the pause")
    place.edit(job, description="repaired")
    dying.client.txn = dying.real  # type: ignore[method-assign]
    told(place)
    assert not place.done(job).held and not alerts(place)
