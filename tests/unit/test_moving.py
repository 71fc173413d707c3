"""Fires of closed days that move to open ones: worked out by hand, and against every second looked at alone."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from crony.catalog.keeping import check_size
from crony.cli.documents import read_documents
from crony.dev.audit import due
from crony.domain.calendar import Calendar, parse_calendar
from crony.domain.explain import marks
from crony.domain.fires import count_between, fires_between, last_fire, next_fire
from crony.domain.job import parse
from crony.domain.lint import advise_calendar
from crony.domain.livejob import LiveJob
from crony.domain.schedule import Schedule, parse_schedule, parse_schedules
from crony.errors import Invalid
from tests.helpers.random_cron import SEED, TIMES

ROOT = Path(__file__).parents[2]
DAY = 86400
EPOCH = date(1970, 1, 1)
ACTION = {"kind": "shell", "command": ["true"]}


def cn_workdays() -> Calendar:
    (document,) = read_documents(str(ROOT / "examples" / "cn-workdays.yaml"))
    return parse_calendar(document)


CN = cn_workdays()


def filled(document: dict[str, Any], *calendars: Calendar) -> Schedule:
    return parse_schedule(document).filled({each.name: each for each in calendars})


def local(schedule: Schedule, start: str, days: int) -> list[str]:
    """Local times of the fires in so many days from the local midnight `start` on."""
    zone = ZoneInfo(schedule.timezone)
    after = int(datetime.fromisoformat(start).replace(tzinfo=zone).timestamp()) - 1
    fires = fires_between([schedule], after, after + days * DAY, 999)
    return [datetime.fromtimestamp(fire, zone).strftime("%m-%d %H:%M") for fire in fires]


def china(cron: str, closed: str = "next", **more: Any) -> Schedule:
    calendars = {"include": ["cn-workdays"], "closed": closed}
    return filled({"cron": cron, "timezone": "Asia/Shanghai", "calendars": calendars, **more}, CN)


# -- by hand ---------------------------------------------------------------------------------


def test_salaries_of_the_15th_and_rents_of_the_1st() -> None:
    """National Day 2026: 1 to 7 October are off, Saturday the 10th is worked."""
    assert local(china("0 9 1 * *"), "2026-09-15", 60) == ["10-08 09:00", "11-02 09:00"]
    assert local(china("0 9 1 * *", "previous"), "2026-09-15", 60) == ["09-30 09:00", "10-30 09:00"]
    assert local(china("0 9 1 * *", "skip"), "2026-09-15", 100) == ["12-01 09:00"]
    assert local(china("0 9 10 * *"), "2026-10-01", 31) == ["10-10 09:00"], "a Saturday that is worked stays"


def test_two_that_move_to_the_same_second_are_one() -> None:
    daily = china("30 17,18 * * *")
    assert local(daily, "2026-10-01", 9) == ["10-08 17:30", "10-08 18:30", "10-09 17:30", "10-09 18:30"]
    after = int(datetime(2026, 9, 30, 16, tzinfo=UTC).timestamp())
    assert count_between([daily], after, after + 9 * DAY) == 4 == count_between([daily, daily], after, after + 9 * DAY)


def test_nothing_moves_further_than_a_month() -> None:
    closed = parse_calendar({"name": "shop", "include": ["2026-01-31", "2026-03-03", "2026-04-05"]})
    monthly = filled({"cron": "0 0 31 * *", "calendars": {"include": ["shop"], "closed": "next"}}, closed)
    assert local(monthly, "2026-01-01", 200) == ["01-31 00:00", "04-05 00:00"], "31 May has no open day after it"
    for text, closes, expected in (
        ("0 0 31 1 *", "next", ["01-31 00:00"]), ("0 0 1 2 *", "next", ["03-03 00:00"]),
        ("0 0 30 1 *", "next", ["01-31 00:00"]), ("0 0 5 3 *", "next", ["04-05 00:00"]),
        ("0 0 4 3 *", "next", []), ("0 0 3 4 *", "previous", ["03-03 00:00"]), ("0 0 4 4 *", "previous", []),
    ):  # fmt: skip
        yearly = filled({"cron": text, "calendars": {"include": ["shop"], "closed": closes}}, closed)
        assert local(yearly, "2026-01-01", 360) == expected, (text, closes)
    for never in ("next", "previous"):
        over = filled({"cron": "0 0 * * *", "calendars": {"include": ["shop"], "closed": never}}, closed)
        assert over.next(int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())) is None


def test_window_count_and_jitter_come_after_the_move() -> None:
    limited = china("0 9 1 * *", start="2026-10-05T00:00:00+08:00", count=2, jitter="1h")
    resolved = limited.resolved("j1")
    assert resolved.window is not None and resolved.window.shift > 0
    found = fires_between([resolved], 0, 2**40, 9)
    assert [at - resolved.window.shift for at in found] == [
        int(datetime(2026, 10, 8, 1, tzinfo=UTC).timestamp()),
        int(datetime(2026, 11, 2, 1, tzinfo=UTC).timestamp()),
    ]


def test_clock_changes_are_those_of_the_day_it_moved_to() -> None:
    """Sunday 29 March 2026 has no 02:30 in Berlin; here it is the open day, and Saturday is closed."""
    sundays = parse_calendar({"name": "sundays", "weekdays": ["sun"]})
    document = {"cron": "30 2 * * sat", "timezone": "Europe/Berlin", "calendars": {"include": ["sundays"]}}
    for rule, expected in (("once", ["03-29 03:00", "04-05 02:30"]), ("elapsed", ["04-05 02:30"])):
        moved = filled({**document, "dst": rule, "calendars": {"include": ["sundays"], "closed": "next"}}, sundays)
        assert local(moved, "2026-03-28", 9) == expected
    autumn = filled({**document, "dst": "both", "calendars": {"include": ["sundays"], "closed": "next"}}, sundays)
    assert local(autumn, "2026-10-24", 5) == ["10-25 02:30", "10-25 02:30"]


def test_other_dialects_move_as_well() -> None:
    last_friday = china("15 0 18 ? * 6L", dialect="quartz")
    assert local(last_friday, "2026-09-20", 45) == ["09-28 18:00", "10-30 18:00"], "25 September is Mid-Autumn"
    hashed = china("H H 1 * *").resolved("j0123456789abcdefghij")
    assert [text[:5] for text in local(hashed, "2026-09-15", 60)] == ["10-08", "11-02"]


def test_a_period_of_an_excluded_calendar_still_closes_to_the_second() -> None:
    freeze = parse_calendar(
        {"name": "freeze", "periods": [{"start": "2026-10-08T08:00:00+08:00", "end": "2026-10-08T09:30:00+08:00"}]}
    )
    document = {"cron": "0 9,10 1 * *", "timezone": "Asia/Shanghai",
                "calendars": {"include": ["cn-workdays"], "exclude": ["freeze"], "closed": "next"}}  # fmt: skip
    assert local(filled(document, CN, freeze), "2026-10-01", 30) == ["10-08 10:00"]


def test_the_preview_says_where_a_fire_came_from_and_why_it_was_not_due() -> None:
    schedule = china("0 9 1 * *")
    moved = int(datetime(2026, 10, 8, 1, tzinfo=UTC).timestamp())
    (mark,) = marks([schedule], moved - DAY, moved)
    assert mark == ("moved", "moved here from 2026-10-01, a closed day")
    assert schedule.kept_out(moved - 7 * DAY) == (True, (date(2026, 10, 8) - EPOCH).days)
    assert schedule.kept_out(moved) == (False, None) == schedule.kept_out(moved - DAY)
    assert china("0 9 1 * *", "skip").kept_out(moved - 7 * DAY) == (True, None)
    assert schedule.describe() == (
        "at 09:00 on day 1 of the month (Asia/Shanghai), in cn-workdays, closed days move to the next open one"
    )


def test_an_edit_between_a_closed_day_and_where_its_fire_moved_makes_it_come_once() -> None:
    """1 October is closed: it moves to the 8th, or to 30 September."""

    def job(closed: str, **more: Any) -> dict[str, Any]:
        return {"name": "a", "action": ACTION, "schedule": china("0 9 1 * *", closed, **more).document()}

    def due(*closed: str) -> list[int]:
        live, at = LiveJob.created("j1", job(closed[0]), now=third), saturday
        for number, each in enumerate(closed[1:], 2):
            live, at = live.edited(job(each), revision=number, now=at), at + DAY
        found = live.due_between(third, eighth, 9)
        copy = LiveJob.read(live.encode())
        assert copy == live and copy.due_between(third, eighth, 9) == found
        assert live.count(third, eighth) == len(found) and live.last_due(third, eighth) == (found or [None])[-1]
        return [datetime.fromtimestamp(at, UTC).day for at in found]

    saturday = int(datetime(2026, 10, 3, tzinfo=UTC).timestamp())
    third, eighth = saturday - 5 * DAY, saturday + 7 * DAY
    assert due("skip", "next") == [8], "nothing became of it yet"
    assert due("previous", "next") == [30] == due("previous", "next", "skip", "next"), "it was there already"
    assert due("next", "skip") == [8] == due("next", "previous", "skip", "previous"), "it was promised for that day"
    assert due("next", "skip", "next") == [8] == due("next", "skip", "previous", "next")


def test_whatever_is_edited_in_the_middle_each_fire_comes_once() -> None:
    """Fires that can be told apart by their minute: with every edit each comes once, or not at all where none moves."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    begin = int(datetime(2027, 3, 1, tzinfo=UTC).timestamp())
    for _ in range(25):
        zone, shut = chance.choice(["UTC", "Europe/Berlin", "Pacific/Apia"]), chance.random() * 0.8
        days = [f"2027-{day:%m-%d}" for n in range(-40, 80) if (day := date(2027, 3, 1) + timedelta(n))]

        def saved(
            zone: str = zone, days: list[str] = days, shut: float = shut, kinds: Any = ("next", "previous")
        ) -> dict[str, Any]:
            off = [day for day in days if chance.random() < shut]
            calendars = {"exclude": [{"name": "off", "revision": 1, "include": off or ["2001-01-01"]}],
                         "closed": chance.choice(kinds)}  # fmt: skip
            return {"name": "a", "action": ACTION, "schedule": [
                {"cron": f"{day} 9 {day} 3 *", "timezone": zone, "calendars": calendars} for day in range(3, 21, 3)
            ]}  # fmt: skip

        kinds = ("next", "previous", "skip") if chance.random() < 0.3 else ("next", "previous")
        live = LiveJob.created("j1", saved(kinds=kinds), now=begin - 40 * DAY)
        at = begin - 30 * DAY
        for revision in range(2, chance.randint(3, 7)):
            at += chance.randrange(20 * DAY)
            live = live.edited(saved(kinds=kinds), revision=revision, now=at)
            if chance.random() < 0.3:
                live = LiveJob.read(live.encode())
        first, last = begin - 40 * DAY, begin + 80 * DAY
        due = live.due_between(first, last, 999)
        times = [datetime.fromtimestamp(t, ZoneInfo(zone)).minute for t in due]
        if len(kinds) == 2:
            assert sorted(times) == list(range(3, 21, 3)), (seed, live.crossed)
        assert len(set(times)) == len(times), (seed, live.crossed)
        one_by_one, t = [], live.next_due(first)
        while t is not None and t <= last:
            one_by_one.append(t)
            t = live.next_due(t)
        assert one_by_one == due
        middle = chance.randrange(first, last)
        assert live.last_due(first, middle) == max((t for t in due if t <= middle), default=None)


