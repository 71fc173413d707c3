"""An etcd restored from a backup is recovered: every fire is accounted for, and no work repeated that must not be."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crony.beat.duties import marking, splitting
from crony.catalog.jobs import Catalog
from crony.domain import ids
from crony.domain.backfill import planned
from crony.domain.join import Join
from crony.domain.livejob import LiveJob
from crony.domain.mark import Seen
from crony.domain.outcome import Kind, Outcome
from crony.domain.replaced import parsed_schedules
from crony.domain.run import Request, WaitReason
from crony.domain.schedule import resolved
from crony.domain.signing import peek
from crony.errors import Conflict
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle import backfill as backfills
from crony.lifecycle.end import Ended
from crony.lifecycle.mark import look
from crony.recovery import chains
from crony.recovery.recover import Recovery, Report
from crony.recovery.survey import survey
from crony.store import archive, marks, recovery, runs
from crony.store.db import Database
from tests.helpers.beat import ACTION, Dying, Message, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until

T0 = 1_700_000_000 // 3600 * 3600
EACH_SECOND = {"schedule": {"every": "1s"}, "overlap": "allow"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/crony.db", timeout=1)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def place(own_etcd: EtcdServer, keys: Keys, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(marking, "EVERY", 0.1)
    monkeypatch.setattr(marking, "KEEP_EVERY", 0.1)
    url = database.url.render_as_string(hide_password=False)
    with stage(own_etcd.endpoint, keys, database_url=url, leader_ttl=1.0) as made:
        yield made


class Backup:
    """etcd's data as it was."""

    def __init__(self, etcd: EtcdServer, place: Stage, folder: Path) -> None:
        self._etcd, self._place, self._folder = etcd, place, folder
        etcd.stop()
        shutil.copytree(etcd.data_dir / "data", folder)
        etcd.start()

    def restore(self) -> None:
        """Put it back; whoever asks from now on is a process that begins anew."""
        self._etcd.kill()
        self._etcd.wipe()
        shutil.copytree(self._folder, self._etcd.data_dir / "data")
        self._etcd.start()
        self._place.client.close()
        self._place.client = Client([self._etcd.endpoint])


def recover(place: Stage, database: Database | None, *seen: Seen) -> Report:
    """Recover as `crony recover` does."""
    with Client(place.settings.etcd_endpoints) as client:
        return Recovery(place.settings, client, place.keys, database, seen, print).perform()


def archived(database: Database, run: str) -> Any:
    """A run as the archive knows it."""
    return recovery.runs(database, [run]).get(run)


def catalog(place: Stage, database: Database) -> Catalog:
    """What the web has."""
    return Catalog(database, place.client, place.keys, place.web)


def work_off(place: Stage, node: Any) -> None:
    """Run what lies in the queue and is not of the runs under test."""
    for message in node.messages():
        if message.envelope.name.startswith("tick"):
            node.end(message, node.claim(message))


def judge(place: Stage, database: Database, job: str, first: int, last: int) -> None:
    """Every second in [first, last] is exactly one run or within one record, in etcd or archived."""
    known = recovery.fires(database, job, first - 1)
    there = {message.run for message in place.messages()} | set(place.waits()) | {run for run, _ in place.outs()}
    live = {
        int(ids.parse_run_id(run).suffix) for run in there if ids.parse_run_id(run).job == job
        and ids.parse_run_id(run).fire is not None and (run, "0") not in place.outs()
    }  # fmt: skip
    fires = Counter(known.runs | live)
    ranges = set(known.skips)
    ranges |= {
        (int(out.fire_at or 0), int(out.to_at or out.fire_at or 0))
        for (_, n), out in place.outs().items() if n == "0" and out.job == job
    }  # fmt: skip
    for begin, end in ranges:
        fires.update(range(begin, end + 1))
    wrong = {second: fires[second] for second in range(first, last + 1) if fires[second] != 1}
    assert wrong == {}, (wrong, sorted(ranges))


