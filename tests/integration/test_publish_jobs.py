"""Publish (transaction 3): revisions never go down, the cursor moves only with a record, no fire is lost at an edit."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crony.beat import policy
from crony.clock import rfc3339
from crony.domain.job import parse
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Outcome, SkipReason
from crony.domain.run import Done
from crony.domain.signing import BadSeal, Sealer, Verifier, new_key
from crony.errors import Conflict, CronyError, Halted, Invalid, Unavailable, Unknown
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.lifecycle.publish import NEWER, publish
from tests.helpers.etcd import EtcdServer
from tests.helpers.proxy import Proxy

JOB = "j1m81s8xkj3qm4nka4921"
PRIVATE, PUBLIC = new_key()
NOON = 1_790_000_000 // 3600 * 3600
"""Some full hour."""


def _document(name: str = "a", **facts: Any) -> dict[str, Any]:
    action = {"kind": "shell", "command": ["true"]}
    return {"name": name, "schedule": {"every": "1m"}, "action": action, **facts}


def _live(revision: int = 1, name: str = "a", *, ident: str = JOB, deleted: bool = False, **facts: Any) -> LiveJob:
    document = None if deleted else parse(_document(name, **facts))
    return LiveJob(ident, name, 1, revision, document=document, deleted=deleted)


class Board:
    """The publishing side, and what it left in etcd."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.client, self.keys, self.sealer = client, keys, Sealer(PRIVATE)

    def put(self, live: LiveJob, now: float, late: bool = False) -> int | str:
        return publish(self.client, self.keys, self.sealer, live, now=now, late=late)

    def live(self, ident: str = JOB) -> LiveJob:
        kv = self.client.get(self.keys.job(ident))
        assert kv is not None
        return LiveJob.read(Verifier([PUBLIC]).open(kv.value))

    def done(self) -> int:
        kv = self.client.get(self.keys.done(JOB))
        assert kv is not None
        return Done.read(kv.value).upto_at

    def decide(self, upto: int) -> list[int]:
        """What a leader does: decide everything due up to `upto`; the instants it dispatched."""
        job, done = self.client.get(self.keys.job(JOB)), self.client.get(self.keys.done(JOB))
        assert job is not None and done is not None
        seen = Done.read(done.value).upto_at
        due = LiveJob.read(Verifier([PUBLIC]).open(job.value)).due_between(seen, upto, 10_000)
        put = Txn().when(mod(job.key, job.mod), mod(done.key, done.mod)).put(done.key, Done(max(seen, upto)).encode())
        return due if self.client.txn(put).succeeded else []

    def skips(self) -> list[Outcome]:
        return [Outcome.read(kv.value) for kv in self.client.list(self.keys.outs).kvs]

    def holder(self, name: str) -> str | None:
        kv = self.client.get(self.keys.name(name))
        return kv.value.decode() if kv else None


@pytest.fixture
def board(client: Client, keys: Keys) -> Board:
    return Board(client, keys)


def test_creation(board: Board) -> None:
    assert board.put(_live(), NOON + 0.9) == 1
    live = board.live()
    assert (live.revision, live.since_at, live.replaced, board.done(), board.holder("a")) == (1, NOON, (), NOON, JOB)
    assert live.published_at == NOON + 0.9
    assert live.due_between(board.done(), NOON + 120, 9) == [NOON + 60, NOON + 120]


def test_publishing_again_changes_nothing(board: Board) -> None:
    board.put(_live(3), NOON)
    before = board.client.list(board.keys.root).kvs
    assert board.put(_live(3), NOON + 500) == 3
    assert board.put(_live(2, schedule={"every": "1s"}), NOON + 500) == NEWER
    assert board.client.list(board.keys.root).kvs == before


def test_only_the_key_of_a_web_signs(board: Board) -> None:
    board.put(_live(), NOON)
    kv = board.client.get(board.keys.job(JOB))
    assert kv is not None
    with pytest.raises(BadSeal):
        Verifier([new_key()[1]]).open(kv.value)


