"""From when a save counts: after its acknowledgement no fire of an older revision is dispatched, none is missed.

Judged by etcd's own order: a save is acknowledged with the revision of its transaction, a run's message is put at one.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator

import pytest

from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.run import Envelope
from crony.domain.signing import peek
from crony.etcd.client import Client
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.watch import Event, Watcher
from crony.lifecycle.publish import publish
from crony.lifecycle.taken import PATIENCE, taken_in
from crony.transport_etcd import message as wire
from tests.helpers.beat import ACTION, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.integration.test_beat_races import Behind

SEED = random.SystemRandom().randrange(10**9)


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


class Witness:
    """Sees every put of a job document and of a run's message, with etcd's revision."""

    def __init__(self, place: Stage) -> None:
        self.keys = place.keys
        self.saves: list[tuple[int, LiveJob]] = []
        self.messages: list[tuple[int, Envelope]] = []
        root = place.keys.root
        self.watcher = Watcher(
            place.client, f"{root}job/", prefix_end(f"{root}run/"), on_snapshot=lambda pairs, revision: None,
            on_events=self._see, from_revision=place.client.range(place.keys.control).revision + 1, name="witness",
        ).start()  # fmt: skip

    def _see(self, events: list[Event], revision: int) -> None:
        for event in events:
            if event.kind != "put":
                continue
            if event.key.startswith(self.keys.job("")):
                self.saves.append((event.mod, LiveJob.read(peek(event.value))))
            elif event.key.startswith(f"{self.keys.run}q/") and "/m/" in event.key:
                sealed = str(json.loads(wire.decode(event.value)["body"])[0][0])
                self.messages.append((event.mod, Envelope.read(peek(sealed))))

    def judge(self) -> int:
        """Each run is by the document that was live when its message was put; how many runs there were."""
        fires = [envelope.run for _, envelope in self.messages]
        assert len(fires) == len(set(fires)), "a fire twice"
        for at, envelope in self.messages:
            live = [each for mod, each in self.saves if mod < at and each.id == envelope.job]
            assert live and not live[-1].deleted, (SEED, envelope.run, "of a job that is not there")
            now = live[-1].generation, live[-1].revision, live[-1].name
            assert (envelope.generation, envelope.revision, envelope.name) == now, (SEED, envelope.run)
        return len(fires)


def test_a_storm_of_edits_while_leaders_change(place: Stage) -> None:
    """Edits at every moment of every second, fires in each second, leaders that come and go: every second is explained
    exactly once, and by nothing older than the last save before it was dispatched."""
    print(f"seed {SEED}")
    rng, witness = random.Random(SEED), Witness(place)
    place.node("n1")
    place.lead(leader_ttl=1.0)
    schedules = ({"every": "1s"}, {"cron": "* * * * * *", "dialect": "cron6"}, [{"every": "1s"}, {"every": "2s"}])
    job = place.publish(schedule=schedules[0], overlap="allow", misfire={"policy": "fire_all"})
    since, stop = place.done(job).upto_at, threading.Event()

    def edit() -> None:
        live = job
        while not stop.is_set():
            live = place.edit(live, schedule=rng.choice(schedules), params={"n": str(live.revision)})
            stop.wait(rng.uniform(0.0, 0.06))

    storm = threading.Thread(target=edit)
    storm.start()
    try:
        for name in ("two", "three"):
            until(lambda at=SYSTEM.wall(): SYSTEM.wall() > at + 1.5, 5)
            old = place.centres[-1]
            place.centre(centre=name, leader_ttl=1.0)
            old.stop()
            place.centres[-1].leads()
        until(lambda at=SYSTEM.wall(): SYSTEM.wall() > at + 1.5, 5)
    finally:
        stop.set()
        storm.join()
    end = int(SYSTEM.wall())
    until(lambda: place.done(job).upto_at >= end and not place.requests(), 15, "all to be decided")
    assert witness.judge() and len({live.revision for _, live in witness.saves}) > 20
    fires = place.fires(job)
    explained = [(skip.fire_at or 0, skip.to_at or skip.fire_at or 0) for skip in place.skips(job)]
    for second in range(since + 1, end + 1):
        ran = fires.count(second)
        assert ran == 1 or (ran == 0 and any(low <= second <= high for low, high in explained)), (SEED, second, ran)


def test_the_same_name_deleted_and_made_again_never_mixes(place: Stage) -> None:
    """Jobs of one name follow one another in fractions of a second; each run belongs to the one that was there."""
    witness = Witness(place)
    place.node("n1")
    place.lead()
    rng, made = random.Random(SEED), list[LiveJob]()
    for generation in range(1, 11):
        document = {"name": "night/load", "action": ACTION, "schedule": {"every": "1s"}, "overlap": "allow"}
        live = LiveJob.created(ids.job_id(), document, generation=generation, now=SYSTEM.wall())
        publish(place.client, place.keys, place.web, live)
        made.append(live)
        until(lambda at=SYSTEM.wall(), pause=rng.uniform(0.0, 0.6): SYSTEM.wall() > at + pause, 5)
        if generation < 10:
            place.delete(live)
    until(lambda: len(place.fires(made[-1])) > 1, 10, "the last one to fire")
    assert witness.judge() > 2
    begun = {live.id: live.since_at for _, live in reversed(witness.saves) if not live.deleted}
    for live in made:
        assert all(second > begun[live.id] for second in place.fires(live)), (SEED, "a fire from before it was made")


def test_a_save_knows_whether_a_leader_has_taken_it_in(place: Stage) -> None:
    def taken(live: LiveJob, patience: float = PATIENCE) -> bool | None:
        found = place.client.get(place.keys.job(live.id))
        assert found is not None
        return taken_in(place.client, place.keys, live.id, found.mod, patience)

    place.node("n1")
    job = place.publish(schedule={"every": "1h"})
    assert taken(job) is False, "nobody leads"
    running = place.lead()
    assert taken(job, 10.0), "what it found when it began"
    job = place.edit(job, schedule={"every": "2h"})
    assert taken(job, 10.0)
    behind = Behind(running, 1)
    job = place.edit(job, schedule={"every": "1s"})
    assert taken(job) is False and not place.fires(job), "the leader has not heard of it"
    behind.release()
    assert taken(job, 10.0)
    until(lambda: place.fires(job), 10, "its fires")
    running.stop()
    assert taken(job) is False, "what a leader before said counts no more"
    place.lead(centre="two")
    assert taken(job, 10.0)
    away = Client(["http://127.0.0.1:1"], timeout=0.2)
    assert taken_in(away, place.keys, job.id, 1) is None
    away.close()


def test_a_job_saved_just_before_its_fire_is_not_missed(place: Stage) -> None:
    place.node("n1")
    place.lead()
    for _ in range(4):
        until(lambda: 0.93 < SYSTEM.wall() % 1 < 0.99, 5, "the end of a second", every=0.002)
        job = place.publish(schedule={"every": "1s"}, overlap="allow")
        first = place.done(job).upto_at + 1
        until(lambda job=job: place.fires(job), 10, "its first fire")
        assert place.fires(job)[0] == first, "the second after the save"
        place.delete(job)
