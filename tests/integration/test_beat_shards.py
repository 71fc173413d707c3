"""Several shards: centres share them out, one takes over all, resharding loses and doubles nothing."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from crony.beat.book import Book
from crony.beat.feed import Feed
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.domain.run import Request, Wait
from crony.domain.shards import Part, shard_of
from crony.errors import Invalid
from crony.etcd.client import KV
from crony.etcd.keys import Keys
from crony.lifecycle import centres, shards
from crony.lifecycle.enqueue import cancel
from tests.helpers.beat import RunningCentre, ShiftedClock, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

EACH_SECOND = {"schedule": {"every": "1s"}, "overlap": "allow"}


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, shards=4) as made:
        yield made


def each_shard(place: Stage, count: int, **document: object) -> list[LiveJob]:
    """One job of each shard."""
    found: dict[int, LiveJob] = {}
    while len(found) < count:
        live = place.publish(**document)
        if shard_of(live.id, count) in found:
            place.delete(live)
        found.setdefault(shard_of(live.id, count), live)
    return [found[shard] for shard in range(count)]


def led(running: RunningCentre) -> list[int]:
    """The shards a centre leads and decides."""
    return sorted(shard for shard, leader in running.centre.leaders.items() if leader.ready)


def judge(place: Stage, job: LiveJob, first: int, last: int) -> None:
    """Every second in [first, last] has exactly one run or one record."""
    fires = Counter(place.fires(job))
    for out in place.skips(job):
        fires.update(range(int(out.fire_at or 0), int(out.to_at or out.fire_at or 0) + 1))
    assert [second for second in range(first, last + 1) if fires[second] != 1] == []


def test_two_centres_share_four_shards_and_one_takes_over_all(place: Stage) -> None:
    place.node("n1")
    jobs = each_shard(place, 4, **EACH_SECOND)
    one = place.centre(centre="one", leader_ttl=60.0)
    until(lambda: led(one) == [0, 1, 2, 3], 10, "one to lead all")
    first = until(lambda: all(place.fires(job) for job in jobs) and int(time.time()), 10, "all to fire")
    two = place.centre(centre="two", leader_ttl=60.0)
    until(lambda: len(led(one)) == len(led(two)) == 2, 15, "each to lead two")
    assert sorted(led(one) + led(two)) == [0, 1, 2, 3] and 0 in led(one), "the household stays where it is"
    known = centres.look(place.client, place.keys)
    assert {facts.name for facts in known.running.values()} == {"one", "two"} and known.vacant == []
    assert Counter(leading.name for leading in known.leaders.values()) == {"one": 2, "two": 2}
    one.stop()
    until(lambda: led(two) == [0, 1, 2, 3], 10, "two to lead all, long before a lease could end")
    last = int(time.time()) + 1
    until(lambda: all(place.done(job).upto_at > last for job in jobs), 10, "all to go on")
    for job in jobs:
        judge(place, job, first, last)
    assert place.client.count(place.keys.alert("leader_changed.3")) == 0, "handed over by agreement: no news"
    assert place.client.count(place.keys.alert("leader_changed.0")) == 1


def test_resharding_under_fire_loses_and_doubles_nothing(place: Stage) -> None:
    place.node("n1")
    jobs = [place.publish(**EACH_SECOND) for _ in range(12)]
    running = [place.centre(centre=name, shards=1) for name in ("one", "two")]
    first = until(lambda: all(place.fires(job) for job in jobs) and int(time.time()), 10, "all to fire")
    for count in (4, 2, 7, 1):
        assert shards.reshard(place.client, place.keys, count, by="me").count == count
        until(
            lambda count=count: sorted(shard for each in running for shard in led(each)) == [*range(count)],
            15,
            f"{count} shards led",
        )
    last = int(time.time()) + 1
    until(lambda: all(place.done(job).upto_at > last for job in jobs), 10, "all to go on")
    for job in jobs:
        judge(place, job, first, last)


def test_requests_cancels_tasks_and_lost_nodes_of_every_shard(place: Stage) -> None:
    node, other = place.node("n1"), place.node("n2", weight=0)
    jobs = each_shard(place, 4)
    running = place.lead(imports=("mod",))
    until(lambda: led(running) == [0, 1, 2, 3], 10, "all")
    asked = {place.ask(job).run for job in jobs}
    until(lambda: {message.run for message in node.messages()} == asked, 10, "their messages")
    for message in node.messages():
        cancel(place.client, place.keys, message.run, by="me")
    until(lambda: {run: out.kind for (run, _), out in place.outs().items()} == dict.fromkeys(asked, Kind.CANCELLED), 10)
    tasks = [f"mod.t{number}" for number in range(8)]
    assert {shard_of(ids.task_job_id(task), 4) for task in tasks} == {0, 1, 2, 3}
    for task in tasks:
        job = ids.task_job_id(task)
        place.request(Request("run", run=ids.fresh_run_id(job, 0), job=job, name=f"task:{task}"))
    until(lambda: len(node.messages()) == 8, 10, "the tasks")
    place.request(Request("dance"))
    place.client.put(place.keys.run_in("qodd"), b"odd")
    until(lambda: place.requests() == [], 10, "nonsense to be set aside")
    runs = {message.run for message in node.messages()}
    other.say(weight=100)
    node.vanish()
    until(lambda: {message.run for message in other.messages()} == runs, 15, "the work to go to the other node")
    until(lambda: place.client.count(place.keys.alert("node_lost")) == 1, 15, "told once")


def test_the_first_one_sets_the_number_and_a_differing_wish_is_said(
    place: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    one = place.centre(centre="one", shards=3)
    until(lambda: led(one) == [0, 1, 2], 10, "three")
    with caplog.at_level(logging.ERROR, "crony.beat"):
        two = place.centre(centre="two", shards=5)
        until(lambda: "CRONY_SHARDS of this centre says 5" in caplog.text, 10, "it to be said")
    until(lambda: led(two), 15, "it to lead nevertheless")
    assert shards.look(place.client, place.keys).count == 3
    with pytest.raises(Invalid, match="between 1 and 64"):
        shards.reshard(place.client, place.keys, 65, by="me")
    place.client.put(place.keys.shards, b'{"count": "many"}')
    until(lambda: led(one) == led(two) == [], 15, "nobody to lead by a number that is none")
    shards.reshard(place.client, place.keys, 2, by="me")
    until(lambda: sorted(led(one) + led(two)) == [0, 1], 15, "two")
    place.client.delete(place.keys.shards)  # whoever begins the next season sets it again
    until(lambda: shards.look(place.client, place.keys).seen and len(led(one) + led(two)) > 2, 15, "a wish")


def test_nothing_is_given_to_a_centre_with_the_wrong_time(place: Stage) -> None:
    one = place.centre(centre="one")
    until(lambda: led(one) == [0, 1, 2, 3], 10, "all")
    clock = ShiftedClock(30.0)
    wrong = place.centre(centre="wrong", clock=clock)

    def facts() -> object:
        running = centres.look(place.client, place.keys).running.values()
        return next((each for each in running if each.name == "wrong"), None)

    found = until(facts, 10, "it to say that it is there")
    assert not found.able and abs(found.skew - 30) < 1 and "off from etcd's" in found.why  # type: ignore[attr-defined]
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 2.0, 10, "longer than it takes to give")
    assert led(one) == [0, 1, 2, 3] and led(wrong) == []
    clock.shift = 0.0
    until(lambda: len(led(one)) == len(led(wrong)) == 2, 15, "it to get its share")


def test_a_shard_that_nobody_takes_comes_back(place: Stage) -> None:
    """A centre that looks well and takes nothing: it does not cost the others more than a moment, once."""
    one = place.centre(centre="one")
    until(lambda: led(one) == [0, 1, 2, 3], 10, "all")
    idle = place.centre(centre="idle")
    idle.centre._ready = lambda shard: False  # type: ignore[method-assign]
    until(lambda: one.centre._give_after, 15, "it to give one and take it back")
    until(lambda: led(one) == [0, 1, 2, 3], 10, "all again")


class Reader:
    """A listener that only keeps a book."""

    def __init__(self, keys: Keys, part: Part) -> None:
        self.part, self.book, self.base = part, Book(keys, part), 0
        self.later: list[tuple[str, int, list[object], int]] = []

    def begin(self, pairs: list[KV]) -> None:
        for kv in pairs:
            self.book.put(kv.key, kv.value, kv.mod, kv.create)

    def hear(self, what: str, stream: int, items: list[object], revision: int) -> None:
        self.later.append((what, stream, items, revision))

    def catch_up(self) -> None:
        for what, _, items, _ in self.later:
            assert what == "events"
            for event in items:
                if event.mod > self.base:  # type: ignore[attr-defined]
                    if event.kind == "put":  # type: ignore[attr-defined]
                        self.book.put(event.key, event.value, event.mod, event.create)  # type: ignore[attr-defined]
                    else:
                        self.book.drop(event.key, event.mod)  # type: ignore[attr-defined]


def test_who_joins_a_feed_at_any_moment_knows_everything_of_its_shard(place: Stage) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    feed, keys = Feed(place.client, place.keys, 3), place.keys
    readers: list[Reader] = []
    runs = [ids.fresh_run_id(ids.job_id(), 1) for _ in range(60)]
    try:
        for step in range(300):
            run = chance.choice(runs)
            if chance.random() < 0.4:
                place.client.delete(keys.run_wait(run))
            else:
                place.client.put(keys.run_wait(run), Wait(run, str(step), 0, "ended", 0.0).encode())
            if step % 60 == 30:
                together = [Reader(keys, Part(number, 3)) for number in range(3)]
                for reader in together:
                    reader.base = feed.join(reader)
                readers += together
            if step == 200:
                feed.leave(readers.pop(0))
        final = place.client.list(keys.run_wait(""))
        wanted = {kv.key.removeprefix(keys.run_wait("")): kv.mod for kv in final.kvs}

        def known(reader: Reader) -> bool:
            reader.catch_up()
            mine = {run: mod for run, mod in wanted.items() if reader.part.has(ids.parse_run_id(run).job)}
            return {run: waiting.seen for run, waiting in reader.book.waits.items()} == mine

        for reader in readers:
            until(lambda reader=reader: known(reader), 10, f"shard {reader.part.number} to be known")
    finally:
        for reader in readers:
            feed.leave(reader)
