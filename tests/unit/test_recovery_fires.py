"""Which fires are unknown after a restore: each due instant is either known or in exactly one record."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from crony.domain.backfill import Backfill, planned
from crony.domain.livejob import LiveJob
from crony.domain.replaced import parsed_schedules
from crony.domain.run import Done
from crony.domain.schedule import resolved
from crony.recovery.backfills import advanced
from crony.recovery.fires import MOST, MOST_GAPS, gaps, lived
from crony.store.recovery import KnownFires, KnownRun

BEGIN = 1_800_000_000
DOCUMENT = {"name": "x", "action": {"kind": "shell", "command": ["true"]}, "schedule": {"every": "7s"}}


def live(**fields: object) -> LiveJob:
    return LiveJob.created("j1", {**DOCUMENT, **fields}, now=BEGIN)


def test_every_due_instant_is_known_or_in_one_record() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(100):
        job, until = live(), BEGIN + chance.randrange(2000)
        due = job.due_between(BEGIN, until, 10**6)
        runs = frozenset(chance.sample(due, chance.randint(0, len(due))) if chance.random() < 0.7 else ())
        skips = tuple((first, first + chance.randrange(100)) for first in chance.sample(due, min(len(due), 2)))
        known = KnownFires(runs, skips)
        found = gaps(job, Done(BEGIN), until, known)
        unknown = [instant for instant in due if not known.has(instant)]
        assert sum(gap.count for gap in found) == len(unknown) and len(found) <= MOST_GAPS
        for instant in unknown:
            assert sum(gap.first <= instant <= gap.last for gap in found) == 1
        if len(found) < MOST_GAPS:
            assert not any(gap.first <= instant <= gap.last for gap in found for instant in due if known.has(instant))
        assert [gap.first for gap in found] == sorted(gap.first for gap in found)


def test_a_year_of_seconds_is_one_record() -> None:
    job, until = live(schedule={"every": "1s"}), BEGIN + 365 * 86400
    found = gaps(job, Done(BEGIN), until, KnownFires())
    assert found[0].first == BEGIN + 1 and found[-1].last == until
    assert sum(gap.count for gap in found[:1]) == MOST and len(found) == 2


def test_what_was_saved_since_decides_about_its_own_time() -> None:
    saves = [
        (2, BEGIN + 100.5, {**DOCUMENT, "enabled": False}),
        (3, BEGIN + 200.0, {"nonsense": 1}),
        (4, BEGIN + 300.0, {**DOCUMENT, "schedule": {"every": "50s"}}),
    ]
    whole = lived(live(), "j1", 1, saves, {}, BEGIN)
    assert whole is not None
    due = whole.due_between(BEGIN, BEGIN + 500, 1000)
    assert due == [t for t in range(BEGIN + 1, BEGIN + 101) if t % 7 == 0] + [
        t for t in range(BEGIN + 301, BEGIN + 501) if t % 50 == 0
    ]
    new = lived(None, "j2", 3, saves[2:], {}, BEGIN + 300)
    assert new is not None and new.generation == 3 and new.due_between(BEGIN, BEGIN + 351, 9)[-1] == BEGIN + 350
    assert lived(None, "j2", 3, saves[1:2], {}, BEGIN) is None


def backfill(**fields: object) -> Backfill:
    text = '{"every": "10s"}'
    made = planned(
        ident="b1", job="j1", name="x", generation=1, schedules=resolved(parsed_schedules(text), "j1"), schedule=text,
        start=BEGIN, end=BEGIN + 100, now=BEGIN + 200,
    )  # fmt: skip
    return replace(made, **fields)  # type: ignore[arg-type]


def known(record: Backfill, *ends: str) -> dict[str, KnownRun]:
    """Its next runs, as the archive has them."""
    return {
        record.run_of(instant): KnownRun(record.run_of(instant), "j1", "x", 1, 1, "backfill", 1, True, end, None, None)
        for instant, end in zip(record.next(100), ends, strict=False)
    }


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_backfill_goes_on_behind_what_it_made_since(order: str) -> None:
    record = backfill(order=order)
    there = known(record, "succeeded", "failed", "cancelled")
    after, skip = advanced(record, once=False, known=lambda ids: {i: there[i] for i in ids if i in there}, now=0.0)
    assert after is not None and skip is None
    assert after.next(100) == record.next(100)[3:]
    assert (after.made, after.succeeded, after.failed, after.cancelled) == (3, 1, 1, 1)
    assert advanced(record, once=False, known=lambda ids: {}, now=0.0) == (record, None)
    later = {i: run for i, run in there.items() if i != record.run_of(record.next(2)[1])}
    after, _ = advanced(record, once=False, known=lambda ids: {i: later[i] for i in ids if i in later}, now=0.0)
    assert after is not None and after.again == [record.next(2)[1]] and after.made == 2
    assert sorted(after.next(100)) == sorted(set(record.next(100)) - {record.next(3)[0], record.next(3)[2]})
    assert after.without(after.next(1)).again == [] and after.without(after.next(3)).next(9) == record.next(100)[5:]
    once, _ = advanced(record, once=True, known=lambda ids: {}, now=0.0)
    assert once is not None and once.stop == "rest" and once.stopped_by == "crony recover"
    over = replace(record, ended_at=5.0)
    assert advanced(over, once=True, known=lambda ids: {}, now=0.0) == (over, None)


def test_the_rest_of_a_fire_all() -> None:
    record = backfill(trigger="schedule", fires=[BEGIN, BEGIN + 10, BEGIN + 20])
    there = known(record, "succeeded")
    after, skip = advanced(record, once=False, known=lambda ids: there, now=0.0)
    assert after is not None and after.fires == [BEGIN + 10, BEGIN + 20] and skip is None
    none, skip = advanced(record, once=True, known=lambda ids: there, now=0.0)
    assert none is None and skip is not None and (skip.fire_at, skip.to_at, skip.count) == (BEGIN + 10, BEGIN + 20, 2)
    every = known(record, "succeeded", "failed", "succeeded")
    assert advanced(record, once=True, known=lambda ids: every, now=0.0) == (None, None)
