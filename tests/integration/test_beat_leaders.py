"""Leaders that die, are paused, lose answers or have the wrong time: each fire is still decided exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crony.beat import policy
from crony.beat.duties.firing import Firing
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind
from crony.errors import Halted
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from tests.helpers.beat import CENTRE, WEB, ShiftedClock, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy
from tests.helpers.server import die_with_parent
from tests.helpers.wait import until

PROCESS = """
import sys, threading
from crony.beat.centre import main
from crony.settings import load
main(load(), threading.Event())
"""


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


def launch(etcd: EtcdServer, keys: Keys, name: str, folder: Path) -> subprocess.Popen[bytes]:
    """A centre as a process of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CRONY_")}
    environ |= {
        "CRONY_NAMESPACE": keys.namespace,
        "CRONY_ETCD_ENDPOINTS": etcd.endpoint,
        "CRONY_SIGNING_KEY": CENTRE[0],
        "CRONY_WEB_KEYS": WEB[1],
        "CRONY_CENTRE_KEYS": CENTRE[1],
        "CRONY_LEADER_TTL": "1",
        "CRONY_GRACE": "0.3",
        "CRONY_CENTRE": name,
        "CRONY_STATE_DIR": str(folder),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS], env=environ, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
    )


def leader(place: Stage) -> str:
    """Name of the leader."""
    found = place.client.get(place.keys.leader(0))
    return str(json.loads(found.value)["name"]) if found else ""


def judge(place: Stage, job, first: int, last: int) -> None:  # type: ignore[no-untyped-def]
    """Every second in [first, last] has exactly one run or one record."""
    fires = Counter(place.fires(job))
    for out in place.skips(job):
        fires.update(range(int(out.fire_at or 0), int(out.to_at or out.fire_at or 0) + 1))
    assert [second for second in range(first, last + 1) if fires[second] != 1] == []


@pytest.mark.slow
def test_leaders_killed_around_fires(etcd: EtcdServer, place: Stage, tmp_path: Path) -> None:
    place.node("n1")
    jobs = [place.publish(schedule={"every": "1s"}, overlap="allow") for _ in range(3)]
    first = int(time.time()) + 1
    centres = {name: launch(etcd, place.keys, name, tmp_path / name) for name in ("a", "b", "c")}
    try:
        for offset in (0.98, 0.01, 0.05):
            name = until(lambda: leader(place), 10, "a leader")
            until(lambda: place.fires(jobs[0]) and place.fires(jobs[0])[-1] >= time.time() - 1.2, 10, "it to fire")
            until(lambda offset=offset: abs(time.time() % 1 - offset) < 0.01, 10, "the moment", every=0.001)
            centres[name].send_signal(signal.SIGKILL)
            centres[name].wait()
            until(lambda name=name: leader(place) != name, 10, "its lease to end")
            if offset != 0.05:
                centres[name] = launch(etcd, place.keys, name, tmp_path / name)
        last = int(time.time()) + 1
        until(lambda: all(place.done(job).upto_at > last for job in jobs), 10, "the new leader to go on")
    finally:
        for process in centres.values():
            process.kill()
            process.wait()
    for job in jobs:
        judge(place, job, first + 1, last)


def test_a_clean_stop_hands_over_at_once(place: Stage) -> None:
    place.node("n1")
    one = place.lead(leader_ttl=60.0)
    two = place.centre(centre="two", leader_ttl=60.0)
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    until(lambda: place.fires(job), 10, "a fire")
    one.stop()
    two.leads(1.0)  # not after the lease
    first = place.fires(job)[0]
    until(lambda: place.done(job).upto_at >= first + 2, 10, "it to go on")
    judge(place, job, first, first + 2)


def test_a_deleted_leader_key_ends_the_term(place: Stage) -> None:
    one = place.lead()
    term = one.status()["term"]
    place.client.delete(place.keys.leader(0))
    until(lambda: one.status().get("term", term) != term, 10, "a new term")
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    until(lambda: len(place.fires(job)) >= 2, 10, "fires under the new term")


def test_edits_next_to_fires(place: Stage) -> None:
    place.node("n1")
    place.lead()
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    first = until(lambda: place.fires(job), 10, "a fire")[0]
    live = job
    for step in range(8):
        until(lambda step=step: time.time() % 0.5 > 0.45, 2, "a moment before", every=0.001)
        live = place.edit(live, params={"step": step})
    last = int(time.time())
    until(lambda: place.done(job).upto_at >= last, 10, "the last")
    judge(place, job, first, last)
    place.edit(live, enabled=False)
    paused = time.time()
    until(lambda: time.time() > paused + 2.2, 10, "time to pass")
    assert not [fire for fire in place.fires(job) if fire > paused]