def test_an_edit_of_days_that_have_passed_is_warned_of() -> None:
    noon = datetime(2026, 10, 5, 12, tzinfo=UTC).timestamp()
    document = CN.document()
    later = parse_calendar({**document, "exclude": [*document["exclude"], "2026-12-31"]})
    past = parse_calendar({**document, "exclude": [*document["exclude"], "2026-09-30"]})
    assert advise_calendar(CN, later, noon) == []
    (found,) = advise_calendar(CN, past, noon)
    assert found.code == "past_days" and "2026-09-30" in found.problem


@pytest.mark.parametrize(
    ("schedule", "field", "why"),
    [
        ({"every": "1d", "calendars": {"include": ["a"], "closed": "next"}}, "schedule.calendars.closed", "no time"),
        ({"cron": "0 9 * * *", "calendars": {"include": ["a"], "closed": "after"}}, "schedule.calendars.closed",
         "must be one of skip, next, previous"),
        ({"cron": "0 9 * * *", "calendars": {"closed": "next"}}, "schedule.calendars", "names no calendar"),
    ],
)  # fmt: skip
def test_what_cannot_move_is_refused(schedule: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_schedules(schedule)
    assert caught.value.field == field and why in str(caught.value) and caught.value.hint


def test_a_calendar_that_opens_hours_cannot_tell_which_days_are_closed() -> None:
    hours = parse_calendar({"name": "a", "periods": [{"start": "2026-01-01T08:00:00Z", "end": "2026-01-01T12:00:00Z"}]})
    for closed, refused in (("next", True), ("skip", False)):
        calendars = {"include": ["a"], "closed": closed}
        job = parse({"name": "a", "action": ACTION, "schedule": {"cron": "0 9 * * *", "calendars": calendars}})
        if refused:
            with pytest.raises(Invalid, match="moves whole days"):
                check_size(job, {"a": hours}, {})
        else:
            check_size(job, {"a": hours}, {})


# -- the example -----------------------------------------------------------------------------


def test_the_working_days_of_2026_are_those_of_the_notice() -> None:
    """Typed from the State Council's notice, day by day and apart from the file; 248 days are worked."""
    off = {(1, d) for d in (1, 2, 3)} | {(2, d) for d in range(15, 24)} | {(4, d) for d in (4, 5, 6)}
    off |= {(5, d) for d in range(1, 6)} | {(6, d) for d in (19, 20, 21)} | {(9, d) for d in (25, 26, 27)}
    off |= {(10, d) for d in range(1, 8)}
    worked = {(1, 4), (2, 14), (2, 28), (5, 9), (9, 20), (10, 10)}
    total = 0
    for ordinal in range(date(2026, 1, 1).toordinal(), date(2027, 1, 1).toordinal()):
        day = date.fromordinal(ordinal)
        place = day.month, day.day
        expected = place in worked or (day.weekday() < 5 and place not in off)
        assert CN.has_day((day - EPOCH).days) == expected, day
        total += expected
    assert total == 248
    text = (ROOT / "examples" / "cn-workdays.yaml").read_text(encoding="utf-8")
    assert "NOT complete" in text and "not complete" in CN.description, "2027 is what the law says, and no more"


# -- at random -------------------------------------------------------------------------------

START = int(datetime(2026, 10, 12, tzinfo=UTC).timestamp())  # clocks go back in Europe on the 25th


def random_calendar(rng: random.Random, name: str) -> dict[str, Any]:
    days = [(date(2026, 9, 20) + timedelta(days=n)).isoformat() for n in range(60)]
    include = sorted(rng.sample(days, rng.choice((0, 2, 5))))
    exclude = sorted(set(rng.sample(days, rng.choice((0, 3, 20)))) - set(include))
    weekdays = rng.sample(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], rng.randint(0, 5))
    if not weekdays and not include:
        weekdays = ["tue"]
    return {"name": name, "weekdays": weekdays, "include": include, "exclude": exclude}


