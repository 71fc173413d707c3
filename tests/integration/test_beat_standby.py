"""P6: a centre that stands by knows what a listing at its election would tell, and leads at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from crony.beat.feed import Feed
from crony.beat.knowledge import Knowledge
from crony.beat.standby import Standby
from crony.clock import SYSTEM
from crony.domain import ids
from crony.domain.backfill import Backfill
from crony.domain.livejob import LiveJob
from crony.domain.node import NodeControl
from crony.domain.pool import Slot
from crony.domain.run import Claim, Done, Request, Wait, WaitReason
from crony.domain.shards import Part
from crony.domain.signing import Verifier
from crony.errors import Unavailable
from crony.etcd.client import Client
from crony.etcd.election import Election, Term
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn
from crony.lifecycle.move import Lead
from tests.helpers.beat import WEB, Stage, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys) as made:
        yield made


def knowledge(place: Stage, client: Client) -> Knowledge:
    """Knowledge of nothing yet, with a feed of its own."""
    return Knowledge(Feed(client, place.keys, 1), place.keys, Part(), Verifier([WEB[1]]), SYSTEM)


def elected(place: Stage, client: Client, name: str) -> Term:
    term = Election(client, place.keys, 0, name, 30.0).campaign(threading.Event())
    assert term is not None
    return term


def lead(place: Stage, term: Term) -> Lead:
    return Lead(place.keys, term.compare(), 0)


def picture(known: Knowledge) -> dict[str, Any]:
    """All that is decided by, without what only the order of telling makes (sets as sets)."""
    book, pools = known.book, known.book.pools
    return {
        "mods": {key: mod for key, mod in book.mods.items() if "told/" not in key},
        "jobs": {job: (e.seen, e.sealed, e.done, e.done_seen, e.due, e.problem) for job, e in book.jobs.items()},
        "requests": {name: (each.value, each.seen, each.born) for name, each in book.requests.items()},
        "ends": {name: each.seen for name, each in book.ends.items()},
        "backfills": {name: (each.value, each.seen) for name, each in book.backfills.items()},
        "waits": {run: (each.wait, each.seen) for run, each in book.waits.items()},
        "queued": {at: (q.value, q.seen, q.claim, q.claim_seen, q.counted) for at, q in book.queued.items()},
        "places": dict(book.places),
        "load": {name: book.load.of(name) for name in ("run.n0", "run.n1", "run.n2")},
        "outs": dict(book.outs),
        "chains": (dict(book.graph._links), dict(book.gathered)),
        "sessions": set(book.sessions),
        "nodes": {name: (each.facts, each.seen) for name, each in book.nodes.items()},
        "incarnations": dict(book.incarnations),
        "controls": dict(book.controls),
        "orders": {run: set(found) for run, found in book.orders.items()},
        "stopped": book.stopped,
        "settled": book.settled,
        "slots": {key: (held.slot, held.seen) for key, held in pools.holdings()},
        "line": {name: [*pool.line] for name, pool in pools._pools.items() if pool.line},
        "live": {job: set(book.live(job)) for job in book.jobs},
        "turns": {job: (book.line(job), book.turn(job)) for job in book.jobs},
        "to look at": (book.news.waits & set(book.waits), book.news.backfills & set(book.backfills)),
    }


class History:
    """Writes of everybody, as random as they come."""

    def __init__(self, place: Stage, chance: random.Random) -> None:
        self.place, self.chance, self.keys, self.client = place, chance, place.keys, place.client
        self.jobs = [place.publish(schedule={"cron": f"{n} 3 * * *"}) for n in range(6)]
        self.runs = [ids.fresh_run_id(job.id, 1) for job in self.jobs for _ in range(4)]
        self.incarnations = {f"n{n}": ids.incarnation() for n in range(3)}
        self.queue = {run: (f"run.n{n % 3}", ids.place(n % 9, n, run)) for n, run in enumerate(self.runs)}

    def step(self) -> None:
        """One transaction."""
        kinds = [self.job, self.cursor, self.wait, self.move, self.claim, self.node, self.slot, self.order, self.other]
        self.chance.choice(kinds)()

    def _put_or_delete(self, key: str, value: bytes) -> None:
        if self.chance.random() < 0.35:
            self.client.delete(key)
        else:
            self.client.put(key, value)

    def job(self) -> None:
        number = self.chance.randrange(len(self.jobs))
        job = self.jobs[number]
        if self.chance.random() < 0.1:
            self.client.txn(Txn().delete(self.keys.job(job.id)).delete(self.keys.done(job.id)))
            return
        self.jobs[number] = self.place.edit(job, schedule={"cron": f"{self.chance.randrange(60)} 4 * * *"})

    def cursor(self) -> None:
        job = self.chance.choice(self.jobs)
        self.client.put(self.keys.done(job.id), Done(int(time.time()), fires=self.chance.randrange(9)).encode())

    def wait(self) -> None:
        run = self.chance.choice(self.runs)
        reason = self.chance.choice([each.value for each in WaitReason])
        self._put_or_delete(self.keys.run_wait(run), Wait(run, "{}", 1, reason, 1.0).encode())

    def move(self) -> None:
        """A run goes from its waiting record to its queue, or back."""
        run = self.chance.choice(self.runs)
        message, wait = self.keys.message(*self.queue[run]), self.keys.run_wait(run)
        if self.chance.random() < 0.5:
            self.client.txn(Txn().delete(wait).put(message, b"x"))
        else:
            record = Wait(run, "{}", 1, "ended", 1.0).encode()
            self.client.txn(Txn().delete(message).delete(self.keys.claim(*self.queue[run])).put(wait, record))

    def claim(self) -> None:
        run = self.chance.choice(self.runs)
        holder = self.chance.choice([*self.incarnations.values(), ""])
        self._put_or_delete(self.keys.claim(*self.queue[run]), Claim(holder, node="n1" if holder else "").encode())

    def node(self) -> None:
        name = self.chance.choice([*self.incarnations])
        if self.chance.random() < 0.5:
            self.place.node(name, incarnation=self.incarnations[name], capacity=self.chance.randrange(1, 9))
            return
        self.client.txn(Txn().delete(self.keys.node(name)).delete(self.keys.session(self.incarnations[name])))
        self.incarnations[name] = ids.incarnation()

    def slot(self) -> None:
        run, key = self.chance.choice(self.runs), self.keys.slot("p", self.chance.randrange(4))
        self._put_or_delete(key, Slot(run, "run.n1", "x").encode())

    def order(self) -> None:
        run = self.chance.choice(self.runs)
        self._put_or_delete(self.keys.cmd("n1", run), b"{}")
        self._put_or_delete(self.keys.nodectl("n1"), NodeControl(weight=self.chance.randrange(9)).encode())

    def other(self) -> None:
        job, run = self.chance.choice(self.jobs), self.chance.choice(self.runs)
        ident = f"q{self.chance.randrange(5)}"
        kind = self.chance.choice(["run", "ended"])
        self._put_or_delete(self.keys.run_in(ident), Request(kind, run=run, job=job.id, name=job.name).encode())
        self._put_or_delete(self.keys.out(run, 1), b"{}")
        self._put_or_delete(self.keys.run_chain(run), b"{}")
        fill = Backfill(f"b{'0' * 19}{self.chance.randrange(3)}", job.id, job.name, 1, "schedule", fires=[1, 2])
        self._put_or_delete(self.keys.backfill(fill.id), fill.encode())
        self._put_or_delete(self.keys.control, b'{"stop": true}')


def test_what_one_that_stood_by_knows_is_what_a_listing_tells(place: Stage) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    history = History(place, chance)
    for _ in range(60):
        history.step()
    with Client(place.settings.etcd_endpoints) as client:
        warm = knowledge(place, client)
        warm.join()
        for _ in range(4):
            for _ in range(chance.randrange(90)):
                history.step()
                if chance.random() < 0.2:
                    warm.stand_by(0.0)
            term = elected(place, client, "one")
            revision = warm.catch_up(client, lead(place, term), lambda: True)
            assert revision > term.revision
            while warm.agenda.learn():
                pass
            fresh = knowledge(place, client)
            fresh.join()
            fresh.book.wake()
            while fresh.agenda.learn():
                pass
            assert picture(warm) == picture(fresh)
            fresh.leave()
            term.resign()
        warm.leave()


def test_a_listing_during_which_much_happens_and_is_compacted(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is of another revision, and what it lacks is told by the watches: so none is too old to be read."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    history = History(place, random.Random(seed))
    for _ in range(60):
        history.step()
    monkeypatch.setattr("crony.beat.feed.PAGE", 3)
    with Client(place.settings.etcd_endpoints) as client:
        real = client.pages

        def pages(*place_: Any, **options: Any) -> Iterator[Any]:
            for page in real(*place_, **options):
                yield page
                for _ in range(4):
                    history.step()
                place.client.compact(place.client.range(place.keys.control).revision)

        client.pages = pages  # type: ignore[method-assign]
        warm = knowledge(place, client)
        warm.join()
        client.pages = real  # type: ignore[method-assign]
        term = elected(place, client, "one")
        warm.catch_up(client, lead(place, term), lambda: True)
        fresh = knowledge(place, client)
        fresh.join()
        fresh.book.wake()
        while warm.agenda.learn() or fresh.agenda.learn():
            pass
        assert picture(warm) == picture(fresh)
        for each in (warm, fresh):
            each.leave()
        term.resign()


def test_one_that_stands_by_gathers_nothing(place: Stage) -> None:
    with Client(place.settings.etcd_endpoints) as client:
        warm = knowledge(place, client)
        warm.join()
        job = place.publish()
        for number in range(200):
            run = f"{job.id}.1.{number}"
            place.client.put(place.keys.run_wait(run), Wait(run, "{}", 1, "ended", 1.0).encode())
            place.client.delete(place.keys.run_wait(run))
        last = place.client.range(place.keys.control).revision
        until(lambda: warm.stand_by(0.05) or max(warm.revisions) >= last, 10, "all news")
        assert not warm.book.news.waits and not warm.book.waits
        assert not warm.book.news.jobs and len(warm.book.mods) == 0
        warm.leave()


def test_it_does_not_decide_by_a_watch_that_lags(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before the election comes late: it is waited for; and a silent stream is opened anew."""
    monkeypatch.setattr("crony.beat.knowledge.PATIENCE", 0.3)
    with Client(place.settings.etcd_endpoints) as client:
        warm = knowledge(place, client)
        warm.join()
        feed, real, held = warm._feed, warm.hear, list[tuple[Any, ...]]()
        reopened = threading.Event()

        def hear(*news: Any) -> None:
            held.append(news)
            if reopened.is_set():
                real(*held.pop(0))

        warm.hear = hear  # type: ignore[method-assign]
        run = f"{ids.job_id()}.1.1"
        place.client.put(place.keys.run_wait(run), Wait(run, "{}", 1, "ended", 1.0).encode())
        term = elected(place, client, "one")
        result: list[int] = []
        thread = threading.Thread(target=lambda: result.append(warm.catch_up(client, lead(place, term), lambda: True)))
        monkeypatch.setattr(feed, "reopen", reopened.set)
        thread.start()
        until(reopened.is_set, 10, "it to lose patience")
        assert not result
        while held:
            real(*held.pop(0))
        thread.join(10)
        assert result and run in warm.book.waits
        warm.leave()
        term.resign()


