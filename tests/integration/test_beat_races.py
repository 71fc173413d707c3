"""The races of PROTOCOL section 2, made to happen: late transactions, and a leader whose watches are behind."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crony.beat.commit import Committer, Result, Step, Verdict
from crony.beat.duties import inbox, lookup
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult, create
from crony.lifecycle.hold import turn
from crony.lifecycle.move import Lead, Move
from tests.helpers.beat import RunningCentre, Stage, settled, stage
from tests.helpers.etcd import EtcdServer
from tests.helpers.wait import until


@pytest.fixture
def place(etcd: EtcdServer, keys: Keys) -> Iterator[Stage]:
    with stage(etcd.endpoint, keys, leader_ttl=5.0) as made:
        yield made


class Limbo:
    """Catches the next transaction that writes under a prefix: to the leader its answer is lost; it comes when told."""

    def __init__(self, centre: RunningCentre, prefix: str) -> None:
        self.client, self.prefix = centre.centre.client, prefix
        self.real: Callable[..., TxnResult] = self.client.txn
        self.caught: Txn | None = None
        self.before_next = False
        """Let it arrive just before the leader's second try."""
        self.losing = False
        """Keep every further try away from etcd, unanswered."""
        self.client.txn = self._txn  # type: ignore[method-assign]

    def _txn(self, txn: Txn, **options: Any) -> TxnResult:
        hit = any(key.startswith(self.prefix) for key in (*txn._puts, *txn._deletes))
        if hit and self.caught is None:
            self.caught = txn
            raise EtcdUnknown("the answer is lost")
        if hit and self.losing:
            raise EtcdUnknown("the answer is lost")
        if hit and self.before_next:
            self.before_next = False
            assert self.arrive()
        return self.real(txn, **options)

    def arrive(self) -> bool:
        """The late transaction reaches etcd; whether it happened."""
        assert self.caught is not None
        return self.real(self.caught).succeeded


class Behind:
    """Keeps the leader's watches of some streams from telling it anything until released."""

    def __init__(self, centre: RunningCentre, *streams: int) -> None:
        leader = centre.centre.leader
        assert leader is not None
        self.leader, self.real, self.kept = leader, leader._knowledge._happened, []
        self.streams = streams
        leader._knowledge._happened = self._happened  # type: ignore[method-assign]

    def _happened(self, stream: int, *rest: Any) -> None:
        if stream in self.streams:
            self.kept.append((stream, *rest))
        else:
            self.real(stream, *rest)

    def release(self) -> None:
        """All of it, now."""
        self.leader._knowledge._happened = self.real  # type: ignore[method-assign]
        for news in self.kept:
            self.leader._events.put(("events", *news))


def judge(place: Stage, job: LiveJob, first: int, last: int) -> None:
    """Every second in [first, last] has exactly one run or one record."""
    fires = Counter(place.fires(job))
    for skip in place.skips(job):
        fires.update(range(int(skip.fire_at or 0), int(skip.to_at or skip.fire_at or 0) + 1))
    assert [(second, fires[second]) for second in range(first, last + 1) if fires[second] != 1] == []


@pytest.mark.parametrize("when", ["after the next decision", "before the next decision"])
def test_an_unanswered_fire_that_arrives_late(place: Stage, when: str) -> None:
    place.node("n1")
    centre = place.lead()
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    first = until(lambda: place.fires(job), 10, "a fire")[0]
    limbo = Limbo(centre, place.keys.done(""))
    limbo.before_next = when.startswith("before")
    caught_at = until(lambda: limbo.caught and time.time(), 10, "a fire to be caught")
    until(lambda: place.done(job).upto_at >= caught_at + 1, 10, "later decisions")
    if when.startswith("after"):
        assert not limbo.arrive(), "the decision was made anew meanwhile"
    judge(place, job, first, place.done(job).upto_at - 1)


def test_a_late_fire_counts_for_overlap(place: Stage) -> None:
    """The leader must see the run of its late transaction before it decides about that job again."""
    node = place.node("n1")
    centre = place.lead()
    job = place.publish(schedule={"every": "1s"})
    until(node.messages, 10, "a fire")
    node.run_all()
    until(lambda: not centre.centre.leader.office.book.live(job.id), 10, "the leader to know of its end")  # type: ignore[union-attr]
    behind = Behind(centre, 0, 2)
    limbo = Limbo(centre, place.keys.done(""))
    limbo.before_next = True
    until(lambda: limbo.caught and not limbo.before_next, 10, "the late arrival")
    until(lambda: len(place.skips(job)) >= 2, 10, "fires meanwhile to be skipped")
    assert len(node.messages()) == 1, "one run at a time"
    behind.release()