def test_an_edit_next_to_a_fire(board: Board) -> None:
    """S3: due at noon before and after the edit, which is saved at noon + 50 ms, before the leader decided noon."""
    board.put(_live(), NOON - 30)
    assert board.done() == NOON - 30
    board.put(_live(2, schedule={"every": "20s"}), NOON + 0.05)
    assert board.done() == NOON - 30
    assert board.decide(NOON + 40) == [NOON, NOON + 20, NOON + 40]


def test_an_edit_after_the_cursor_passed_now(board: Board) -> None:
    """A leader whose clock is a second ahead has decided further than the web's now: nothing is due twice or never."""
    board.put(_live(schedule={"every": "10s"}), NOON)
    board.decide(NOON + 60)
    board.put(_live(2, schedule={"every": "5s"}), NOON + 58.5)
    assert board.live().since_at == NOON + 60
    assert board.decide(NOON + 75) == [NOON + 65, NOON + 70, NOON + 75]


def test_edits_that_do_not_touch_the_schedule_need_no_leader(board: Board) -> None:
    board.put(_live(), NOON)
    for revision in range(2, 200):
        board.put(_live(revision, description=str(revision)), NOON + revision)
    assert (board.live().since_at, board.live().replaced) == (NOON, ())
    assert board.decide(NOON + 180) == [NOON + 60, NOON + 120, NOON + 180]


def test_edits_without_a_leader_are_remembered_up_to_a_limit(board: Board) -> None:
    board.put(_live(), NOON)
    with pytest.raises(Conflict, match="leader"):
        for revision in range(2, 200):
            board.put(_live(revision, schedule={"every": f"{revision + 60}s"}), NOON + 60 * revision)
    assert 10 < board.live().revision < 150
    board.decide(NOON + 60 * 300)
    board.put(_live(500, schedule={"every": "1h"}), NOON + 60 * 301)
    assert len(board.live().replaced) == 1


def test_a_pause_and_a_resume(board: Board) -> None:
    board.put(_live(), NOON)
    board.put(_live(2, enabled=False), NOON + 150)
    assert board.done() == NOON
    assert board.decide(NOON + 400) == [NOON + 60, NOON + 120]  # due before the pause, decided after it
    board.put(_live(3), NOON + 600.5)
    assert board.done() == NOON + 600
    (skip,) = board.skips()
    assert (skip.reason, skip.fire_at, skip.to_at, skip.count, skip.kind, skip.final) == (
        "paused",
        NOON + 420,
        NOON + 600,
        4,
        "skipped",
        True,
    )
    assert skip.run == f"{JOB}.1.{NOON + 420}"
    assert board.decide(NOON + 720) == [NOON + 660, NOON + 720]


def test_a_pause_with_an_end_that_somebody_ends_before(board: Board) -> None:
    board.put(_live(), NOON)
    board.put(_live(2, paused_until=rfc3339(NOON + 3600)), NOON + 150)
    assert board.done() == NOON and board.decide(NOON + 300) == [NOON + 60, NOON + 120]
    board.put(_live(3), NOON + 600)
    (skip,) = board.skips()
    assert (skip.reason, skip.fire_at, skip.to_at, skip.count) == ("paused", NOON + 360, NOON + 600, 5)
    assert board.decide(NOON + 700) == [NOON + 660]
    board.put(_live(4, paused_until=rfc3339(NOON + 800)), NOON + 710)
    board.put(_live(5, timeout="2m"), NOON + 900)  # over by then: an edit like any other
    assert len(board.skips()) == 1 and board.decide(NOON + 900) == [NOON + 840, NOON + 900]