def test_a_term_that_is_over_tells_nothing(place: Stage) -> None:
    """Its compare taken away, a deposed leader's keys would count for the next one's."""
    with Client(place.settings.etcd_endpoints) as client:
        warm = knowledge(place, client)
        warm.join()
        term = elected(place, client, "one")
        place.client.delete(place.keys.leader(0))
        with pytest.raises(Unavailable, match="over before it began"):
            warm.catch_up(client, lead(place, term), lambda: True)
        assert place.client.list(f"{place.keys.root}session.told/").kvs == []
        warm.leave()


def test_a_listing_that_fails_is_tried_again(own_etcd: EtcdServer, keys: Keys) -> None:
    with stage(own_etcd.endpoint, keys) as place, Client([own_etcd.endpoint], timeout=0.5) as client:
        job = place.publish()
        own_etcd.kill()
        standby = Standby(0, lambda: knowledge(place, client)).start()
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 1.2, 5, "it to fail once or twice")
        assert not standby.warm
        own_etcd.start()
        until(lambda: standby.warm, 15, "it to know")
        found = standby.take()
        assert found is not None and job.id in found.book.jobs
        found.leave()


def planned(place: Stage, job: LiveJob) -> int | None:
    leader = place.centres[0].centre.leader
    entry = leader.office.book.jobs.get(job.id) if leader is not None else None
    return entry.due if entry is not None else None


