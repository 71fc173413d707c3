"""The misfire and overlap decision against a plain count of what is due."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import pytest

from crony.beat import policy
from crony.domain.livejob import LiveJob

DONE = 1_700_000_000


def live(**fields: Any) -> LiveJob:
    document = {"name": "a", "action": {"kind": "shell", "command": ["true"]}, **fields}
    return LiveJob.created("j" + "0" * 20, document, now=DONE)


def covered(job: LiveJob, plan: policy.Plan, done: int) -> Counter[int]:
    """How often each instant is accounted for."""
    found = Counter([*plan.fires, *plan.waits, *plan.rest])
    for skip in plan.skips:
        inside = job.due_between(skip.first - 1, skip.last, 10**6)
        assert skip.count == len(inside) and inside[0] == skip.first and inside[-1] == skip.last
        found.update(inside)
    return found


@pytest.mark.parametrize("seed", range(60))
def test_everything_due_is_decided_exactly_once(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    period = rng.choice([1, 1, 2, 7, 60, 61])
    job = live(
        schedule={"every": f"{period}s"},
        overlap=rng.choice(["skip", "allow", "queue_one", "queue_all", "cancel_previous"]),
        overlap_limit=rng.choice([1, 5, 30]),
        misfire={
            "after": f"{rng.choice([1, 5, 30, 60])}s",
            "policy": rng.choice(["fire_once", "fire_all", "skip"]),
            "within": f"{rng.choice([90, 3000, 100_000])}s",
        },
    )
    now = DONE + rng.choice([1, 3, 20, 100, 1000, 30_000]) + rng.random()
    busy = rng.choice(["", "", "run"])
    due = job.due_between(DONE, int(now), 10**6)
    done, seen, rounds = DONE, Counter[int](), 0
    fired: list[int] = []
    most, line, places = rng.choice([1, 3, policy.AT_ONCE]), list[int](), policy.places(job.job)
    while (plan := policy.decide(job, done, now, busy=busy, waiting=len(line), most=most)) is not None:
        rounds += 1
        assert plan.upto > done and rounds < 9000 and len(plan.fires) + len(plan.waits) <= most
        found = covered(job, plan, done)
        assert all(done < instant <= plan.upto for instant in found)
        seen.update(found)
        fired += [*plan.fires, *plan.rest]
        assert not (busy and plan.fires and job.job.overlap != "allow"), "nobody overtakes what is alive"
        line += plan.waits
        done = plan.upto
        if job.job.overlap != "allow" and plan.fires:
            busy = "the one before"
    assert seen == Counter(due)
    misfire, late = job.job.misfire, [instant for instant in due if now - instant > job.job.misfire.after]
    if job.job.overlap == "allow":
        current = due[len(late) :]
        wanted = {
            "skip": current,
            "fire_all": [instant for instant in late if now - instant <= misfire.within] + current,
            "fire_once": current or [instant for instant in late[-1:] if now - instant <= misfire.within],
        }[misfire.policy]
        assert sorted(fired) == wanted
    elif job.job.overlap == "cancel_previous":
        ran = fired + line
        assert ran == sorted(ran) and (not misfire.policy.startswith("fire") or late == due or ran[-1:] == due[-1:])
    else:
        assert len(fired) <= 1 and (not fired or not busy or busy == "the one before")
        assert line == sorted(line) and len(line) <= places and (not fired or not line or fired[0] < line[0])
        if misfire.policy != "fire_once":  # what runs late depends on how far each decision came
            kept = [instant for instant in late if now - instant <= misfire.within]
            wanted = (kept if misfire.policy == "fire_all" else []) + due[len(late) :]
            free = 0 if busy == "run" else 1
            assert [*fired, *line] == wanted[: free + places]


def test_a_pause_that_ended_by_itself_is_recorded_with_the_next_fire() -> None:
    paused = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(DONE + 600))
    job = live(schedule={"every": "60s"}, paused_until=paused)
    first = job.next_due(DONE)
    assert first is not None and DONE + 600 < first <= DONE + 660
    assert policy.decide(job, DONE, first - 0.5) is None
    plan = policy.decide(job, DONE, first + 0.1)
    assert plan is not None and plan.fires == (first,) and plan.upto == first
    (skip,) = plan.skips
    assert (skip.reason, skip.count, skip.last) == ("paused", 10, first - 60)
    assert policy.decide(job, first, first + 60.1).skips == ()  # type: ignore[union-attr]


def test_not_due_is_no_decision() -> None:
    job = live(schedule={"every": "60s"})
    first = job.next_due(DONE)
    assert first is not None
    assert policy.decide(job, DONE, first - 0.001) is None
    assert policy.decide(job, DONE, first) == policy.Plan(first, (first,))
    assert policy.decide(live(), DONE, first) is None and policy.decide(live(enabled=False), DONE, first) is None


def test_a_day_of_seconds_costs_one_record() -> None:
    job = live(schedule={"every": "1s"}, misfire={"after": "60s", "policy": "fire_once", "within": "1h"})
    plan = policy.decide(job, DONE, DONE + 86_400)
    assert plan is not None and len(plan.skips) == 2 and plan.skips[0].count == 86_339
    assert plan.fires == (DONE + 86_340,) and plan.skips[1].reason == "overlap"