def test_a_resume_counts_what_no_leader_decided(board: Board) -> None:
    """Paused, edited while paused and resumed while no centre was there: one record stands for all of it."""
    board.put(_live(), NOON)
    board.put(_live(2, enabled=False), NOON + 50)
    board.put(_live(3, enabled=False, schedule={"every": "30s"}), NOON + 300)
    board.put(_live(4, schedule={"every": "30s"}), NOON + 600)
    (skip,) = board.skips()
    assert (skip.fire_at, skip.to_at, skip.count) == (NOON + 60, NOON + 600, 5 + 10)
    assert board.live().replaced == ()
    assert board.decide(NOON + 660) == [NOON + 630, NOON + 660]


def test_a_pause_does_not_swallow_what_was_due_before_it(board: Board) -> None:
    """No centre was there when it was due. It was not paused then, so it runs, or is missed by the job's own rule."""
    board.put(_live(misfire={"policy": "fire_all"}), NOON)
    board.put(_live(2, enabled=False), NOON + 150)
    board.put(_live(3, misfire={"policy": "fire_all"}, overlap="allow"), NOON + 600)
    assert board.done() == NOON and board.skips() == []
    plan = policy.decide(board.live(), board.done(), NOON + 661)
    assert plan is not None and plan.fires == (NOON + 60, NOON + 120, NOON + 660) and plan.upto == NOON + 660
    assert plan.skips == (policy.Skipped(SkipReason.PAUSED, NOON + 180, NOON + 600, 8, ""),)
    assert board.decide(NOON + 300) == [NOON + 60, NOON + 120], "decided meanwhile"
    board.put(_live(4, enabled=False), NOON + 610)
    board.put(_live(5), NOON + 700)
    (skip,) = board.skips()
    assert (skip.reason, skip.fire_at, skip.to_at, board.done()) == ("paused", NOON + 360, NOON + 660, NOON + 700)


def test_a_short_pause_leaves_no_record(board: Board) -> None:
    board.put(_live(), NOON)
    board.put(_live(2, enabled=False), NOON + 10)
    board.put(_live(3), NOON + 20)
    assert board.skips() == []
    assert board.decide(NOON + 60) == [NOON + 60]


def _hold(board: Board, upto: int = NOON) -> Done:
    """What a leader notes when it pauses the job."""
    held = Done(upto, failures=2, held="2 failures in a row", held_for="failures", held_revision=1, held_at=NOON + 0.5)
    board.client.put(board.keys.done(JOB), held.encode())
    return held


def test_any_edit_of_a_job_that_its_leader_paused_is_a_resume(board: Board) -> None:
    board.put(_live(), NOON)
    _hold(board)
    board.put(_live(2, timeout="5m"), NOON + 150.5)
    done = board.client.get(board.keys.done(JOB))
    assert done is not None and Done.read(done.value) == Done(NOON + 150, due_at=NOON + 180, due_seen=-1, due_tz="-")
    (skip,) = board.skips()
    assert (skip.reason, skip.detail, skip.fire_at, skip.to_at, skip.count) == (
        "paused", "2 failures in a row", NOON + 60, NOON + 120, 2
    )  # fmt: skip
    assert board.live().due_between(NOON + 150, NOON + 240, 9) == [NOON + 180, NOON + 240]
    assert board.live().since_at == NOON + 150 and not board.live().replaced


def test_a_person_may_pause_or_delete_what_its_leader_paused(board: Board) -> None:
    board.put(_live(), NOON)
    _hold(board)
    board.put(_live(2, enabled=False), NOON + 90.5)
    assert [skip.count for skip in board.skips()] == [1] and board.done() == NOON + 90
    _hold(board, NOON + 90)
    board.put(_live(3, deleted=True), NOON + 200.5)
    assert {skip.reason for skip in board.skips()} == {"paused"}