def test_answers_lost_while_firing(etcd: EtcdServer, place: Stage) -> None:
    place.node("n1")
    with Proxy(etcd.endpoint) as proxy:
        one = place.lead(etcd_endpoints=(proxy.endpoint,), etcd_timeout=1.0, leader_ttl=4.0)
        job = place.publish(schedule={"every": "1s"}, overlap="allow")
        first = until(lambda: place.fires(job), 10, "a fire")[0]
        for _ in range(3):
            lost = proxy.lost
            proxy.lose_answer(b"/v3/kv/txn")
            until(lambda lost=lost: proxy.lost > lost, 10, "an answer to be lost")
        last = int(time.time())
        until(lambda: place.done(job).upto_at > last, 10, "it to go on")
        judge(place, job, first, last)
        until(lambda: one.status()["leads"], 10, "it to lead on")


def test_a_fire_that_arrives_late_is_not_doubled(etcd: EtcdServer, place: Stage) -> None:
    """The transaction is held on its way while the leader decides anew."""
    place.node("n1")
    with Proxy(etcd.endpoint) as proxy:
        place.lead(etcd_endpoints=(proxy.endpoint,), etcd_timeout=0.7, leader_ttl=6.0)
        job = place.publish(schedule={"every": "1s"}, overlap="allow")
        first = until(lambda: place.fires(job), 10, "a fire")[0]
        until(lambda: time.time() % 1 > 0.9, 2, "just before a fire", every=0.001)
        proxy.hold("up")
        held = time.monotonic()
        until(lambda: time.monotonic() - held > 1.5, 10, "the answer to be given up")
        proxy.heal()
        last = int(time.time())
        until(lambda: place.done(job).upto_at > last, 12, "it to go on")
        judge(place, job, first, last)


@pytest.mark.slow
def test_a_zombie_leader_writes_nothing(etcd: EtcdServer, place: Stage, tmp_path: Path) -> None:
    place.node("n1")
    zombie = launch(etcd, place.keys, "zombie", tmp_path)
    try:
        until(lambda: leader(place) == "zombie", 10, "it to lead")
        job = place.publish(schedule={"every": "1s"}, overlap="allow")
        first = until(lambda: place.fires(job), 10, "a fire")[0]
        os.kill(zombie.pid, signal.SIGSTOP)
        heir = place.centre(centre="heir")
        heir.leads()
        until(lambda: len(place.fires(job)) >= 3, 10, "the heir to go on")
        os.kill(zombie.pid, signal.SIGCONT)
        last = int(time.time()) + 1
        until(lambda: place.done(job).upto_at > last, 10, "more fires")
        assert leader(place) == "heir" and zombie.poll() is None
        judge(place, job, first, last)
    finally:
        zombie.kill()
        zombie.wait()


def test_who_has_the_wrong_time_does_not_lead(place: Stage) -> None:
    place.node("n1")
    clock = ShiftedClock(3600.0)
    job = place.publish(schedule={"cron": "* * * * *"}, overlap="allow")
    wrong = place.centre(clock=clock)
    right = place.lead(centre="right")
    assert not wrong.status()["leads"] and right.status()["leads"]
    right.stop()
    clock.shift = 0.0
    wrong.leads()
    clock.shift = 90.0
    until(lambda: "clock" in wrong.status().get("held", {}), 10, "the step to be noticed")
    upto = place.done(job).upto_at  # a minute that really began may have been dispatched; the next one not
    assert upto <= time.time() and all(fire <= time.time() for fire in place.fires(job))
    clock.shift = 0.0
    until(lambda: wrong.status().get("held") == {}, 10, "it to go on")