@pytest.mark.parametrize("when", ["after", "before"])
def test_an_unanswered_admission_that_arrives_late(place: Stage, when: str) -> None:
    node = place.node("n1")
    centre = place.lead()
    job = place.publish()
    limbo = Limbo(centre, place.keys.queue("run.n1"))
    limbo.before_next = when == "before"
    run = place.ask(job).run
    until(lambda: limbo.caught and not place.requests(), 10, "the admission")
    if when == "after":
        assert not limbo.arrive()
    second = place.ask(job).run
    until(lambda: (second, "0") in place.outs(), 10, "the second to be skipped")
    assert [message.run for message in node.messages()] == [run]


def test_an_admission_in_doubt_blocks_the_fires_of_its_job(place: Stage) -> None:
    """Between the lost answer and the late arrival a fire must not slip in: two runs would be live."""
    node = place.node("n1")
    centre = place.lead()
    job = place.publish(schedule={"every": "1s"})
    until(node.messages, 10, "a fire")
    just_decided = lambda: place.done(job).upto_at == int(time.time()) and time.time() % 1 < 0.3  # noqa: E731
    until(just_decided, 10, "the moment after a fire")
    limbo = Limbo(centre, place.keys.run_in(""))
    limbo.losing = True
    node.run_all()
    run = place.ask(job).run
    asked = until(lambda: limbo.caught and time.time(), 10, "the admission to be caught")
    until(lambda: time.time() > asked + 1.5, 10, "a fire to become due")
    assert node.messages() == []
    assert limbo.arrive(), "the admission was still to come"
    until(lambda: not place.requests(), 10, "the request to be settled")
    until(lambda: len(place.skips(job)) >= 2, 10, "the fires meanwhile to be skipped")
    assert [message.run for message in node.messages()] == [run]


def test_a_pause_that_the_leader_has_not_seen_yet_holds(place: Stage) -> None:
    place.node("n1")
    centre = place.lead()
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    until(lambda: place.fires(job), 10, "a fire")
    behind = Behind(centre, 1)
    edited = place.edit(job, enabled=False)
    saved = time.time()
    until(lambda: time.time() > saved + 2.5, 10, "fires to be tried")
    assert not [fire for fire in place.fires(job) if fire > saved]
    assert place.done(job).upto_at <= saved
    behind.release()
    until(lambda: time.time() > saved + 3.2, 10, "another second")
    assert not [fire for fire in place.fires(job) if fire > saved] and edited.revision == 2


def test_a_stop_that_the_leader_has_not_seen_yet_holds(place: Stage) -> None:
    node = place.node("n1")
    centre = place.lead()
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    until(node.messages, 10, "a fire")
    behind = Behind(centre, 0)
    turn(place.client, place.keys, True, by="li")
    last = max(message.envelope.fire_at or 0 for message in node.messages())
    until(lambda: centre.counts().get("fire_refused"), 10, "a fire to be refused")
    assert max(message.envelope.fire_at or 0 for message in node.messages()) == last
    assert place.done(job).upto_at == last
    behind.release()


def test_a_lost_node_that_the_leader_has_not_seen_yet_gets_nothing(place: Stage) -> None:
    node = place.node("n1")
    centre = place.lead()
    job = place.publish(schedule={"every": "1s"}, overlap="allow")
    until(node.messages, 10, "a fire")
    behind = Behind(centre, 1, 2)
    node.vanish()
    had = len(node.messages())
    lost = time.time()
    until(lambda: time.time() > lost + 1.5, 10, "a fire to be tried")
    assert len(node.messages()) == had
    behind.release()
    until(lambda: not node.messages() and place.waits(), 10, "all to wait for a node")
    judge(place, job, place.fires(job)[0], place.done(job).upto_at)


def test_a_claim_that_the_leader_has_not_seen_yet_is_respected(place: Stage) -> None:
    node = place.node("n1")
    centre = place.lead()
    job = place.publish(overlap="allow")
    run = place.ask(job).run
    message = until(node.messages, 10, "the run")[0]
    behind = Behind(centre, 2)
    fence = node.claim(message)
    place.control("n1", drain=True)
    until(lambda: centre.counts().get("failover_refused"), 10, "a re-route to be refused")
    assert not place.waits() and len(node.messages()) == 1
    behind.release()
    node.end(message, fence)
    assert place.outs()[run, "1"].kind == "succeeded"


def test_an_admission_whose_answer_alone_was_lost_blocks_nothing(place: Stage) -> None:
    """It happened, the watch says so first, and only then the leader learns that nobody answered."""
    node = place.node("n1")
    centre = place.lead()
    job = place.publish()
    client = centre.centre.client
    real = client.txn
    lost: list[Txn] = []

    def txn(sent: Txn, **options: Any) -> TxnResult:
        answer = real(sent, **options)
        if any(key.startswith(place.keys.run_in("")) for key in sent._deletes) and not lost:
            lost.append(sent)
            leader = centre.centre.leader
            assert leader is not None
            admitted = {key.removeprefix(place.keys.run_in("")) for key in sent._deletes}
            until(lambda: not admitted & leader.office.book.requests.keys(), 10, "the watch to tell")
            raise EtcdUnknown("the answer is lost")
        return answer

    client.txn = txn  # type: ignore[method-assign]
    first = place.ask(job).run
    until(lambda: lost and node.messages(), 10, "the admission")
    node.run_all()
    second = place.ask(job).run
    until(lambda: [message.run for message in node.messages()] == [second], 10, "the next to run")
    assert (first, "1") in place.outs()


