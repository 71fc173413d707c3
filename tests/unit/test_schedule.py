"""Schedules: zones, clock changes one by one, intervals, instants, several together, bad input."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain import fires as module
from crony.domain.fires import count_between, fires_between, last_fire, next_fire
from crony.domain.schedule import parse_instant, parse_schedule, parse_schedules
from crony.errors import Invalid


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def local_fires(document: dict[str, str], start: str, end: str) -> list[str]:
    """Fires of the document later than `start`, up to `end`, as local time with offset."""
    zone = ZoneInfo(document.get("timezone", "UTC"))
    fires = fires_between(parse_schedules(document), at(start), at(end), 100)
    return [datetime.fromtimestamp(fire, zone).isoformat(timespec="minutes") for fire in fires]


NEW_YORK = {"timezone": "America/New_York"}


def test_fixed_time_in_the_gap_fires_at_the_first_valid_instant() -> None:
    day = "2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00"
    assert local_fires({"cron": "30 2 * * *", **NEW_YORK}, *day) == ["2026-03-08T03:00-04:00"]
    assert local_fires({"cron": "0,30 2,3 * * *", **NEW_YORK}, *day) == [
        "2026-03-08T03:00-04:00",
        "2026-03-08T03:30-04:00",
    ]
    assert local_fires({"cron": "30 2 * * *", "dst": "elapsed", **NEW_YORK}, *day) == []
    assert local_fires({"cron": "30 2 * * *", "dst": "both", **NEW_YORK}, *day) == ["2026-03-08T03:00-04:00"]


def test_fixed_time_that_comes_twice_fires_at_the_first() -> None:
    day = "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"
    assert local_fires({"cron": "30 1 * * *", **NEW_YORK}, *day) == ["2026-11-01T01:30-04:00"]
    twice = ["2026-11-01T01:30-04:00", "2026-11-01T01:30-05:00"]
    assert local_fires({"cron": "30 1 * * *", "dst": "both", **NEW_YORK}, *day) == twice
    assert local_fires({"cron": "30 1 * * *", "dst": "elapsed", **NEW_YORK}, *day) == twice


def test_wildcards_follow_real_time() -> None:
    spring = fires_between(
        parse_schedules({"cron": "*/30 * * * *", **NEW_YORK}), at("2026-03-08T05:00Z"), at("2026-03-08T09:00Z"), 99
    )
    autumn = fires_between(
        parse_schedules({"cron": "*/30 * * * *", **NEW_YORK}), at("2026-11-01T04:00Z"), at("2026-11-01T08:00Z"), 99
    )
    for fires in (spring, autumn):
        assert len(fires) == 8
        assert {later - earlier for earlier, later in pairwise(fires)} == {1800}


def test_midnight_that_does_not_exist() -> None:
    days = "2026-03-07T12:00:00-05:00", "2026-03-09T12:00:00-04:00"
    assert local_fires({"cron": "@daily", "timezone": "America/Havana"}, *days) == [
        "2026-03-08T01:00-04:00",
        "2026-03-09T00:00-04:00",
    ]


def test_a_day_that_does_not_exist() -> None:
    days = "2011-12-29T12:00:00-10:00", "2012-01-01T00:00:00+14:00"
    assert local_fires({"cron": "0 9 * * *", "timezone": "Pacific/Apia"}, *days) == [
        "2011-12-31T00:00+14:00",  # stands for the 30th
        "2011-12-31T09:00+14:00",
    ]


def test_half_hour_change() -> None:
    days = "2026-04-04T12:00Z", "2026-04-05T12:00Z"
    assert local_fires({"cron": "45 1 * * *", "timezone": "Australia/Lord_Howe"}, *days) == ["2026-04-05T01:45+11:00"]


@pytest.mark.parametrize(
    ("cron", "rule"),
    [
        ("30 2 * * *", "once"),
        ("0,30 1-3 * * 1", "once"),
        ("0-30/10 2 * * *", "once"),
        ("*/5 2 * * *", "elapsed"),
        ("0 */2 * * *", "elapsed"),
        ("5 * * * *", "elapsed"),
    ],
)
def test_default_rule_is_that_of_cron(cron: str, rule: str) -> None:
    assert parse_schedule({"cron": cron}).dst == rule


def test_fires_next_to_after() -> None:
    schedules = parse_schedules({"cron": "0 12 * * *"})
    noon = at("2026-06-01T12:00Z")
    assert next_fire(schedules, noon - 1) == noon
    assert next_fire(schedules, noon) == noon + 86400
    assert fires_between(schedules, noon - 1, noon, 10) == [noon]
    assert fires_between(schedules, noon, noon + 86399, 10) == []
    assert fires_between(schedules, noon - 1, noon + 86400, 1) == [noon]


# -- every, at -------------------------------------------------------------------------------


def test_every_is_anchored_at_the_epoch() -> None:
    schedules = parse_schedules({"every": "5m"})
    assert next_fire(schedules, 1000) == 1200
    assert next_fire(schedules, 1200) == 1500
    assert next_fire(schedules, -7) == 0
    assert count_between(schedules, 0, 3000) == 10


def test_every_with_an_anchor() -> None:
    schedules = parse_schedules({"every": "1d", "anchor": "2026-01-01T09:30:00+08:00"})
    assert fires_between(schedules, at("2026-02-01T00:00+08:00"), at("2026-02-02T23:00+08:00"), 9) == [
        at("2026-02-01T09:30+08:00"),
        at("2026-02-02T09:30+08:00"),
    ]


@given(st.integers(1, 100_000), st.integers(0, 2_000_000_000), st.integers(0, 2_000_000_000), st.integers(0, 500_000))
@settings(max_examples=100, deadline=None)
def test_every_against_its_definition(period: int, anchor: int, after: int, length: int) -> None:
    start = datetime.fromtimestamp(anchor, UTC).isoformat()
    schedules = parse_schedules({"every": f"{period}s", "anchor": start})
    expected = range(after + 1 + (anchor - after - 1) % period, after + length + 1, period)
    assert fires_between(schedules, after, after + length, 50) == list(expected)[:50]
    assert count_between(schedules, after, after + length) == len(expected)
    assert last_fire(schedules, after, after + length) == (expected[-1] if expected else None)


def test_at_fires_once() -> None:
    schedules = parse_schedules({"at": "2026-12-01T09:00:00+08:00"})
    instant = at("2026-12-01T01:00Z")
    assert next_fire(schedules, instant - 1) == instant
    assert next_fire(schedules, instant) is None
    assert schedules[0].document() == {"at": "2026-12-01T09:00:00+08:00", "timezone": "UTC"}


def test_documents_are_their_own_normal_form() -> None:
    for document in (
        {"cron": "@daily", "timezone": "Asia/Shanghai"},
        {"cron": " 0  1 * * MON", "dst": "both"},
        {"every": "90m"},
        {"every": "1d", "anchor": "2026-01-01T00:00:00-05:00"},
        {"at": "2026-12-01T09:00:00Z"},
    ):
        once = parse_schedule(document)
        assert parse_schedule(once.document()) == once
        assert parse_schedule(once.document()).document() == once.document()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"every": "5m"}, "every 5 minutes"),
        ({"every": "1h"}, "every hour"),
        ({"every": "90m"}, "every 1 hour 30 minutes"),
        ({"cron": "30 1 * * *", "timezone": "Asia/Shanghai"}, "at 01:30 every day (Asia/Shanghai)"),
        ({"at": "2026-12-01T09:00:00+08:00"}, "once at 2026-12-01T09:00:00+08:00"),
    ],
)
def test_words(document: dict[str, str], words: str) -> None:
    assert parse_schedule(document).describe() == words


# -- several ------------------------------------------------------------------------------------


def test_two_due_in_the_same_second_are_one_fire() -> None:
    schedules = parse_schedules([{"cron": "0 * * * *"}, {"cron": "*/30 * * * *"}, {"every": "20m"}])
    fires = fires_between(schedules, 0, 7200, 100)
    assert fires == [1200, 1800, 2400, 3600, 4800, 5400, 6000, 7200]
    assert count_between(schedules, 0, 7200) == 8
    assert last_fire(schedules, 0, 7199) == 6000
    assert next_fire(schedules, 1800) == 2400


def test_counting_several_says_when_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COUNT_LIMIT", 10)
    count = count_between(parse_schedules([{"every": "1m"}, {"every": "7m"}]), 0, 3600)
    assert count.capped
    assert str(count) == "60+"
    assert not count_between(parse_schedules({"every": "1s"}), 0, 10**9).capped


def test_no_schedule_never_fires() -> None:
    for nothing in (None, []):
        assert parse_schedules(nothing) == ()
    assert next_fire((), 0) is None
    assert fires_between((), 0, 10**9, 5) == []
    assert count_between((), 0, 10**9) == 0
    assert last_fire((), 0, 10**9) is None


# -- what is refused ------------------------------------------------------------------------------

REFUSED = [
    ("0 0 * * *", "schedule", "must be a mapping"),
    ("none", "schedule", "leave it out for a job run by hand"),
    ({}, "schedule", "exactly one of cron, every, at"),
    ({"cron": "* * * * *", "every": "5m"}, "schedule", "cron and every"),
    ({"corn": "* * * * *"}, "schedule.corn", "did you mean cron"),
    ({"cron": 5}, "schedule.cron", "must be text"),
    ({"cron": "* * * * *", "timezone": "Asia/Atlantis"}, "schedule.timezone", "no time zone is called Asia/Atlantis"),
    ({"cron": "* * * * *", "timezone": "Asia/Shangai"}, "schedule.timezone", "did you mean Asia/Shanghai"),
    ({"cron": "* * * * *", "timezone": "../../x"}, "schedule.timezone", "is not the name of a time zone"),
    ({"cron": "* * * * *", "timezone": "/etc/passwd"}, "schedule.timezone", "is not the name of a time zone"),
    ({"cron": "* * * * *", "timezone": "right/UTC"}, "schedule.timezone", "is not the name of a time zone"),
    ({"cron": "* * * * *", "timezone": "localtime"}, "schedule.timezone", "is not the name of a time zone"),
    ({"cron": "* * * * *", "timezone": "UTC\0"}, "schedule.timezone", "is not the name of a time zone"),
    ({"cron": "* * * * *", "timezone": "EST5EDT"}, "schedule.timezone", "America/New_York"),
    ({"cron": "* * * * *", "timezone": "asia/shanghai"}, "schedule.timezone", "names are written Asia/Shanghai"),
    ({"cron": "* * * * *", "timezone": "utc"}, "schedule.timezone", "UTC"),
    ({"cron": "* * * * *", "timezone": "+08:00"}, "schedule.timezone", "is an offset from UTC"),
    ({"cron": "* * * * *", "timezone": "UTC+8"}, "schedule.timezone", "Etc/GMT-8"),
    ({"cron": "* * * * *", "timezone": "+05:30"}, "schedule.timezone", "write a place, such as Asia/Kolkata"),
    ({"cron": "* * * * *", "timezone": "Europe/Kiew"}, "schedule.timezone", "did you mean Europe/Kiev?"),
    ({"cron": "* * * * *", "timezone": "Asia/Beijing"}, "schedule.timezone", "did you mean Asia/Shanghai?"),
    ({"cron": "* * * * *", "timezone": "New York"}, "schedule.timezone", "did you mean America/New_York?"),
    ({"cron": "* * * * *", "timezone": ""}, "schedule.timezone", "is empty"),
    ({"cron": "* * * * *", "timezone": None}, "schedule.timezone", "is null"),
    ({"cron": "* * * * *", "timezone": 8}, "schedule.timezone", "must be a zone name"),
    ({"cron": "* * * * *", "timezone": "A" * 100_000}, "schedule.timezone", "is not the name of a time zone"),
    ({"cron": "* * * * *", "dst": "sometimes"}, "schedule.dst", "must be one of once, elapsed, both"),
    ({"every": "5m", "dst": "once"}, "schedule.dst", "goes with `cron` only"),
    ({"cron": "* * * * *", "anchor": "2026-01-01T00:00:00Z"}, "schedule.anchor", "goes with `every` only"),
    ({"cron": "* * * * *", "dialect": "quartz"}, "schedule.cron", "Quartz has six or seven"),
    ({"cron": "* * * * *", "dialect": "quarz"}, "schedule.dialect", "did you mean quartz"),
    ({"every": "5m", "dialect": "quartz"}, "schedule.dialect", "goes with `cron` only"),
    ({"every": "0s"}, "schedule.every", "must be between 1s and"),
    ({"every": "1500ms"}, "schedule.every", "must be whole seconds"),
    ({"every": "1ns"}, "schedule.every", "is not a duration"),
    ({"every": "-5m"}, "schedule.every", "is not a duration"),
    ({"every": 300}, "schedule.every", "must be a duration in text"),
    ({"every": "99999999d"}, "schedule.every", "must be between"),
    ({"at": "2026-12-01T09:00:00"}, "schedule.at", "has no offset"),
    ({"at": "2026-12-01"}, "schedule.at", "is not an RFC 3339 time"),
    ({"at": "2026-12-01T24:00:00Z"}, "schedule.at", "hour above 23"),
    ({"at": "2026-12-01T23:59:60Z"}, "schedule.at", "seconds above 59"),
    ({"at": "2026-12-01T23:60:00Z"}, "schedule.at", "minutes"),
    ({"at": "2026-02-30T09:00:00Z"}, "schedule.at", "a day that does not exist"),
    ({"at": "0000-01-01T00:00:00Z"}, "schedule.at", "between the years 1970 and 9998"),
    ({"at": "10000-01-01T00:00:00Z"}, "schedule.at", "is not an RFC 3339 time"),
    ({"at": "1969-01-01T00:00:00Z"}, "schedule.at", "between the years"),
    ({"at": "2026-12-01T09:00:00.5Z"}, "schedule.at", "whole second"),
    ({"at": "2026-12-01T09:00:00+25:00"}, "schedule.at", "impossible offset"),
    ({"at": "２026-12-01T09:00:00Z"}, "schedule.at", "is not an RFC 3339 time"),
    ({"at": 1796000000}, "schedule.at", "must be a time in text"),
    ([{"cron": "0 0 * * *"}, {"cron": "0 25 * * *"}], "schedule[1].cron", "hour: 25"),
    ([{"cron": "0 0 * * *"}, {"cron": "@daily"}], "schedule[1]", "the same as an earlier"),
    ([{"every": "5m"}] * 21, "schedule", "at most 20"),
    (7, "schedule", "must be a mapping"),
]


@pytest.mark.parametrize(("document", "field", "why"), REFUSED, ids=range(len(REFUSED)))
def test_bad_schedules_are_refused(document: object, field: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_schedules(document)
    assert caught.value.field == field
    assert why in str(caught.value)
    assert caught.value.hint


def test_instants() -> None:
    assert parse_instant("2026-12-01T09:00:00+08:00", "at") == (at("2026-12-01T01:00Z"), "2026-12-01T09:00:00+08:00")
    assert parse_instant("2026-12-01t09:00:00.000z", "at")[1] == "2026-12-01T09:00:00Z"


def test_the_next_fire_is_fast() -> None:
    """A leader asks for 100,000 of them: tens of microseconds would do, milliseconds would not."""
    for document in (
        {"cron": "*/5 8-18 * * mon-fri", **NEW_YORK},
        {"cron": "30 2 29 2 *", "timezone": "Europe/Berlin"},
    ):
        schedules = parse_schedules(document)
        moment = at("2026-03-01T00:00Z")
        next_fire(schedules, moment)
        started = time.thread_time()
        for step in range(2000):
            next_fire(schedules, moment + step * 600)
        assert (time.thread_time() - started) / 2000 < 0.0005