def test_every_fire_is_accounted_for_and_nothing_runs_twice_that_must_not(
    own_etcd: EtcdServer, place: Stage, database: Database, tmp_path: Path
) -> None:
    node = place.node("n1")
    jobs = catalog(place, database)
    tick = jobs.create({"name": "tick/a", "action": ACTION, **EACH_SECOND}, "me")
    once = jobs.create({"name": "once", "action": ACTION, "delivery": "at_most_once", "overlap": "allow"}, "me")
    again = jobs.create({"name": "again", "action": ACTION, "overlap": "allow"}, "me")
    fail = jobs.create({"name": "fail", "action": ACTION, "on_node_loss": "fail", "overlap": "allow"}, "me")
    centre = place.lead()

    def ask(view: Any, **options: Any) -> str:
        live = LiveJob.created(view.id, {"name": view.name, "action": ACTION}, now=0)
        return place.ask(live, **options).run

    asked = {name: ask(view) for name, view in (("ended", once), ("held", once), ("again", again), ("lost", fail))}
    waiting = ask(once, not_before_at=time.time() + 3600)
    until(lambda: {m.run for m in node.messages()} >= set(asked.values()), 10, "their messages")
    until(lambda: waiting in place.waits(), 10, "the delayed one")
    until(lambda: work_off(place, node) or len(recovery.fires(database, tick.id, 0).runs) > 1, 10, "ticks archived")
    first = min(recovery.fires(database, tick.id, 0).runs)

    def message(name: str) -> Message:
        return next(m for m in node.messages() if m.run == asked[name])

    fences = {name: node.claim(message(name)) for name in ("ended", "again")}
    backup = Backup(own_etcd, place, tmp_path / "backup")

    later = jobs.create({"name": "tick/later", "action": ACTION, **EACH_SECOND}, "me")
    jobs.update(again.id, {"name": "again", "action": ACTION, "overlap": "allow", "description": "new"}, None, "me")
    node.end(message("ended"), fences["ended"])
    new = ask(again, retries=3)
    until(lambda: any(m.run == new for m in node.messages()), 10, "a run the backup does not have")
    attempt = next(m for m in node.messages() if m.run == new)
    node.end(attempt, node.claim(attempt), Kind.FAILED)
    until(lambda: archived(database, new) and archived(database, asked["ended"]), 10, "both to be archived")
    until(lambda: work_off(place, node) or recovery.fires(database, later.id, 0).runs, 10, "a tick of the later job")
    seen = marks.load(database, place.keys.namespace)
    assert seen is not None

    backup.restore()
    until(lambda: centre.centre.halted, 15, "the centre to halt")
    assert look(place.client, place.keys).mod < seen.mod
    assert {m.run for m in place.messages()} >= set(asked.values()), "the past is back"
    report = recover(place, database, seen)
    assert report.epoch == 1 and report.bumped > 0 and look(place.client, place.keys).revision > seen.revision
    waits = place.waits()
    assert asked["ended"] not in waits and archived(database, asked["ended"]).ended
    assert waits[asked["held"]].reason == WaitReason.HOLD and asked["held"] in report.held
    assert waits[asked["again"]].reason == WaitReason.REROUTE and waits[asked["again"]].finished == 1
    assert waits[waiting].reason == WaitReason.DELAY, "its time has not come, it cannot have run"
    assert place.outs()[asked["lost"], "end"].kind == Kind.LOST
    assert place.outs()[new, "end"].kind == Kind.LOST, "its end is nowhere"
    assert not place.messages()

    node.vanish()
    node = place.node("n2")
    centre.leads(20)  # by itself
    until(lambda: any(m.run == asked["again"] and m.envelope.attempt == 2 for m in node.messages()), 10, "attempt 2")
    upto = int(time.time()) + 1
    until(lambda: all(place.done(view).upto_at > upto for view in (tick, later)), 15, "fires to go on")
    judge(place, database, tick.id, first, upto)
    judge(place, database, later.id, int(later.created_at) + 1, upto)
    document = place.client.get(place.keys.job(again.id))
    assert document is not None
    live = LiveJob.read(peek(document.value))
    assert live.revision == 2, "what was saved since is published again"
    until(lambda: runs.get(database, new).outcome == Kind.LOST, 10, "it to be archived as lost")


