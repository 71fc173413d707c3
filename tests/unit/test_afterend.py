"""A delay after the end: which one instant is known when, and that edits, pauses and odd clocks lose none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crony.beat import policy
from crony.domain import afterend
from crony.domain.job import parse
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.schedule import parse_schedule
from crony.errors import Invalid

DELAY = {"every": "60s", "after": "end"}


def document(schedule: Any = DELAY, **fields: Any) -> dict[str, Any]:
    return {"name": "a/b", "schedule": schedule, "action": {"kind": "shell", "command": ["date"]}, **fields}


def created(schedule: Any = DELAY, now: int = 1000, **fields: Any) -> tuple[LiveJob, Done]:
    return LiveJob.created("j1", document(schedule, **fields), now=now), Done(now)


def due(live: LiveJob, done: Done) -> int | None:
    return afterend.known(live, done).next_due(done.upto_at)


def decided(live: LiveJob, done: Done, now: float, *, busy: str = "") -> tuple[policy.Plan, Done]:
    """As the leader decides."""
    plan = policy.decide(afterend.known(live, done), done.upto_at, now, busy=busy)
    assert plan is not None
    ran = plan.upto in (*plan.fires, *plan.waits)
    return plan, afterend.fired(live, replace(done, upto_at=plan.upto), f"j1.1.{plan.upto}" if ran else "", now)


def test_the_first_fire_comes_a_period_after_the_creation_and_the_next_a_period_after_each_end() -> None:
    live, done = created()
    assert due(live, done) == 1060
    plan, done = decided(live, done, 1060.2)
    assert plan.fires == (1060,) and due(live, done) is None, "while it runs nobody knows"
    ended = afterend.ended(live, done, "j1.1.1060", 1200.3, 1200.9)
    assert ended is not None and due(live, ended) == 1261
    assert afterend.ended(live, ended, "j1.1.1060", 1500.0, 1500.0) is None, "an end counts once"
    assert afterend.ended(live, done, "j1.1.999", 1200.3, 1200.9) is None, "the end of another run is none"


def test_a_fire_that_becomes_no_run_is_followed_a_period_after_the_decision() -> None:
    live, done = created()
    plan, done = decided(live, done, 1061.0, busy="j1.1.m")
    assert not plan.fires and [skip.reason for skip in plan.skips] == ["overlap"]
    assert due(live, done) == 1121
    plan, done = decided(replace_policy(live, "skip"), done, 5000.5)
    assert [(skip.reason, skip.count) for skip in plan.skips] == [("misfire", 1)], "one, however late"
    assert due(live, done) == 5061


def replace_policy(live: LiveJob, policy_name: str) -> LiveJob:
    return live.replace(document=parse({**live.job.document(), "misfire": {"policy": policy_name}}))


def test_clocks_of_nodes_that_are_wrong_neither_lose_a_fire_nor_hurry_it() -> None:
    live, done = created()
    _, done = decided(live, done, 1060.2)
    ahead = afterend.ended(live, done, "j1.1.1060", 9000.0, 1100.0)
    behind = afterend.ended(live, done, "j1.1.1060", 1.0, 1100.0)
    assert ahead is not None and due(live, ahead) == 1160
    assert behind is not None and due(live, behind) == 1120, "it cannot have ended before it began"


def test_an_edit_of_the_schedule_begins_anew_and_an_edit_of_the_action_does_not() -> None:
    live, done = created()
    _, done = decided(live, done, 1060.2)
    other = live.edited(document(timeout="5m"), revision=2, now=1070.0, done=done.upto_at)
    ended = afterend.ended(other, done, "j1.1.1060", 1100.0, 1100.0)
    assert ended is not None and due(other, ended) == 1160
    slower = live.edited(document({"every": "2m", "after": "end"}), revision=2, now=1070.0, done=done.upto_at)
    assert due(slower, done) == 1190
    assert afterend.ended(slower, done, "j1.1.1060", 1100.0, 1100.0) is None, "a run of the old schedule"


def test_an_instant_due_before_the_edit_and_not_decided_is_still_due() -> None:
    live, done = created()
    slower = live.edited(document({"every": "2m", "after": "end"}), revision=2, now=1100.0, done=done.upto_at)
    read = LiveJob.read(slower.encode())
    assert read == slower and due(read, done) == 1060
    plan, after = decided(read, done, 1101.0)
    assert plan.fires == (1060,) and due(read, after) == 1220, "the new one counts from the edit"
    early = live.edited(document({"every": "2m", "after": "end"}), revision=2, now=1050.0, done=done.upto_at)
    assert due(early, done) == 1170, "1060 was not due any more"


def test_a_pause_with_an_end_begins_anew_after_it() -> None:
    live, done = created()
    paused = live.edited(document(paused_until="1970-01-01T01:00:00Z"), revision=2, now=1010.0, done=done.upto_at)
    assert due(paused, done) == 3660


def test_what_passed_its_instant_without_knowing_of_delays_does_not_stop_it() -> None:
    live, done = created()
    held = replace(done, upto_at=1060, next_since=1000, next_at=1060)
    assert due(live, held) == 1120


def test_window_and_calendars_make_it_wait() -> None:
    window = {**DELAY, "start": "1970-01-01T00:30:00Z", "end": "1970-01-01T01:00:00Z"}
    live, done = created(window)
    assert due(live, done) == 1800
    _, done = decided(live, done, 1800.0)
    over = afterend.ended(live, done, "j1.1.1800", 3590.0, 3590.0)
    assert over is not None and due(live, over) is None
    closed = {"name": "night", "periods": [{"start": "1970-01-01T00:00:00Z", "end": "1970-01-01T02:00:00Z"}]}
    live, done = created({**DELAY, "calendars": {"exclude": [closed]}})
    assert due(live, done) == 7200, "as soon as the calendar opens"


def test_the_document() -> None:
    schedule = parse_schedule({"every": "90s", "after": "end"})
    assert schedule.document() == {"every": "1m30s", "timezone": "UTC", "after": "end"}
    assert parse_schedule(schedule.document()) == schedule
    assert schedule.describe() == "1 minute 30 seconds after the end of the run before"
    assert schedule.next(0) is None and schedule.count(0, 10**6) == 0 and list(schedule.walk(0, 10**6)) == []


@pytest.mark.parametrize(
    ("schedule", "field", "says"),
    [
        ({"every": "5m", "after": "start"}, "schedule.after", "end"),
        ({"cron": "* * * * *", "after": "end"}, "schedule.after", "`every`"),
        ({**DELAY, "anchor": "2026-01-01T00:00:00Z"}, "schedule.anchor", "after: end"),
        ({**DELAY, "jitter": "5s"}, "schedule.jitter", "after: end"),
        ({**DELAY, "start": "2026-01-01T00:00:00Z", "count": 3}, "schedule.count", "after: end"),
        ([DELAY, {"every": "5m"}], "schedule[1].after", "other schedules"),
    ],
)
def test_what_does_not_go_together_is_refused(schedule: Any, field: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(document(schedule))
    assert says in str(caught.value)
    assert caught.value.field in (field, "schedule[0].after")