def test_a_pause_by_the_leader_while_an_edit_is_under_way_is_seen_by_it(board: Board) -> None:
    """The edit of an action alone rests on no cursor, except when it ends a pause."""
    board.put(_live(), NOON)
    _hold(board)
    real, calls = board.client.txn, []

    def txn(sent: Txn, **options: Any) -> Any:
        if sent._puts and not calls:
            calls.append(sent)
            _hold(board, NOON + 60)  # the leader writes it again meanwhile
        return real(sent, **options)

    board.client.txn = txn  # type: ignore[method-assign]
    board.put(_live(2, timeout="5m"), NOON + 150.5)
    (skip,) = board.skips()
    assert skip.fire_at == NOON + 120, "decided anew by the cursor as it is now"


def test_deletion(board: Board) -> None:
    board.put(_live(), NOON)
    board.put(_live(2, deleted=True), NOON + 130)
    live = board.live()
    assert (live.deleted, live.document, board.holder("a"), live.due_between(0, NOON * 2, 9)) == (True, None, None, [])
    (skip,) = board.skips()
    assert (skip.reason, skip.fire_at, skip.count) == ("deleted", NOON + 60, 2)
    assert board.put(_live(1), NOON + 140) == NEWER  # M4: the slow web
    assert board.live().deleted and board.holder("a") is None


def test_a_deletion_overtakes_the_creation(board: Board) -> None:
    """M4: created and deleted in the database, the deletion published first; the slow creation changes nothing."""
    assert board.put(_live(2, deleted=True), NOON) == 2
    assert board.put(_live(1), NOON + 1) == NEWER
    assert board.live().deleted and board.holder("a") is None


def test_a_rename_moves_the_name(board: Board) -> None:
    board.put(_live(), NOON)
    board.put(_live(2, "b/c"), NOON + 1)
    assert (board.holder("a"), board.holder("b/c"), board.live().name) == (None, JOB, "b/c")
    other = "j" + "0" * 20
    board.put(_live(1, "a", ident=other), NOON + 2)
    with pytest.raises(Conflict):
        board.put(_live(3, "a"), NOON + 3)
    assert (board.holder("a"), board.holder("b/c")) == (other, JOB)
    board.put(_live(4, "b/c", deleted=True), NOON + 4)
    assert (board.holder("a"), board.holder("b/c")) == (other, None)


def test_an_instant_that_is_over_is_refused(board: Board) -> None:
    def at(second: int) -> dict[str, Any]:
        from crony.clock import rfc3339

        return {"at": rfc3339(second)}

    with pytest.raises(Invalid) as refused:
        board.put(_live(schedule=at(NOON)), NOON + 0.2)
    assert refused.value.field == "schedule.at" and refused.value.hint
    board.put(_live(schedule=at(NOON + 10)), NOON)
    assert board.decide(NOON + 20) == [NOON + 10]
    board.put(_live(2, schedule=at(NOON + 10), description="its instant stays"), NOON + 15)
    with pytest.raises(Invalid):
        board.put(_live(3, schedule=at(NOON + 20)), NOON + 15)  # S4: decided already, whatever our clock says
    board.put(_live(3, schedule=at(NOON + 30)), NOON + 15)
    assert board.decide(NOON + 30) == [NOON + 30]


def test_an_instant_that_passed_while_etcd_was_away_is_recorded(board: Board) -> None:
    from crony.clock import rfc3339

    board.put(_live(schedule={"at": rfc3339(NOON + 10)}), NOON + 500, late=True)
    (skip,) = board.skips()
    assert (skip.reason, skip.fire_at, skip.run) == ("misfire", NOON + 10, f"{JOB}.1.{NOON + 10}")
    assert board.decide(NOON + 1000) == []


def test_what_nobody_can_read_is_replaced(board: Board) -> None:
    board.client.put(board.keys.job(JOB), b"\xff not a job")
    board.put(_live(), NOON)
    assert board.live().revision == 1


