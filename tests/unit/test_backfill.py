"""A backfill as a record: which instants come next in which order, what is counted, and what is refused."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from crony.beat.entries import backfill_of
from crony.clock import rfc3339
from crony.domain import ids
from crony.domain.backfill import MOST, SCHEDULE, Backfill, Stop, planned
from crony.domain.fires import fires_between
from crony.domain.schedule import parse_schedules, resolved
from crony.errors import Invalid

NOW = 2_000_000_000.0


def plan(schedule: Any, start: float, end: float, text: str = "", **changes: Any) -> Backfill:
    schedules = resolved(parse_schedules(schedule), "j1")
    given = {
        "ident": ids.backfill_id(), "job": "j1", "name": "x", "generation": 1, "schedules": schedules,
        "schedule": text or json.dumps(schedule), "start": start, "end": end, "now": NOW,
    }  # fmt: skip
    return planned(**{**given, **changes})


def walked(backfill: Backfill, steps: random.Random) -> list[int]:
    """All its instants, a few at a time, through its stored form."""
    found: list[int] = []
    while taken := backfill.next(steps.randint(1, 7)):
        found += taken
        backfill = Backfill.read(backfill.without(taken).encode())
    assert backfill.left == 0 and backfill.made == backfill.total == len(found)
    return found


SCHEDULES = [
    {"every": "7m"},
    {"cron": "*/13 1-5 * * *", "timezone": "Europe/Berlin"},
    {"cron": "H H * * *"},
    {"every": "1h", "jitter": "10m"},
    [{"every": "30m"}, {"cron": "0 * * * *"}],
    {"at": "2001-09-09T02:00:00Z"},
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_its_instants_are_those_of_the_schedule_in_either_order(schedule: Any) -> None:
    dice = random.Random(seed := 20261128)
    print("seed", seed)
    start, end = 1_000_000_000, 1_000_000_000 + 86400
    expected = fires_between(resolved(parse_schedules(schedule), "j1"), start - 1, end - 1, 10_000)
    assert expected
    assert walked(plan(schedule, start, end), dice) == expected
    assert walked(plan(schedule, start, end, order="newest"), dice) == expected[::-1]


def test_from_is_part_of_it_and_to_is_not() -> None:
    backfill = plan({"every": "1h"}, 3600.0, 7200.0)
    assert (backfill.total, backfill.next(9)) == (1, (3600,))
    assert plan({"every": "1h"}, 3599.5, 7200.5).next(9) == (3600, 7200)


def test_counts_and_states() -> None:
    backfill = plan({"every": "1h"}, 3600, 5 * 3600)
    taken = backfill.next(3)
    after = backfill.without(taken)
    for outcome in ("succeeded", "failed", "cancelled"):
        after = after.told(outcome)
    assert (after.made, after.succeeded, after.failed, after.cancelled, after.alive, after.left) == (3, 1, 1, 1, 0, 1)
    states = [
        {},
        {"stop": "rest"},
        {"stop": "all", "ended_at": 5.0},
        {"reason": "gone", "ended_at": 5.0},
        {"ended_at": 5.0},
    ]
    found = [Backfill.read({**backfill.payload(), **changes}).state for changes in states]
    assert found == ["running", "stopping", "cancelled", "given_up", "done"]
    assert Stop("rest") is Stop.REST


def test_its_runs_are_not_the_fires_of_the_job() -> None:
    backfill = plan({"every": "1h"}, 3600, 7200)
    run = ids.parse_run_id(backfill.run_of(3600))
    assert (run.backfill, run.fire) == (backfill.id, None)
    rest = Backfill(ids.backfill_id(), "j1", "x", 1, "schedule", fires=[3600, 7200])
    assert rest.run_of(3600) == "j1.1.3600" and rest.without(rest.next(1)).fires == [7200]


@pytest.mark.parametrize(
    ("schedule", "changes", "field", "says"),
    [
        (None, {}, "schedule", "by hand only"),
        ({"every": "1h", "after": "end"}, {}, "schedule", "ends of runs"),
        ({"every": "1h"}, {"end": 3600.0}, "to", "not later"),
        ({"every": "1h"}, {"end": 3599.0}, "to", "not later"),
        ({"every": "1h"}, {"start": -7200.0}, "from", "1970"),
        ({"every": "1h"}, {"end": NOW + 1}, "to", rfc3339(int(NOW)) or ""),
        ({"every": "1s"}, {"end": 3601.0 + MOST}, "from", str(MOST)),
        ([{"every": "1s"}, {"every": "2s"}], {"end": 3601.0 + MOST}, "from", str(MOST)),
        ({"cron": "0 0 29 2 *"}, {"end": 7200.0}, "from", "no instant"),
        ({"every": "1h"}, {"text": "x" * (SCHEDULE + 1)}, "schedule", "KiB"),
    ],
)
def test_what_makes_no_backfill_is_refused(schedule: Any, changes: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan(schedule, **{"start": 3600.0, "end": 7200.0, **changes})
    assert caught.value.field == field and says in str(caught.value)


def test_as_many_as_it_may_have() -> None:
    assert plan({"every": "1s"}, 3600.0, 3600.0 + MOST).total == MOST


def test_whoever_writes_a_record_does_not_choose_keys() -> None:
    good = plan({"every": "1h"}, 3600, 7200)
    assert backfill_of(good.id, good.encode()) == good
    for changes in (
        {"id": "b1"}, {"job": "j1/../x"}, {"job": 7}, {"generation": -1}, {"parallel": "9"}, {"after_at": 1.5},
        {"fires": ["x"]}, {"params": []}, {"v": 2}, {"schedule": None}, {"ended_at": "never"},
    ):  # fmt: skip
        assert backfill_of(good.id, json.dumps({**good.payload(), **changes}).encode()) is None, changes
    assert backfill_of("b" + "x" * 21, good.encode()) is None and backfill_of(good.id, b"[]") is None
