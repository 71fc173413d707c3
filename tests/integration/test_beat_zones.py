"""Time zone data change under a leader: due instants follow, a zone that is gone holds its job, nothing is silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crony.beat.duties import zonewatch
from crony.clock import SYSTEM
from crony.domain import tzdata, zones
from crony.domain.alert import Alert, AlertKind
from crony.domain.livejob import LiveJob
from crony.domain.outcome import SkipReason
from crony.domain.run import Done
from crony.domain.shards import CentreFacts
from crony.etcd.keys import Keys
from crony.lifecycle import centres
from tests.helpers.beat import Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until
from tests.helpers.zone_files import TOWN, ZoneFiles, zone_files

SECONDS = {"cron": "*/2 * * * * *", "dialect": "cron6", "timezone": TOWN}
OFTEN = {"schedule": SECONDS, "overlap": "allow"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneFiles]:
    monkeypatch.setattr(zonewatch, "EVERY", 0.1)
    monkeypatch.setattr(zonewatch, "COMPARE_EVERY", 0.1)
    with zone_files(tmp_path / "zoneinfo") as made:
        made.install("2001a", Town="Asia/Tokyo")
        zones.refresh()
        yield made


@pytest.fixture
def place(files: ZoneFiles, etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


def alerts(place: Stage, kind: AlertKind) -> list[Alert]:
    found = [Alert.read(kv.value) for kv in place.client.list(place.keys.alert("")).kvs]
    return [alert for alert in found if alert.kind == kind]


def explained(place: Stage, job: LiveJob, since: int, until_at: int) -> None:
    """Each even second of the job has its run, or lies in a record of fires that became none."""
    fires = place.fires(job)
    assert len(fires) == len(set(fires))
    ranges = [(skip.fire_at or 0, skip.to_at or skip.fire_at or 0) for skip in place.skips(job)]
    for second in range(since + 1, until_at + 1):
        if second % 2 == 0:
            assert second in fires or any(first <= second <= last for first, last in ranges), second


def test_what_is_due_is_worked_out_anew(place: Stage, files: ZoneFiles) -> None:
    place.lead()
    place.node("n1")
    daily, utc = ({"cron": "0 9 * * *", "timezone": name} for name in (TOWN, "UTC"))
    town, other = place.publish(schedule=daily), place.publish(schedule=utc)

    def hour(job: LiveJob, release: str) -> int | None:
        done = place.done(job)
        return datetime.fromtimestamp(done.due_at, UTC).hour if done.due_at and done.due_tz == release else None

    before = tzdata.version()
    until(lambda: hour(town, before) == 0 and hour(other, "-") == 9, 10, "the hints of jobs that are due far ahead")
    files.install("2002b", Town="Asia/Kolkata")
    until(lambda: hour(town, tzdata.version()) == 3, 10, "the new rules to count")
    assert tzdata.version() != before and hour(other, "-") == 9


def test_a_hint_from_other_data_is_not_believed(place: Stage) -> None:
    """Another centre led before, with other data: by them the job was due in a year."""
    place.node("n1")
    now = int(SYSTEM.wall())
    job = place.publish(OFTEN, done=now)
    seen = place.client.get(place.keys.job(job.id))
    assert seen is not None
    told = Done(now, due_at=now + 366 * 86400, due_seen=seen.mod, due_tz="1999a")
    place.client.put(place.keys.done(job.id), told.encode())
    place.lead()
    until(lambda: len(place.fires(job)) > 1, 10, "its fires")
    assert place.done(job).due_tz == tzdata.version()


def test_a_zone_that_goes_holds_its_job_until_it_is_back(place: Stage, files: ZoneFiles) -> None:
    place.lead()
    place.node("n1")
    job, other = place.publish(OFTEN), place.publish(schedule={"every": "1s"}, overlap="allow")
    since = place.done(job).upto_at
    until(lambda: place.fires(job), 10, "a fire")
    files.install("2002b", Tower="Asia/Tokyo")
    done = until(lambda: (done := place.done(job)).held and done, 10, "the job to be held")
    assert f"no time zone is called {TOWN}" in done.held and "did you mean Crony/Tower?" in done.held
    assert (done.held_tz, done.held_revision) == (tzdata.version(), 1)
    (alert,) = alerts(place, AlertKind.JOB_HELD)
    assert (alert.job, alert.name, alert.reason) == (job.id, job.name, done.held)
    reached = len(place.fires(other))
    until(lambda: len(place.fires(other)) > reached, 10, "the other job to go on")

    for running in place.centres:
        running.stop()
    place.lead(centre="two")
    until(lambda: job.id in place.centres[-1].status()["problems"], 10, "the next leader to know")
    assert place.done(job) == done and len(alerts(place, AlertKind.JOB_HELD)) == 1, "told once"

    files.install("2003c", Town="Asia/Tokyo")
    until(lambda: place.fires(job)[-1] > done.upto_at, 15, "it to fire again")
    now = place.done(job)
    assert (now.held, now.held_tz, now.held_at) == ("", "", 0.0)
    explained(place, job, since, now.upto_at)


def test_an_edit_gives_it_another_zone_and_what_nobody_can_tell_is_recorded(place: Stage, files: ZoneFiles) -> None:
    place.lead()
    place.node("n1")
    job = place.publish(OFTEN)
    since = place.done(job).upto_at
    until(lambda: place.fires(job), 10, "a fire")
    files.install("2002b", Tower="Asia/Tokyo")
    held = until(lambda: (done := place.done(job)).held and done, 10, "the job to be held")
    until(lambda: SYSTEM.wall() > held.upto_at + 3, 10, "something to be due by the zone that is gone")
    place.edit(job, schedule={**SECONDS, "timezone": "UTC"})
    until(lambda: place.fires(job)[-1] > held.upto_at, 15, "it to fire again")
    untold = [skip for skip in place.skips(job) if "cannot be told" in (skip.detail or "")]
    assert len(untold) == 1 and untold[0].reason == SkipReason.ERROR.value
    explained(place, job, since, place.done(job).upto_at)
    assert not place.done(job).held


def test_centres_say_their_release_and_a_difference_is_told_once(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zonewatch, "PATIENCE", 0.0)
    place.lead()
    until(lambda: centres.look(place.client, place.keys).tzdata == {"one": tzdata.version()}, 10, "its release")
    facts = next(iter(centres.look(place.client, place.keys).running.values()))
    place.client.put(place.keys.centre("other"), replace(facts, name="two", tzdata="1999a").encode())
    (alert,) = until(lambda: alerts(place, AlertKind.TZDATA), 10, "an alert")
    assert alert.reason == f"one: {tzdata.version()}; two: 1999a"
    place.client.put(place.keys.centre("third"), CentreFacts("three", tzdata="1999a").encode())
    until(lambda: len(centres.look(place.client, place.keys).tzdata) == 3, 5, "the third")
    place.client.delete(place.keys.centre("other"))
    until(lambda: len(centres.look(place.client, place.keys).tzdata) == 2, 5, "it to go")
    assert len(alerts(place, AlertKind.TZDATA)) == 1, "the same two releases"