def test_it_agrees_with_every_second_looked_at_alone() -> None:
    """The second opinion is the audit's: it asks of one second after the other and shares no code with the schedule."""
    print(f"seed {SEED}")
    rng, checked = random.Random(f"{SEED}moving"), 0
    for _ in range(40 * TIMES):
        days = rng.choice(("* *", "* *", "1,13,25 *", "*/5 *"))
        text = f"{rng.choice(('0', '30', '0,45'))} {rng.choice(('0', '2', '1,23'))} {days} {rng.choice('***15')}"
        document: dict[str, Any] = {"cron": text, "timezone": rng.choice(("UTC", "Europe/Berlin", "Asia/Kathmandu"))}
        document["dst"] = rng.choice(("once", "elapsed", "both"))
        named: dict[str, Any] = {"closed": rng.choice(("next", "previous"))}
        named |= rng.choice(({"include": ["a"]}, {"include": ["a", "b"]}, {"exclude": ["b"]},
                             {"include": ["a"], "exclude": ["b"]}))  # fmt: skip
        if rng.random() < 0.3:
            document["start"] = "2026-10-15T00:00:00Z"
        if rng.random() < 0.3:
            document["jitter"] = "15m"
        schedule = filled({**document, "calendars": named}, *(parse_calendar(random_calendar(rng, n)) for n in "ab"))
        published = schedule.document()
        schedule = schedule.resolved("j7")
        assert parse_schedule(published).resolved("j7") == schedule
        shift = schedule.window.shift if schedule.window else 0
        after = START + rng.randint(0, 3 * DAY)
        until = after + rng.randint(1, 18 * DAY)
        wanted = [at for at in range(after + 1 + (shift - after - 1) % 900, until + 1, 900) if due(published, at, "j7")]
        where = (SEED, published, after, until)
        assert fires_between([schedule], after, until, 9999) == wanted, where
        assert count_between([schedule], after, until) == len(wanted), where
        assert last_fire([schedule], after, until) == (wanted[-1] if wanted else None), where
        for probe in (after, *rng.sample(wanted, min(3, len(wanted)))):
            later = next((at for at in wanted if at > probe), None)
            found = next_fire([schedule], probe)
            assert (found if found is not None and found <= until else None) == later, (*where, probe)
        checked += len(wanted)
    assert checked > 60 * TIMES