def test_a_hint_that_lies_is_found_out(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody who may write to etcd can leave one; it costs time, never a fire."""
    monkeypatch.setattr("crony.beat.agenda.EXAMINING", 1.0)
    place.node("n1")
    now = int(time.time())
    job = place.publish(schedule={"every": "1m"}, misfire={"policy": "fire_once", "within": "7d"}, done=now - 300)
    seen = place.client.get(place.keys.job(job.id))
    assert seen is not None
    lie = Done(now - 300, due_at=now + 90 * 86400, due_seen=seen.mod, due_tz="-")
    place.client.put(place.keys.done(job.id), lie.encode())
    place.lead()
    fires = until(lambda: place.fires(job), 10, "it to be found out")
    skips = place.skips(job)
    counted = len(fires) + sum(out.count or 1 for out in skips)
    assert counted == (place.done(job).upto_at - (now - 300)) // 60 or counted >= 5, "each instant is a run or a record"
    until(lambda: (planned(place, job) or 0) > now, 5, "the next one to be planned")


def test_no_stream_falls_behind_compaction_while_a_shard_is_led(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of a million jobs in which nothing happens is neither listed nor counted, however old its last news."""
    monkeypatch.setattr("crony.beat.duties.telling.EVERY", 0.1)
    place.lead()
    with Client(place.settings.etcd_endpoints) as client:
        warm = knowledge(place, client)
        warm.join()
        for _ in range(3):
            now = place.client.put(f"{place.keys.root}elsewhere", b"")
            until(lambda now=now: warm.stand_by(0.05) or min(warm.revisions) > now, 10, "news of every range")  # type: ignore[misc]
        warm.leave()