@pytest.mark.parametrize("again", [True, False])
def test_backfills_and_runs_in_parts_go_on_where_they_were(
    own_etcd: EtcdServer, place: Stage, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setattr(splitting, "AT_ONCE", 1)
    node, jobs = place.node("n1"), catalog(place, database)
    job = {"action": ACTION, "overlap": "allow", "delivery": "at_least_once" if again else "at_most_once"}
    filled = jobs.create({"name": "filled", "schedule": {"every": "1h"}, **job}, "me")
    split = jobs.create({"name": "split", "routing": {"parts": 4}, **job}, "me")
    schedule, runs_of = '{"every": "1h"}', place.keys.run_join
    wanted = planned(
        ident=ids.backfill_id(), job=filled.id, name="filled", generation=1, start=T0, end=T0 + 8 * 3600,
        schedule=schedule, schedules=resolved(parsed_schedules(schedule), filled.id), now=time.time(), parallel=3,
    )  # fmt: skip
    hour = [wanted.run_of(T0 + n * 3600) for n in range(8)]

    def ask() -> str:
        return place.ask(LiveJob.created(split.id, {"name": "split", "action": ACTION}, now=0)).run

    def lie(*runs: str) -> None:
        until(lambda: {m.run for m in place.messages()} >= set(runs), 10, "messages")

    def end(*runs: str) -> None:
        lie(*runs)
        for message in node.messages():
            if message.run in runs:
                assert isinstance(node.end(message, node.claim(message)), Ended)
        until(lambda: all(archived(database, run) for run in runs), 10, "ends to be archived")

    first = place.lead()
    backfills.ask(place.client, place.keys, wanted)
    lie(*hour[:3])
    dying = Dying(first, lambda txn: any(key.endswith(".2") for key in txn._puts))
    whole = ask()
    until(lambda: dying.dead, 10, "the leader to die before it makes the third part")
    first.stop()
    backup = Backup(own_etcd, place, tmp_path / "backup")

    place.lead(centre="two")
    end(hour[0], hour[1], f"{whole}.0", f"{whole}.2")
    end(hour[4])  # hour 3 may have run; part 3, too
    later = ask()
    end(f"{later}.1")
    seen = marks.load(database, place.keys.namespace)
    assert seen is not None
    for centre in place.centres:
        centre.stop()

    backup.restore()
    node.vanish()
    told = survey(place.client, place.keys, look(place.client, place.keys), {}, (), database)
    assert f"{wanted.id} of filled (3 of 8 runs made)" in str(dict(told)["backfills under way"])
    assert dict(told)["of them in parts"] == 1
    report = recover(place, database, seen)
    assert report.backfills == 1 and report.runs["parts"] == 1
    recover(place, database, seen)
    join = place.client.get(runs_of(whole))
    assert join is not None and Join.read(join.value).ends == "s."

    node = place.node("n2")
    place.lead(centre="three")
    if not again:
        held = {run for run, wait in place.waits().items() if wait.reason == WaitReason.HOLD}
        assert held == {hour[2], f"{whole}.1"}
        for run in held:
            place.request(Request("unhold", run=run, job=run.split(".")[0], generation=1))
    ran: list[str] = []

    def over() -> bool:
        ran.extend(message.run for message in node.run_all())
        return backfills.find(place.client, place.keys, wanted.id).ended and place.client.get(runs_of(whole)) is None

    until(over, 20, "the backfill and the run in parts to end")
    left = [hour[2], f"{whole}.1"]
    left += [hour[3], *hour[5:], f"{whole}.3"] if again else []
    assert sorted(ran) == sorted(left), "each once, and nothing that ran since the backup"
    found = backfills.find(place.client, place.keys, wanted.id)
    if again:
        assert (found.state, found.made, found.succeeded) == ("done", 8, 8)
    else:
        assert (found.state, found.made, found.succeeded, found.stopped_by) == ("cancelled", 4, 4, "crony recover")
        assert found.next(9)[0] == T0 + 3 * 3600, "what may have run and is not known to have"
    until(lambda: all(archived(database, run).ended for run in (whole, later)), 10, "both whole runs to be archived")
    assert archived(database, later).outcome == Kind.LOST
    assert runs.get(database, whole).reason == ("" if again else "1 of 4 parts did not succeed; lost: 3")


def test_chains_go_on_where_something_ended_since_and_nothing_follows_twice(
    own_etcd: EtcdServer, place: Stage, database: Database, tmp_path: Path
) -> None:
    node, jobs = place.node("n1"), catalog(place, database)

    def made(name: str, **fields: Any) -> LiveJob:
        view = jobs.create({"name": name, "action": ACTION, "overlap": "allow", **fields}, "me")
        return LiveJob.created(view.id, {"name": name, "action": ACTION}, now=0)

    top = made("top")
    left, right = (made(name, after={"jobs": ["top"]}) for name in ("left", "right"))
    both = made("both", after={"jobs": ["left", "right"]})
    once = made("once", after={"jobs": ["top"], "on": "failure"}, delivery="at_most_once")
    made("last", after={"jobs": ["both"], "on": "success"})
    place.lead()

    def message(run: str) -> Message:
        return until(lambda: next((m for m in node.messages() if m.run == run), None), 10, run)

    def end(run: str, kind: str = Kind.SUCCEEDED) -> str:
        node.end(found := message(run), node.claim(found), kind)
        return run

    def followers(run: str) -> dict[str, str]:
        return {job.id: ids.chained_run_id(job.id, 1, run) for job in (left, right)}

    whole, half, gone, alone, bad = (place.ask(top).run for _ in range(5))
    for run in (whole, half):
        end(run)
        for follower in followers(run).values():
            message(follower)
    for run in (gone, alone, bad):
        message(run)
    backup = Backup(own_etcd, place, tmp_path / "backup")
    chained = {run: ids.chained_run_id(both.id, 1, run) for run in (whole, half, gone)}
    for follower in followers(whole).values():
        end(follower)
    end(chained[whole], Kind.FAILED)  # its chain is at its end
    end(followers(half)[left.id])
    end(gone)
    found = message(alone)
    node.end(found, node.claim(found), no_chain=True)  # as if it had been asked for so
    end(bad, Kind.FAILED)
    ended = [*followers(whole).values(), chained[whole], followers(half)[left.id], gone, alone, bad]
    until(lambda: all((known := archived(database, run)) and known.ended for run in ended), 20, "the archive")
    until(lambda: message(ids.chained_run_id(once.id, 1, bad)), 10, "what may have run")
    for centre in place.centres:
        centre.stop()
    seen = marks.load(database, place.keys.namespace)
    assert seen is not None

    backup.restore()
    report, again = recover(place, database, seen), recover(place, database)
    assert (report.followed, again.followed, again.not_followed) == (3, 0, 0)
    assert place.outs()[ids.chained_run_id(once.id, 1, bad), "end"].kind == Kind.LOST, "it may have run"
    node.vanish()
    node = place.node("n2")
    place.lead(centre="two")
    end(followers(half)[right.id])
    end(chained[half])  # what was gathered since counts
    for follower in followers(gone).values():
        end(follower)
    end(chained[gone])
    until(lambda: archived(database, chained[gone]), 20, "the last")
    settled(lambda: sorted(m.run for m in place.messages()))
    assert {m.envelope.cause for m in place.messages()} == {chained[half], chained[gone]} and not place.waits()
    assert {m.envelope.name for m in place.messages()} == {"last"}, "nothing of the others runs again"
    assert archived(database, chained[whole]).outcome == Kind.FAILED
    assert not any(archived(database, run) for run in followers(alone).values())


def test_an_end_that_lay_unsettled_in_the_backup_and_was_archived_since_is_settled_once(
    place: Stage, database: Database
) -> None:
    client, keys = place.client, place.keys
    parent = place.publish(name="parent")
    fields: dict[str, Any] = {"after": {"jobs": ["parent"], "ids": [parent.id]}}
    ran, waits = place.publish(name="ran", **fields), place.publish(name="waits", **fields)
    run, now = ids.fresh_run_id(parent.id, 1), time.time()
    end = Outcome(run, parent.id, "parent", 1, 1, 1, Kind.SUCCEEDED.value, True, "manual", now, fence=5)
    client.put(keys.out(run, 1), end.encode())
    follower = ids.chained_run_id(ran.id, 1, run)
    archive.write(database, [end, replace(end, run=follower, job=ran.id, name="ran", chain=run, cause=run)])

    found = chains.look(client, keys, database, set(), now - 1, now)
    puts = {key: value for _, move in found.moves for key, value in move.puts.items()}
    asked = keys.run_in(f"c{ids.chained_run_id(waits.id, 1, run)}")
    assert set(puts) == {asked, keys.out(run, 1)} and (found.asked, found.told) == (1, 0), "what ran does not again"
    assert Outcome.read(puts[keys.out(run, 1)]) == replace(end, no_chain=True), "the leader starts nothing after it"
    assert all(move.seen for _, move in found.moves), "each step rests on what was seen"
    for key, value in puts.items():
        client.put(key, value)
    assert not chains.look(client, keys, database, {ids.chained_run_id(waits.id, 1, run)}, now - 1, now).moves


def test_recovering_twice_and_without_a_database(
    own_etcd: EtcdServer, place: Stage, database: Database, tmp_path: Path
) -> None:
    node = place.node("n1")
    job = place.publish(**EACH_SECOND)
    place.lead()
    first = until(lambda: place.fires(job), 10, "a fire")[0]
    once = place.publish(delivery="at_most_once", overlap="allow")
    request = Request("run", job=once.id, name=once.name, generation=1, run=ids.fresh_run_id(once.id, 1))
    run = place.ask(once).run
    until(lambda: any(m.run == run for m in node.messages()), 10, "its message")
    for centre in place.centres:
        centre.stop()
    place.client.put(place.keys.run_in("q1"), replace(request, requested_at=1.0).encode())
    one = recover(place, None)
    two = recover(place, None)
    assert (one.epoch, two.epoch) == (1, 2) and one.held == [run]
    assert place.outs()[request.run, "end"].kind == Kind.LOST and place.requests() == []
    assert place.waits()[run].reason == WaitReason.HOLD
    records = place.skips(job)
    place.lead(centre="two")
    upto = int(time.time()) + 1
    until(lambda: place.done(job).upto_at > upto, 15, "fires to go on")
    judge(place, database, job.id, first, upto)
    assert [record.reason for record in records] == ["restored"] * len(records)


def test_a_centre_that_leads_is_not_overruled(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crony.recovery.recover.PATIENCE", 1.0)
    place.lead()
    with pytest.raises(Conflict, match="one leads shard 0"):
        recover(place, None)
