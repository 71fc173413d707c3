"""The leader's memory: news in any order, the newest wins, live runs are never short."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest

from crony.beat.book import Book
from crony.beat.leader import Leader
from crony.domain import ids
from crony.domain.run import Claim, Done, Request, Wait
from crony.etcd.keys import Keys

KEYS = Keys("x")
JOB = "j" + "1" * 20
RUN = f"{JOB}.1.1700000000"
WAIT = Wait(RUN, "{}", 1, "ended", 0.0).encode()


def test_older_news_never_undoes_newer() -> None:
    book = Book(KEYS)
    key = KEYS.run_wait(RUN)
    book.put(key, WAIT, 10)
    book.drop(key, 12)  # the leader's own transaction
    book.put(key, WAIT, 11)  # the watch, later, with what was before
    assert not book.waits and book.live(JOB) == []
    book.put(key, WAIT, 13)
    book.drop(key, 12)  # the watch, with the delete
    assert list(book.waits) == [RUN]


def test_a_run_stays_live_through_a_transaction_seen_in_any_order() -> None:
    place = ids.place(0, 5, RUN)
    message, claim, wait = KEYS.message("run.n1", place), KEYS.claim("run.n1", place), KEYS.run_wait(RUN)
    for first in (True, False):
        book = Book(KEYS)
        book.put(message, b"x", 5)
        book.put(claim, Claim("i1").encode(), 6)
        assert book.live(JOB) == [RUN] and book.queued["run.n1", place].holder == "i1"
        news = [(message, None), (claim, None), (wait, WAIT)]
        for key, value in news if first else news[::-1]:
            if value is None:
                book.drop(key, 7)
            else:
                book.put(key, value, 7)
        assert book.live(JOB) == [RUN] and book.is_live(RUN) and not book.queued
        book.drop(wait, 8)
        assert book.live(JOB) == [] and not book.is_live(RUN)


def test_a_claim_that_is_told_before_its_message() -> None:
    book, place = Book(KEYS), ids.place(0, 5, RUN)
    book.put(KEYS.claim("run.n1", place), Claim("i1").encode(), 6)
    book.put(KEYS.message("run.n1", place), b"x", 5)
    assert book.queued["run.n1", place].holder == "i1" and book.queued["run.n1", place].claim_seen == 6
    book.put(KEYS.claim("run.n1", place), Claim("", 1).encode(), 9)
    assert book.queued["run.n1", place].holder == "" and book.news.queues


def test_a_delayed_run_does_not_count_for_overlap() -> None:
    book = Book(KEYS)
    book.put(KEYS.run_wait(RUN), Wait(RUN, "{}", 0, "delay", 0.0, due_at=9e9).encode(), 3)
    assert book.live(JOB) == [] and book.is_live(RUN)


def test_whose_turn_it_is() -> None:
    book = Book(KEYS)
    runs = [f"{JOB}.1.{1700000000 + second}" for second in range(4)]
    place = ids.place(0, 5, runs[0])
    book.put(KEYS.message("run.n1", place), b"x", 3)
    for run in reversed(runs[1:]):  # the same transaction put them all
        book.put(KEYS.run_wait(run), Wait(run, "{}", 0, "overlap", 0.0).encode(), 4)
    assert book.line(JOB) == runs[1:] and sorted(book.live(JOB)) == runs and book.turn(JOB) == ""
    book.news.waits.clear()
    book.drop(KEYS.message("run.n1", place), 5)
    assert book.turn(JOB) == runs[1] and book.news.waits == {runs[1]}
    book.put(KEYS.run_wait(runs[1]), Wait(runs[1], "{}", 0, "no_node", 0.0).encode(), 6)
    assert book.turn(JOB) == "", "it has its turn and looks for a node"
    book.drop(KEYS.run_wait(runs[1]), 7)
    book.drop(KEYS.run_wait(runs[2]), 8)
    assert book.turn(JOB) == runs[3]
    book.drop(KEYS.run_wait(runs[3]), 9)
    assert book.turn(JOB) == "" and book._alive.empty


def test_a_listing_replaces_its_range_only() -> None:
    book = Book(KEYS)
    book.put(KEYS.run_wait(RUN), WAIT, 3)
    book.put(KEYS.session("i1"), b"{}", 4)
    book.put(KEYS.done(JOB), Done(5).encode(), 5)
    book.put(KEYS.run_in("q1"), Request("run", run=RUN, job=JOB).encode(), 30)
    book.replace(f"{KEYS.root}run/", f"{KEYS.root}settled\0", [(KEYS.session("i2"), b"{}", 6, 6)], 20)
    assert not book.waits and book.sessions == {"i2"} and book.jobs[JOB].done == Done(5)
    assert list(book.requests) == ["q1"], "newer than the listing"


def test_a_cursor_that_moves_under_an_unanswered_fire_is_doubted() -> None:
    book = Book(KEYS)
    book.put(KEYS.done(JOB), Done(5).encode(), 5)
    assert not book.news.doubt
    book.jobs[JOB].limbo = True
    book.put(KEYS.done(JOB), Done(6).encode(), 6)
    assert book.news.doubt and not book.jobs[JOB].limbo


def test_an_edit_told_before_what_an_unanswered_fire_did_is_doubted() -> None:
    """Cursor, job and runs come by three watches: the run of that fire may still be unknown when the next is due."""
    book = Book(KEYS)
    book.put(KEYS.done(JOB), Done(5).encode(), 5)
    book.put(KEYS.job(JOB), b"one", 6)
    book.jobs[JOB].limbo = True
    book.put(KEYS.job(JOB), b"two", 8)
    assert book.news.doubt, "the runs are listed anew before anything is decided about it"
    assert not book.jobs[JOB].limbo, "it cannot happen any more: the job that it compares is another one"


def test_garbage_is_kept_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    rng = random.Random(7)
    book = Book(KEYS)
    garbage = [b"", b"\xff\xfe", b"[]", b"null", b'{"v":99}', b'{"v":1,"x":[[[', json.dumps({"v": 1}).encode()]
    keys = [
        KEYS.job(JOB), KEYS.done(JOB), KEYS.session("i"), KEYS.node("n"), KEYS.nodectl("n"), KEYS.cmd("n", RUN),
        KEYS.run_in("q"), KEYS.run_wait("odd"), KEYS.run_wait(RUN), KEYS.message("run.n", "odd.x"),
        KEYS.claim("run.n", "odd.x"),
        KEYS.message("run.n", "nodot"), KEYS.claim("run.n", "nodot"), KEYS.run_acc(RUN),
        KEYS.out(RUN, 1), KEYS.control, KEYS.settled,
        f"{KEYS.root}run/strange", f"{KEYS.root}run/q/", f"{KEYS.root}dead/x/y",
    ]  # fmt: skip
    for revision in range(1, 3000):
        key = rng.choice(keys)
        if rng.random() < 0.3:
            book.drop(key, revision)
        else:
            book.put(key, rng.choice(garbage), revision)
        for item in book.queued.values():
            assert item.sealed == "" and item.target == ""
    for key in keys:
        book.drop(key, 3001)
    assert not book.mods and not book.queued and not book.waits and not book.joins and not book.orders
    assert book._alive.empty


def test_a_node_that_says_nonsense_of_itself_is_ignored() -> None:
    book = Book(KEYS)
    facts = {"name": "n", "incarnation": "i", "queue": "run.n", "hostname": "h", "pid": 1, "boot_id": "", "version": "",
             "capacity": 1, "kinds": ["shell"]}  # fmt: skip
    odd = ({"weight": "9"}, {"weight": True}, {"labels": 5}, {"kinds": [5]}, {"queue": "run.other"}, {"name": "m"})
    for revision, wrong in enumerate(odd, 1):
        book.put(KEYS.node("n"), json.dumps({"v": 1, **facts, **wrong}).encode(), revision)
        assert not book.nodes, wrong
    book.put(KEYS.node("n"), json.dumps({"v": 1, **facts}).encode(), 50)
    assert book.nodes["n"].facts.weight == 100
    book.put(KEYS.nodectl("n"), b'{"v":1,"weight":"x"}', 51)
    assert book.controls["n"][0].cordoned


def test_deletions_are_forgotten_although_something_is_always_under_way() -> None:
    """A leader that is never idle must not remember every run it ever had."""
    place_ = object.__new__(Leader)
    place_._keys, place_._knowledge, place_._mark = KEYS, SimpleNamespace(revisions=[0, 0, 0]), (0, [0, 0, 0])
    book, oldest, lined_up = Book(KEYS), 0, 0
    for revision in range(1, 20_000):
        key = KEYS.run_wait(f"{JOB}.1.{revision}")
        book.put(key, WAIT, 2 * revision)
        book.drop(key, 2 * revision + 1)
        place_._knowledge.revisions = [2 * revision + 1] * 3
        lined_up, oldest = revision + 3, revision
        place_.office = SimpleNamespace(book=book, committer=SimpleNamespace(oldest=oldest, lined_up=lined_up))  # type: ignore[assignment]
        place_._forget()
        assert len(book._graves) < 2100
    late = KEYS.run_wait(f"{JOB}.1.19999")
    book.put(late, WAIT, 2 * 19_999)
    assert not book.waits, "the answer of a batch under way does not bring it back"
