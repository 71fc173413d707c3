"""The counter behind `crony dev --exit-after`: it agrees with an outside oracle, and it finds what is wrong."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from crony.dev.audit import Definition, Facts, count, due, due_between
from crony.domain.fires import fires_between
from crony.domain.schedule import parse_schedule

START = int(datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC).timestamp())


def facts(schedule: dict[str, Any], start: int = START, until: int = START + 60, **more: Any) -> Facts:
    return Facts("job", start, until, [Definition(float("-inf"), True, (schedule,))], **more)


def fired(*instants: int) -> dict[str, Any]:
    runs = {at: {f"j.1.{at}"} for at in instants}
    return {"runs": runs, "ends": {f"j.1.{at}": ["succeeded"] for at in instants}}


def test_all_is_well_when_every_due_second_has_its_run() -> None:
    due_at = [at for at in range(START + 1, START + 61) if at % 10 == 0]
    total = count([facts({"every": "10s"}, **fired(*due_at))])
    assert total.figures() == {
        "fires": 6,
        "dispatched": 6,
        "skipped": 0,
        "succeeded": 6,
        "failed": 0,
        "lost": 0,
        "doubled": 0,
    }
    assert total.notes == []


def test_a_fire_without_run_or_record_is_lost_and_named() -> None:
    due_at = [at for at in range(START + 1, START + 61) if at % 10 == 0]
    total = count([facts({"every": "10s"}, **fired(*due_at[:3], *due_at[4:]))])
    assert (total.lost, total.doubled, total.fires) == (1, 0, 5)
    assert datetime.fromtimestamp(due_at[3], UTC).isoformat() in total.notes[0]


def test_a_recorded_skip_is_no_loss_and_a_range_counts_as_many() -> None:
    due_at = [at for at in range(START + 1, START + 61) if at % 10 == 0]
    skips = [(due_at[1], due_at[3], 3, "misfire")]
    total = count([facts({"every": "10s"}, **fired(due_at[0], *due_at[4:]), skips=skips)])
    assert (total.lost, total.skipped, total.dispatched, total.fires) == (0, 3, 3, 6)


def test_two_runs_of_one_instant_are_doubled() -> None:
    known = fired(START + 10)
    known["runs"][START + 10].add(f"j.2.{START + 10}")
    total = count([facts({"every": "60s", "anchor": _text(START + 10)}, **known)])
    assert (total.doubled, total.lost) == (1, 0)


def test_a_first_attempt_that_ended_twice_is_doubled() -> None:
    total = count([facts({"at": _text(START + 10)}, **fired(START + 10), firsts={f"j.1.{START + 10}": 2})])
    assert total.doubled == 1


def test_a_fire_that_was_not_due_is_named() -> None:
    total = count([facts({"at": _text(START + 10)}, **fired(START + 10, START + 11))])
    assert total.lost == total.doubled == 0
    assert ["not due" in note for note in total.notes] == [True]


def test_paused_seconds_are_not_due_and_their_record_is_no_fire() -> None:
    definitions = [
        Definition(float("-inf"), True, ({"every": "10s"},)),
        Definition(START + 15, False, ({"every": "10s"},)),
        Definition(START + 45, True, ({"every": "10s"},)),
    ]
    due_at = due_between(definitions, START, START + 60)
    assert due_at == [START + 10, START + 50, START + 60]
    known = Facts(
        "job", START, START + 60, definitions, **fired(*due_at), skips=[(START + 20, START + 40, 3, "paused")]
    )
    assert count([known]).figures()["skipped"] == 0


def test_an_edit_decides_the_instants_after_its_second_only() -> None:
    definitions = [
        Definition(float("-inf"), True, ({"every": "10s"},)),
        Definition(START + 10, True, ({"every": "15s"},)),
    ]
    assert due_between(definitions, START, START + 30) == [START + 10, START + 15, START + 30]


def after_end(*fires: int, overs: dict[int, float], **more: Any) -> Facts:
    definitions = [Definition(START, True, ({"every": "10s", "after": "end"},))]
    return Facts("job", START, START + 60, definitions, **fired(*fires), overs=overs, **more)


def test_fires_that_follow_ends_are_judged_by_the_ends_and_it_says_so() -> None:
    overs = {START + 10: START + 14.2, START + 25: START + 25.0, START + 35: START + 61.0}
    total = count([after_end(*overs, overs=overs)])
    assert (total.lost, total.doubled, total.dispatched, total.notes) == (0, 0, 3, [])
    assert total.remarks == ["not known beforehand: the fires of job were judged by the ends they follow"]
    skips = [(START + 10, START + 10, 1, "overlap")]
    total = count([after_end(START + 21, overs={START + 10: START + 10.4}, skips=skips)])
    assert (total.lost, total.dispatched, total.skipped, total.notes) == (0, 1, 1, [])


def test_a_fire_that_follows_no_end_and_an_end_without_a_fire_are_named() -> None:
    overs = {START + 10: START + 14.2}
    total = count([after_end(START + 10, overs=overs)])
    assert total.lost == 1 and _text(START + 25)[:19] in total.notes[0]
    total = count([after_end(START + 10, START + 25, START + 40, overs=overs)])
    assert (total.lost, len(total.notes)) == (0, 1) and "not due" in total.notes[0]


def test_seconds_in_a_pause_of_the_leader_are_not_due() -> None:
    due_at = [at for at in range(START + 1, START + 61) if at % 10 == 0]
    held = [(due_at[1], due_at[3])]
    total = count([facts({"every": "10s"}, **fired(*due_at[:2], *due_at[4:]), held=held)])
    assert (total.lost, total.dispatched, total.notes) == (0, 4, [])
    assert count([facts({"every": "10s"}, **fired(*due_at[:2], *due_at[5:]), held=held)]).lost == 1
    assert "not due" in count([facts({"every": "10s"}, **fired(*due_at), held=held)]).notes[0]


def test_what_it_cannot_read_it_does_not_pass_over() -> None:
    for schedule in ({"cron": "* * * *"}, {"cron": "x * * * *"}, {"every": "5"}, {"every": "soon"}):
        with pytest.raises((ValueError, KeyError)):
            due_between([Definition(0, True, (schedule,))], START, START + 60)


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "America/St_Johns")


def test_it_agrees_with_cronsim_away_from_clock_changes() -> None:
    dice = random.Random(seed := 20261122)
    print("seed", seed)
    for _ in range(60):
        text = _cron(dice)
        zone = ZoneInfo(dice.choice(ZONES))
        start = datetime(
            2026, dice.choice([1, 2, 5, 6, 7, 8, 12]), dice.randint(1, 20), dice.randint(0, 23), tzinfo=zone
        )
        first, last = int(start.timestamp()), int((start + timedelta(hours=30)).timestamp())
        expected, oracle = [], CronSim(text, start - timedelta(seconds=1))
        for moment in oracle:
            if moment.timestamp() > last:
                break
            if moment.timestamp() > first:
                expected.append(int(moment.timestamp()))
        found = [
            at for at in range((first // 60 + 1) * 60, last + 1, 60) if due({"cron": text, "timezone": zone.key}, at)
        ]
        assert found == expected, (text, zone.key, start)


def test_it_agrees_with_the_scheduler_around_clock_changes() -> None:
    dice = random.Random(seed := 7)
    print("seed", seed)
    changes = {
        "Europe/Berlin": [(2026, 3, 29, 1), (2026, 10, 25, 1)],
        "America/New_York": [(2026, 3, 8, 7), (2026, 11, 1, 6)],
        "Australia/Lord_Howe": [(2026, 4, 4, 15), (2026, 10, 3, 15)],
    }
    for zone, moments in changes.items():
        for moment in moments:
            middle = int(datetime(*moment, tzinfo=UTC).timestamp())
            for rule in ("once", "elapsed", "both"):
                texts = ["30 2 * * *", "15 1 * * *", "*/20 * * * *", "0 1-3 * * *", "0,30 2 * * sun", _cron(dice)]
                for text in texts:
                    schedule = {"cron": text, "timezone": zone, "dst": rule}
                    first, last = middle - 4 * 3600, middle + 4 * 3600
                    expected = fires_between((parse_schedule(schedule),), first, last, 10_000)
                    assert [at for at in range(first + 60, last + 1, 60) if due(schedule, at)] == expected, schedule


def test_the_default_rule_follows_the_stars() -> None:
    night = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp())  # 02:30 for the first time in Berlin
    fixed, wild = (
        {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
        {"cron": "30 * * * *", "timezone": "Europe/Berlin"},
    )
    assert [due(fixed, night), due(fixed, night + 3600)] == [True, False]
    assert [due(wild, night), due(wild, night + 3600)] == [True, True]


def test_it_shares_no_code_with_the_scheduler() -> None:
    import crony.dev.audit as module

    text = Path(module.__file__).read_text()
    assert "crony." not in text.replace("crony.dev.ledger", "") and "croniter" not in text


def _text(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _cron(dice: random.Random) -> str:
    def field(low: int, high: int) -> str:
        kind = dice.randrange(5)
        if kind <= 1:
            return "*"
        if kind == 2:
            return f"*/{dice.randint(2, max(2, high // 2))}"
        first = dice.randint(low, high)
        return str(first) if kind == 3 else f"{first}-{dice.randint(first, high)}"

    return " ".join([field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)])


def test_a_schedule_it_cannot_read_is_named_and_not_called_lost() -> None:
    for schedule in ({"cron": "*/5 * * * * *", "dialect": "cron6"}, {"cron": "0 0 L * *"}, {"cron": "H H * * *"}):
        facts = Facts("odd", 0, 20, [Definition(0, True, (schedule,))], {5: {"r1"}, 10: {"r2"}})
        total = count([facts])
        assert (total.lost, total.doubled) == (0, 0)
        assert [note.startswith("not judged: odd") for note in total.notes] == [True]