def test_two_webs_save_at_once(board: Board, etcd: EtcdServer) -> None:
    """Whatever the order, the highest revision stays, and it is the only one."""
    seed = random.randrange(2**32)
    print("seed", seed)
    revisions = list(range(1, 41))
    random.Random(seed).shuffle(revisions)

    def save(part: list[int]) -> None:
        with Client([etcd.endpoint]) as client:
            for revision in part:
                name = f"name{revision % 3}"
                live = _live(revision, name, schedule={"every": f"{revision}s"}, enabled=revision % 5 > 0)
                publish(client, board.keys, Sealer(PRIVATE), live)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(save, revisions[i::4]) for i in range(4)]:
            future.result(60)
    assert board.live().revision == 40
    names = [kv.key for kv in board.client.list(board.keys.name("")).kvs]
    assert names == [board.keys.name(board.live().name)]


def test_every_fire_is_decided_once_under_edits(board: Board, etcd: EtcdServer) -> None:
    """A leader decides as fast as it can while a web edits, pauses and resumes: by I2 each second is accounted for.

    Every schedule fires every second, so each second after the creation that is not paused must be dispatched or lie
    in a record, once; what is dispatched was never paused.
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    clock = NOON
    board.put(_live(schedule={"every": "1s"}), NOON)
    dispatched: list[int] = []
    timeline: list[tuple[int, bool]] = [(NOON, True)]
    stop = threading.Event()

    def lead() -> None:
        with Client([etcd.endpoint]) as client:
            leader = Board(client, board.keys)
            while not stop.wait(0.002):
                dispatched.extend(leader.decide(clock))

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(lead)
        for revision in range(2, 80):
            clock += dice.randint(0, 3)
            enabled = dice.random() < 0.7
            schedule = [{"every": "1s"}, {"every": f"{revision}s"}]
            board.put(_live(revision, enabled=enabled, schedule=schedule), clock + dice.uniform(-1.0, 0.999))
            timeline.append((board.live().since_at, enabled))
        clock += 5
        board.put(_live(200, schedule={"every": "1s"}), clock)
        timeline.append((board.live().since_at, True))
        clock += 5
        while board.done() < clock:
            pass
        stop.set()
        leading.result(40)
    recorded = [second for skip in board.skips() for second in range(int(skip.fire_at or 0), int(skip.to_at or 0) + 1)]
    assert len(dispatched) == len(set(dispatched))
    assert len(recorded) == len(set(recorded))
    assert not set(dispatched) & set(recorded)
    due = {t for t in range(NOON + 1, clock + 1) if [enabled for since, enabled in timeline if since < t][-1]}
    assert set(dispatched) <= due
    assert due <= {*dispatched, *recorded}
    assert all(skip.count == (skip.to_at or 0) - (skip.fire_at or 0) + 1 for skip in board.skips())
    assert recorded and max(dispatched) == clock


def test_an_answer_lost_is_read_back(etcd: EtcdServer, keys: Keys) -> None:
    with Proxy(etcd.endpoint) as proxy, Client([proxy.endpoint], timeout=1) as client:
        board = Board(client, keys)
        client.get("warm")
        board.put(_live(1, name="warm", ident="j" + "1" * 20), NOON)
        proxy.lose_answer(b"/v3/kv/txn")
        assert board.put(_live(), NOON) == 1
        assert proxy.lost == 1
        assert board.live().revision == 1
        proxy.lose_answer(b"/v3/kv/txn")
        board.put(_live(2, enabled=False), NOON + 200)
        board.decide(NOON + 200)
        proxy.lose_answer(b"/v3/kv/txn")
        board.put(_live(3), NOON + 500)
        assert proxy.lost == 3
        assert len(board.skips()) == 1


def test_etcd_away(keys: Keys) -> None:
    with Client(["http://127.0.0.1:1"], timeout=0.5) as client, pytest.raises((Unavailable, Unknown)) as away:
        Board(client, keys).put(_live(), NOON)
    assert isinstance(away.value, CronyError) and not isinstance(away.value, Halted)
