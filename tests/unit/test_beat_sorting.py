"""Whose business a key is: everything about a job lies with one shard, and no key is nobody's."""

from __future__ import annotations

import json

import pytest

from crony.beat.book import Book
from crony.beat.sorting import ALL, Sorter
from crony.domain import ids
from crony.domain.backfill import Backfill
from crony.domain.run import Request, Wait
from crony.domain.shards import Part, shard_of
from crony.etcd.keys import Keys

KEYS = Keys("x")


def test_everything_about_a_job_lies_with_one_shard() -> None:
    sorter = Sorter(KEYS, 4)
    seen = set()
    for _ in range(200):
        job = ids.job_id()
        run, shard = ids.fresh_run_id(job, 3), shard_of(job, 4)
        seen.add(shard)
        place = ids.place(0, 5, run)
        keys = [
            KEYS.job(job),
            KEYS.done(job),
            KEYS.run_wait(run),
            KEYS.run_acc(run),
            KEYS.run_beat(run),
            KEYS.out(run, 1),
            KEYS.cmd("n", run),
        ]
        keys += [
            KEYS.claim("run.n", place),
            KEYS.dead("run.n", place),
            KEYS.out(run + ".7", "end"),
            KEYS.run_wait(run + ".7"),
        ]
        assert {sorter.owner(key, b"{}") for key in keys} == {shard} == {sorter.owner(key, None) for key in keys}
        for request in (
            Request("run", run=run, job=job),
            Request("cancel", run=run),
            Request("ended", run=run, job=job),
        ):
            assert sorter.owner(KEYS.run_in("q1"), request.encode()) == shard
        assert sorter.owner(KEYS.backfill("b1"), Backfill("b1", job, "x", 1).encode()) == shard
        assert sum(Part(number, 4).has(job) for number in range(4)) == 1
    assert seen == {0, 1, 2, 3}


def test_a_job_stays_in_its_shard_for_ever() -> None:
    assert [shard_of(job, 4) for job in ("j1", "t2", "j0000abc", "")] == [0, 1, 2, 0]


@pytest.mark.parametrize("value", [b"", b"[]", b'"x"', b"{", json.dumps({"run": None, "job": 7}).encode(), b"\xff"])
def test_what_belongs_to_no_job_is_shard_noughts_or_everybodys(value: bytes) -> None:
    sorter = Sorter(KEYS, 4)
    assert 0 <= sorter.owner(KEYS.run_in("q"), value) < 4
    assert sorter.owner(KEYS.run_in("q"), None) == ALL
    for key in (
        KEYS.settled,
        KEYS.dead("in", "q"),
        KEYS.run_wait("odd"),
        KEYS.claim("run.n", "odd"),
        f"{KEYS.root}dead/x",
    ):
        assert sorter.owner(key, value) == 0
    for key in (KEYS.control, KEYS.node("n"), KEYS.session("i"), KEYS.nodectl("n"), f"{KEYS.run}new/thing"):
        assert sorter.owner(key, value) == ALL


def test_messages_of_other_shards_count_as_load_and_for_nothing_else() -> None:
    job = next(job for job in iter(ids.job_id, "") if shard_of(job, 2) == 1)
    run = ids.fresh_run_id(job, 1)
    key = KEYS.message("run.n", ids.place(0, 5, run))
    mine, other = Book(KEYS, Part(1, 2)), Book(KEYS, Part(0, 2))
    for book in (mine, other):
        book.put(key, b"{}", 5)
        book.put(key, b"{}", 6)  # sealed again
        assert book.load.of("run.n") == 1
    assert mine.is_live(run) and mine.queued and not other.is_live(run) and not other.queued
    for book in (mine, other):
        book.drop(key, 7)
        book.drop(key, 8)
        assert book.load.of("run.n") == 0


def test_outcomes_are_settled_by_shard_nought_only() -> None:
    first, second = Book(KEYS, Part(0, 2)), Book(KEYS, Part(1, 2))
    for book in (first, second):
        book.put(KEYS.out("j1.1.m1", 1), b"{}", 5)
        book.put(KEYS.run_wait("j1.1.m1"), Wait("j1.1.m1", "", 0, "ended", 0.0).encode(), 5)
    key = KEYS.out("j1.1.m1", 1)
    assert first.outs[key] == (5, b"{}") and second.outs[key] == (5, b""), "its value is nobody's business there"


@pytest.mark.parametrize("kind", ["parts", "run", "cancel", "ended"])
def test_what_the_first_leader_puts_for_another_shard_is_not_its_own_to_decide(kind: str) -> None:
    """It takes in what it puts, before it hears of it: an end of a part was taken off there as of no run it knows."""
    keys, mine, other = Keys("x"), Book(Keys("x"), Part(0, 2)), Book(Keys("x"), Part(1, 2))
    job = next(job for job in iter(ids.job_id, "") if shard_of(job, 2) == 1)
    value = Request(kind, run=f"{job}.1.1700000000", job=job, generation=1).encode()
    for book in (mine, other):
        book.put(keys.run_in("p1"), value, 5)
    assert not mine.requests and not mine.ends
    assert len(other.requests) + len(other.ends) == 1