def test_a_job_that_the_leader_has_not_heard_of_waits_for_what_was_published_before_it(
    place: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run would else be said to wait for a pool that does not exist, or for a node."""
    monkeypatch.setattr(lookup, "BEHIND", 60.0)
    behind = Behind(place.lead(), 1)
    place.pool("a", 1)
    node = place.node("n1")
    job = place.publish(overlap="allow", limits=["pool:a"])
    runs = [place.ask(job).run for _ in range(2)]
    assert settled(lambda: (len(place.requests()), place.waits())) == (2, {})
    behind.release()
    until(lambda: place.waits() and node.messages(), 10, "both to be decided")
    assert [message.run for message in node.messages()] == runs[:1]
    assert {run: wait.detail for run, wait in place.waits().items()} == {runs[1]: "pool a lets 1 run at a time"}


def test_a_deaf_watch_keeps_a_new_job_waiting_for_a_moment_only(place: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "BEHIND", 0.2)
    node = place.node("n1")
    centre = place.lead()
    behind = Behind(centre, 1)
    run = place.ask(place.publish()).run
    until(node.messages, 10, "the run")
    assert [message.run for message in node.messages()] == [run]
    behind.release()


def test_what_is_asked_later_does_not_overtake_a_refused_admission(
    place: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "AGAIN", 0.5)
    place.pool("a", 1)
    node = place.node("n1")
    centre = place.lead()
    job = place.publish(overlap="allow", limits=["pool:a"])
    client, refused = centre.centre.client, list[Txn]()
    real = client.txn

    def txn(sent: Txn, **options: Any) -> TxnResult:
        if any(key.startswith(place.keys.run_in("")) for key in sent._deletes) and not refused:
            refused.append(sent)
            turn(place.client, place.keys, False, by="li")
        return real(sent, **options)

    client.txn = txn  # type: ignore[method-assign]
    first = place.ask(job).run
    until(lambda: centre.counts().get("admit_refused"), 10, "the first to be refused")
    second = place.ask(job).run
    until(lambda: place.waits() and node.messages(), 10, "both to be decided")
    assert [message.run for message in node.messages()] == [first] and list(place.waits()) == [second]


def test_a_hint_whose_answer_is_lost_keeps_nobody_from_running_the_job(place: Stage) -> None:
    """It makes no run, so none can be in doubt: a job that is due in a year, or never, would stand still until then."""
    node = place.node("n1")
    jobs = [place.publish(done=int(time.time())), place.publish(schedule={"cron": "0 0 29 2 *"}, done=int(time.time()))]
    centre = place.centre()
    limbo = Limbo(centre, place.keys.done(""))
    centre.leads()
    until(lambda: limbo.caught, 10, "the hints to be caught")
    runs = {place.ask(job).run for job in jobs}
    until(lambda: {message.run for message in node.messages()} == runs, 10, "both to run")


@pytest.mark.parametrize("others", [[], ["k"]], ids=["alone", "beside another job"])
def test_what_an_earlier_try_has_done_does_not_prove_a_later_one(place: Stage, others: list[str]) -> None:
    """Both say the same about the job, and both answers were lost: the later one was refused, with all in it."""
    client, keys, results = place.client, place.keys, list[Result]()
    lead = Lead(keys, create(keys.leader(0), client.put(keys.leader(0), b"{}")), 0)
    before = {job: client.put(keys.done(job), Done(5).encode()) for job in ("j", *others)}
    real, caught = client.txn, list[Txn]()

    def txn(sent: Txn, **options: Any) -> TxnResult:
        if sent.read_only:
            return real(sent, **options)
        caught.append(sent)
        if len(caught) == 2:
            assert real(caught[0]).succeeded and not real(sent).succeeded
        raise EtcdUnknown("the answer is lost")

    def fire(job: str, place: str) -> Step:
        puts = {keys.done(job): Done(6).encode(), keys.message("run.n1", place): b"{}"}
        return Step(Move({keys.done(job): before[job]}, puts=puts, proof=keys.done(job)), lambda verdict: None)

    client.txn = txn  # type: ignore[method-assign]
    committer = Committer(client, lead, results.append)
    try:
        committer.send("fire", [fire("j", "1.j")])
        until(lambda: len(results) == 1, 10, "the first to be in doubt")
        committer.send("fire", [fire("j", "2.j"), *(fire(job, f"2.{job}") for job in others)])
        until(lambda: len(results) == 2, 10, "the second to be in doubt")
    finally:
        committer.close(1.0)
    assert [result.verdict for result in results] == [Verdict.LIMBO, Verdict.LIMBO]
    assert [kv.key for kv in client.list(f"{keys.run}q/").kvs] == [keys.message("run.n1", "1.j")]
