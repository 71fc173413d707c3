"""Firing: every due instant becomes one run or one record (P1, P2)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from crony.beat import presence
from crony.domain.outcome import Kind
from crony.domain.routing import rendezvous
from crony.etcd.keys import Keys
from crony.lifecycle.centres import look
from tests.helpers.beat import Stage, narrow, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


def test_a_fire_reaches_the_node_as_one_sealed_message(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    job = place.publish(schedule={"every": "1s"}, params={"region": "cn"}, overlap="allow")
    message = until(node.messages, 10, "a fire")[0]
    told = message.envelope
    assert (told.run, told.job, told.attempt, told.queue, told.incarnation) == (
        f"{job.id}.1.{int(told.fire_at or 0)}",
        job.id,
        1,
        "run.n1",
        node.incarnation,
    )
    assert told.params == {"region": "cn"} and told.trigger == "schedule" and told.why
    assert told.expires_at > time.time() and message.head["headers"]["task"] == "crony.run"
    assert message.head["headers"]["id"] == f"{told.run}:1"
    first = int(told.fire_at or 0)
    fires = until(lambda: len(found := place.fires(job)) >= 3 and found, 10, "more fires")
    assert fires == list(range(first, first + len(fires))), "each second once"
    assert place.done(job).upto_at >= fires[-1] and place.done(job).fires >= 3
    assert message.envelope.requested_at >= first, "never early"


def test_overlap_skip_records_one_skip_per_decision_and_goes_on_after_the_end(place: Stage) -> None:
    node = place.node("n1")
    place.lead()
    job = place.publish(schedule={"every": "1s"})
    message = until(node.messages, 10, "a fire")[0]
    fence = node.claim(message)
    skip = until(lambda: place.skips(job), 10, "a skip")[0]
    assert (skip.reason, skip.kind, skip.final) == ("overlap", Kind.SKIPPED, True) and message.run in skip.detail
    node.end(message, fence)
    until(lambda: node.messages(), 10, "the next fire")
    fires, skips = [*place.fires(job), int(message.envelope.fire_at or 0)], place.skips(job)
    covered = sorted(fires + [int(s.fire_at or 0) for s in skips])
    assert covered == list(range(covered[0], covered[0] + len(covered))), "every second has one record"


@pytest.mark.parametrize(
    ("misfire", "runs", "skipped"),
    [
        ({"after": "60s", "policy": "fire_once"}, [4], 3),
        ({"after": "60s", "policy": "skip"}, [], 4),
        ({"after": "60s", "policy": "fire_all"}, [1, 2, 3, 4], 0),
        ({"after": "60s", "policy": "fire_all", "within": "200m"}, [2, 3, 4], 1),
        ({"after": "12h", "policy": "skip"}, [1, 2, 3, 4], 0),
    ],
)
def test_what_was_missed_follows_the_policy(
    place: Stage, misfire: dict[str, str], runs: list[int], skipped: int
) -> None:
    place.node("n1")
    at = [int(time.time()) - hours * 3600 for hours in (4, 3, 2, 1)]
    stamp = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(instant)) for instant in at]
    job = place.publish(schedule=[{"at": text} for text in stamp], misfire=misfire, overlap="allow", done=at[0] - 10)
    place.lead()
    until(lambda: place.done(job).upto_at >= at[-1], 10, "a decision")
    until(lambda: not place.requests(), 10, "the rest of a `fire_all` to follow")
    assert place.fires(job) == [at[index - 1] for index in runs]
    assert sum(skip.count for skip in place.skips(job)) == skipped
    if skipped:
        (skip,) = place.skips(job)
        assert skip.reason == "misfire" and skip.to_at is not None and skip.to_at >= (skip.fire_at or 0)


def test_a_long_outage_becomes_one_run_and_one_range(place: Stage) -> None:
    place.node("n1")
    now = int(time.time())
    minute = place.publish(schedule={"cron": "* * * * *"}, done=now - 86400)
    second = place.publish(schedule={"every": "1s"}, misfire={"after": "10s", "policy": "skip"}, done=now - 86400)
    place.lead()
    until(lambda: place.done(minute).upto_at > now - 60 and place.done(second).upto_at >= now, 10, "decisions")
    skip, (fire,) = place.skips(minute)[0], place.fires(minute)  # a minute may have ended meanwhile
    first = (now - 86400) // 60 * 60 + 60
    assert (skip.fire_at, skip.to_at) == (first, fire - 60) and skip.count == (fire - first) // 60
    assert skip.count in (1439, 1440)
    assert len(place.fires(second)) == 1, "one live run each (overlap: skip)"
    assert {skip.reason for skip in place.skips(second)} == {"misfire", "overlap"}
    assert sum(s.count for s in place.skips(second) if s.reason == "misfire") > 86000


def test_fire_all_goes_on_as_a_backfill(place: Stage) -> None:
    place.node("n1")
    now = int(time.time())
    job = place.publish(
        schedule={"every": "60s"}, overlap="allow", misfire={"after": "1s", "policy": "fire_all"}, done=now - 70 * 60
    )
    place.lead()
    due = until(lambda: len(found := place.fires(job)) >= 70 and found, 10, "the whole backfill")
    until(lambda: not place.client.count(place.keys.backfill("")), 10, "the backfill to go")
    assert len(due) == len(set(due)) and due[0] > now - 70 * 60 and all(instant % 60 == 0 for instant in due)
    assert place.skips(job) == []


def test_with_no_node_the_run_waits_visibly_and_goes_when_one_comes(place: Stage) -> None:
    place.lead()
    place.node("tame", kinds=["http"])
    job = place.publish(schedule={"every": "1s"}, routing={"labels": {"zone": "a"}})
    run, wait = until(lambda: list(place.waits().items()), 10, "a waiting run")[0]
    assert wait.reason == "no_node" and wait.finished == 0 and wait.detail == "does not run shell jobs: tame"
    place.node("other", labels={"zone": "b"})
    until(lambda: place.waits()[run].detail.endswith("zone is b, not a: other"), 15, "the record to name every node")
    assert place.waits()[run].since_at == wait.since_at, "it has waited all the time"
    node = place.node("wild", labels={"zone": "a"})
    message = until(node.messages, 10, "the run to be released")[0]
    assert message.run == run and message.envelope.attempt == 1 and run not in place.waits()
    assert place.fires(job)[0] == int(message.envelope.fire_at or 0)


def test_weights_labels_pins_and_cordons(place: Stage) -> None:
    big, small = place.node("big", weight=300), place.node("small", weight=100)
    cordoned = place.node("cordoned", weight=1000)
    place.control("cordoned", cordoned=True)
    place.lead()
    anyone = place.publish(overlap="allow")
    pinned = place.publish(overlap="allow", routing={"node": "small"})
    barred = place.publish(overlap="allow", routing={"exclude": ["big"]})
    for _ in range(8):
        place.ask(anyone)
    until(lambda: len(place.messages()) == 8, 10, "eight runs")
    assert (len(big.messages()), len(small.messages()), len(cordoned.messages())) == (6, 2, 0)
    place.ask(pinned)
    place.ask(barred)
    until(lambda: len(small.messages()) == 4, 10, "two more on the small one")
    place.control("cordoned", weight=5)
    place.ask(anyone, labels={})
    until(lambda: len(place.messages()) == 11, 10, "one more")
    tagged = place.publish(overlap="allow", routing={"labels": {"disk": "ssd"}})
    place.control("small", labels={"disk": "ssd"})
    before = len(small.messages())
    place.ask(tagged)
    until(lambda: len(small.messages()) == before + 1, 10, "a label that people set counts as one of the node's own")


def test_the_least_busy_node_and_the_node_of_a_key(place: Stage) -> None:
    one, two = place.node("one"), place.node("two")
    place.lead()
    pinned = place.publish(overlap="allow", routing={"node": "one"})
    idle = place.publish(overlap="allow", routing={"strategy": "least_busy"}, retry={"max": 1, "delay": "0s"})
    keyed = place.publish(overlap="allow", routing={"strategy": "hash", "key": "customer"})
    for _ in range(3):
        place.ask(pinned)
    until(lambda: len(one.messages()) == 3, 10, "three on the first")
    runs = {place.ask(idle).run for _ in range(3)}
    until(lambda: {message.run for message in two.messages()} == runs, 10, "three on the other")
    told = two.messages()[0].envelope
    assert told.why == "the least busy of 2 nodes, 0 of 4 places taken; strategy least_busy; busier: one"
    first = two.messages()[0]
    two.end(first, two.claim(first), Kind.FAILED)
    again = until(lambda: [m for m in one.messages() if m.run == first.run], 10, "the retry elsewhere")[0]
    assert again.envelope.strategy == "least_busy" and "failed this run before: two" in again.envelope.why
    homes = {str(n): rendezvous({"one": 100, "two": 100}, str(n)).node for n in range(6)}  # type: ignore[union-attr]
    assert set(homes.values()) == {"one", "two"}
    asked = {place.ask(keyed, params={"customer": key}).run: node for key, node in homes.items()}
    found = until(lambda: len(them := [m for m in place.messages() if m.run in asked]) == 6 and them, 10, "them")
    assert {m.run: m.queue.removeprefix("run.") for m in found} == asked


def test_a_large_job_catches_up_in_small_steps(place: Stage) -> None:
    place.node("n1")
    now = int(time.time())
    large = {"params": {"x": "y" * 30_000}, "misfire": {"after": "1h"}}
    job = place.publish(large, schedule={"every": "60s"}, overlap="allow", done=now - 1800)
    place.lead()
    due = until(lambda: len(found := place.fires(job)) >= 29 and found, 15, "all of them")
    assert len(due) == len(set(due)) and not place.skips(job)


def test_a_job_of_many_pools_catches_up_in_steps_that_fit_one_transaction(place: Stage) -> None:
    """Each run takes a slot of each pool: twenty at once would be more than etcd takes, and no reason to hold it."""
    place.node("n1")
    now = int(time.time())
    names = [f"p{number}" for number in range(8)]
    for name in names:
        place.pool(name, 50)
    job = place.publish(
        schedule={"every": "60s"}, overlap="allow", misfire={"after": "2h"}, limits=[f"pool:{name}" for name in names],
        done=now - 1800,
    )  # fmt: skip
    place.lead()
    due = until(lambda: place.done(job).held or (len(found := place.fires(job)) >= 29 and found), 15, "all of them")
    assert not place.done(job).held
    assert len(due) == len(set(due)) and not place.skips(job) and len(place.slots()) == 8 * len(due)


def test_a_script_of_quotes_catches_up_one_hour(place: Stage) -> None:
    """Escaped three times it is eight times as long: few go out at a time, and all of them do."""
    place.node("n1")
    now = int(time.time())
    action = {"kind": "shell", "script": '"\n' * 14_000}
    misfire = {"after": "1s", "policy": "fire_all"}
    job = place.publish(
        action=action, schedule={"every": "1m"}, overlap="allow", misfire=misfire, done=now - now % 60 - 1200
    )
    place.lead()
    due = until(lambda: len(found := place.fires(job)) >= 20 and found, 20, "all of them")
    until(lambda: not place.client.count(place.keys.backfill("")), 10, "the backfill to be through")
    assert due[:20] == list(range(now - now % 60 - 1140, now - now % 60 + 1, 60)) and not place.skips(job)


def test_a_job_whose_message_can_never_fit_is_held_and_says_so(place: Stage) -> None:
    place.node("n1")
    now = int(time.time())
    other = place.publish(schedule={"every": "1s"}, overlap="allow")
    big = {"action": {"kind": "shell", "script": '"' * 30_000}}
    job = place.publish(big, schedule={"every": "60s"}, overlap="allow", done=now - 90)
    narrow(place.centre(), 200 * 1024)
    until(lambda: place.done(job).held, 10, "the job to be held")
    (skip,) = place.skips(job)
    assert "too large" in place.done(job).held and skip.reason == "error" and "too large" in skip.detail
    assert place.done(job).upto_at == skip.fire_at and place.fires(job) == []
    until(lambda: place.fires(other), 10, "others to go on")


def test_a_document_signed_for_another_job_is_not_acted_on(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "EVERY", 0.2)
    node = place.node("n1")
    genuine, other = place.publish(), place.publish(schedule={"every": "1h"})
    stored = place.client.get(place.keys.job(genuine.id))
    assert stored is not None
    place.client.put(place.keys.job(other.id), stored.value)
    centre = place.lead()
    run = place.ask(other).run
    out = until(lambda: place.outs().get((run, "end")), 10, "the refusal")
    assert out.kind == "refused" and "of another job" in out.reason and not node.messages()
    until(lambda: "of another job" in centre.status()["problems"].get(other.id, ""), 5, "it to be said")

    def told() -> dict[str, str]:
        return {job: why for each in look(place.client, place.keys).running.values()
                for job, why in each.untrusted.items()}  # fmt: skip

    until(lambda: "of another job" in told().get(other.id, ""), 5, "it to be said to whoever asks why")
    assert list(told()) == [other.id]
    place.client.delete(place.keys.job(other.id))
    until(lambda: not told(), 5, "nothing to be said of it any more")