def test_nothing_is_decided_by_a_clock_that_has_just_stepped(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step comes between the leader's look at its clock and its decision, in the same round."""
    place.node("n1")
    clock, real = ShiftedClock(), Firing.work
    at = datetime.fromtimestamp(int(time.time()) + 1800, UTC).isoformat()
    job = place.publish(schedule={"at": at})
    centre = place.centre(clock=clock).leads()
    stepped: list[float] = []

    def work(self: Firing) -> float | None:
        entry = self._office.book.jobs.get(job.id)
        if entry is not None and entry.due and not stepped:
            clock.shift = 3600.0
            stepped.append(self._office.wall())
        return real(self)

    monkeypatch.setattr(Firing, "work", work)
    until(lambda: "clock" in centre.status().get("held", {}), 10, "the step to be noticed")
    assert abs(stepped[0] - time.time()) < 60 and not place.fires(job)
    clock.shift = 0.0
    until(lambda: centre.status().get("held") == {}, 10, "it to go on")
    assert not place.fires(job) and place.done(job).upto_at < time.time() + 1


def test_a_restored_etcd_halts_the_centre(place: Stage, tmp_path: Path) -> None:
    (tmp_path / f"revision-{place.keys.namespace}.json").write_text('{"revision": 999999999}')
    centre = place.centre(state_dir=str(tmp_path))
    halted = until(lambda: centre.centre.halted, 10, "it to halt")
    assert isinstance(halted, Halted) and "crony recover" in str(halted) and not centre.status()["leads"]
    assert leader(place) == ""


def test_the_highest_revision_is_kept_on_disk(place: Stage, tmp_path: Path) -> None:
    centre = place.lead(state_dir=str(tmp_path))
    centre.stop()
    kept = json.loads((tmp_path / f"revision-{place.keys.namespace}.json").read_text())["revision"]
    assert 0 < kept <= place.client.range(place.keys.root).revision


@pytest.mark.slow
def test_etcd_away_and_back(own_etcd: EtcdServer, keys: Keys) -> None:
    with stage(own_etcd.endpoint, keys, leader_ttl=2.0) as place:
        place.node("n1")
        place.lead()
        job = place.publish(schedule={"every": "1s"}, overlap="allow")
        first = until(lambda: place.fires(job), 10, "a fire")[0]
        own_etcd.kill()
        away = time.monotonic()
        until(lambda: time.monotonic() - away > 3.5, 10, "longer than the leader's lease")
        own_etcd.start()
        last = int(time.time()) + 1
        until(lambda: place.done(job).upto_at > last, 15, "it to go on")
        judge(place, job, first, last)


def test_a_job_whose_schedule_fails_is_held_and_the_others_go_on(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    place.node("n1")
    place.lead()
    bad = place.publish(schedule={"every": "1s"}, overlap="allow", params={"bad": True})
    good = place.publish(schedule={"every": "1s"}, overlap="allow")
    until(lambda: place.fires(bad) and place.fires(good), 10, "both to fire")
    real = policy.decide

    def broken(live: LiveJob, done: int, now: float, **facts: Any) -> policy.Plan | None:
        if live.job.params.get("bad") is True:
            raise KeyError("No such time zone")
        return real(live, done, now, **facts)

    monkeypatch.setattr(policy, "decide", broken)
    until(lambda: place.done(bad).held, 10, "it to be held")
    skip = place.skips(bad)[0]
    assert skip.reason == "error" and "time zone" in skip.detail and place.done(bad).upto_at == skip.fire_at
    count = len(place.fires(good))
    until(lambda: len(place.fires(good)) >= count + 2, 10, "the good one to go on")
    monkeypatch.undo()
    assert place.done(bad).held
    place.edit(bad, params={"bad": False})
    until(lambda: not place.done(bad).held and place.fires(bad)[-1] > (skip.fire_at or 0), 10, "it to fire again")


def test_a_job_nobody_signed_never_fires(place: Stage) -> None:
    from crony.domain.signing import Sealer, new_key

    place.node("n1")
    centre = place.lead()
    place.web = Sealer(new_key()[0])
    forged = place.publish(schedule={"every": "1s"})
    until(lambda: centre.status()["problems"].get(forged.id), 10, "it to be seen")
    run = place.ask(forged).run
    out = until(lambda: place.outs().get((run, "end")), 10, "the manual run to be refused")
    assert out.kind == Kind.REFUSED and "not signed" in out.reason and place.fires(forged) == []


def test_a_client_of_the_leaders_own(place: Stage) -> None:
    """Nothing is left behind in etcd by an idle centre but the note of who led last, the mark, how far it had taken
    in what was saved, and the keys by which it knew that it had been told everything."""
    place.lead().stop()
    with Client(place.settings.etcd_endpoints) as client:
        kept = {place.keys.last_leader(0), place.keys.mark, place.keys.taken(0), *place.keys.told(0)}
        assert {kv.key for kv in client.list(place.keys.root).kvs} <= kept
