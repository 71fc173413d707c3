"""Dialects: what their texts mean, day by day by hand; what is refused with which fix; `H` and its id."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.dialects import DIALECTS, cron_of, read
from crony.domain.fires import fires_between, next_fire
from crony.domain.livejob import LiveJob
from crony.domain.schedule import parse_schedule, parse_schedules, resolved
from crony.domain.words import describe
from crony.errors import Invalid


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def days(text: str, dialect: str, after: str = "2026-11-01", count: int = 4) -> list[str]:
    """Dates of the next fires in UTC."""
    found = fires_between(parse_schedules({"cron": text, "dialect": dialect}), at(after) - 1, at("2099-01-01"), count)
    return [datetime.fromtimestamp(fire, UTC).strftime("%Y-%m-%d") for fire in found]


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        ("cron", "0 0 L * *", ["2026-11-30", "2026-12-31", "2027-01-31", "2027-02-28"]),
        ("cron", "0 0 L-3 2 *", ["2027-02-25", "2028-02-26", "2029-02-25", "2030-02-25"]),
        ("cron", "0 0 LW * *", ["2026-11-30", "2026-12-31", "2027-01-29", "2027-02-26"]),
        ("cron", "0 0 L-3W * *", ["2026-11-27", "2026-12-28", "2027-01-28", "2027-02-25"]),
        # 15 November 2026 and 15 August 2027 are Sundays, 15 May 2027 is a Saturday.
        ("cron", "0 0 15W 5,8,11 *", ["2026-11-16", "2027-05-14", "2027-08-16", "2027-11-15"]),
        # A Saturday the 1st may not leave its month, nor may a Sunday the 31st.
        ("cron", "0 0 1W 5 *", ["2027-05-03", "2028-05-01", "2029-05-01", "2030-05-01"]),
        ("cron", "0 0 31W * *", ["2026-12-31", "2027-01-29", "2027-03-31", "2027-05-31"]),
        ("cron", "0 0 * * 5L", ["2026-11-27", "2026-12-25", "2027-01-29", "2027-02-26"]),
        ("cron", "0 0 * * sunL", ["2026-11-29", "2026-12-27", "2027-01-31", "2027-02-28"]),
        ("cron", "0 0 * * 7#5", ["2026-11-29", "2027-01-31", "2027-05-30", "2027-08-29"]),
        ("cron", "0 0 * * fri#2", ["2026-11-13", "2026-12-11", "2027-01-08", "2027-02-12"]),
        ("cron", "0 0 13,L * 5", ["2026-11-06", "2026-11-13", "2026-11-20", "2026-11-27"]),  # either of them
        ("cron", "0 0 L * */5", ["2027-01-31", "2027-02-28", "2027-04-30", "2027-10-31"]),  # both: `*` on one side
        ("cron6", "5 0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29", "2040-02-29"]),
        ("quartz", "0 0 0 ? * 6", ["2026-11-06", "2026-11-13", "2026-11-20", "2026-11-27"]),  # 6 is Friday
        ("quartz", "0 0 0 ? * 6L", ["2026-11-27", "2026-12-25", "2027-01-29", "2027-02-26"]),
        ("quartz", "0 0 0 ? * 6#3", ["2026-11-20", "2026-12-18", "2027-01-15", "2027-02-19"]),
        ("quartz", "0 0 0 ? * L", ["2026-11-07", "2026-11-14", "2026-11-21", "2026-11-28"]),
        ("quartz", "0 0 0 ? * SAT-MON", ["2026-11-01", "2026-11-02", "2026-11-07", "2026-11-08"]),
        ("quartz", "0 0 0 ? * 2/3", ["2026-11-02", "2026-11-05", "2026-11-09", "2026-11-12"]),
        ("quartz", "0 0 0 1 1 ? 2027-2199/100", ["2027-01-01"]),
        ("quartz", "0 0 0 29 2 ? 2199,2096", ["2096-02-29"]),
        ("quartz", "0 0 0 1 NOV-JAN ? *", ["2026-11-01", "2026-12-01", "2027-01-01", "2027-11-01"]),
    ],
)
def test_days(dialect: str, text: str, expected: list[str]) -> None:
    assert days(text, dialect) == expected


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        ("cron6", "*/20 * * * * *", ["00:00:00", "00:00:20", "00:00:40", "00:01:00"]),
        ("cron6", "59 59 23 * * *", ["23:59:59", "23:59:59", "23:59:59", "23:59:59"]),
        ("cron6", "5,50 10 9 * * *", ["09:10:05", "09:10:50", "09:10:05", "09:10:50"]),
        ("quartz", "0 0/25 * * * ?", ["00:00:00", "00:25:00", "00:50:00", "01:00:00"]),
        ("quartz", "10/25 59 22-1 * * ?", ["00:59:10", "00:59:35", "01:59:10", "01:59:35"]),
    ],
)
def test_times(dialect: str, text: str, expected: list[str]) -> None:
    found = fires_between(
        parse_schedules({"cron": text, "dialect": dialect}), at("2026-11-01") - 1, at("2099-01-01"), 4
    )
    assert [datetime.fromtimestamp(fire, UTC).strftime("%H:%M:%S") for fire in found] == expected


REFUSED = [
    ("cron", "0 0 12 * * *", "has 6 fields", "dialect: cron6"),
    ("cron", "0 0 12 * * ?", "has 6 fields", "dialect: quartz"),
    ("cron", "0 0 12 * * * 2027", "has 7 fields", "dialect: quartz"),
    ("cron", "0 0 * * L", "L alone is ambiguous", "friL"),
    ("cron", "L 0 * * *", "minute: `l` means nothing here", "days of the month"),
    ("cron", "0 0 L, * *", "an item of the list is empty", "comma"),
    ("cron", "0 0 32W * *", "32 is not between 1 and 31", "1-31"),
    ("cron", "0 0 L-31 * *", "no month has 31 days before its last", "L-30"),
    ("cron", "0 0 31W 4 *", "never fires", "month"),
    ("cron", "0 0 * * 5#6", "no month has 6 of a weekday", "#5"),
    ("cron", "0 0 * * 8L", "8 is not between 0 and 7", "0-7"),
    ("cron", "H(50-70) * * * *", "is no range of it", "H(0-59)"),
    ("cron", "H/99 * * * *", "does not fit into 0-59", "smaller"),
    ("cron", "H(9 * * * *", "`h(9` means nothing here", "H(0-29)"),
    ("cron6", "* * * * *", "instead of six", "leave `dialect` out"),
    ("cron6", "0 0 12 * * ?", "a `?`, which cron6 does not have", "quartz"),
    ("cron6", "@daily", "has no seconds", "leave `dialect` out"),
    ("cron6", "60 * * * * *", "second: 60 is not between 0 and 59", "0-59"),
    ("cron6", "0 0 0 30 2 *", "never fires", "month"),
    ("quartz", "30 1 * * *", "Quartz has six or seven", "leave `dialect` out"),
    ("quartz", "0 0 12 * * *", "neither day field is `?`", "write 0 0 12 * * ?"),
    ("quartz", "0 0 12 * * 2", "neither day field is `?`", "write 0 0 12 ? * 2"),
    ("quartz", "0 0 12 1 * 2", "neither day field is `?`", "two schedules"),
    ("quartz", "0 0 12 ? * ?", "both day fields are `?`", "write 0 0 12 * * ?"),
    ("quartz", "? 0 12 * * ?", "`?` is for the two day fields", "`*`"),
    ("quartz", "0 0 12 ?,1 * 2", "`?` stands alone", "`?`"),
    ("quartz", "0 0 12 ? * 0", "day of week: 0 is not between 1 and 7", "1-7"),
    ("quartz", "0 0 12 ? * 8", "day of week: 8 is not between 1 and 7", "1-7"),
    ("quartz", "0 0 0 29 2 ? 2027", "never fires", "month"),
    ("quartz", "0 0 0 * * ? 2200", "year: 2200 is not between 1970 and 2199", "1970-2199"),
    ("quartz", "0 0 0 * * ? 2030-2027", "runs backwards", "write"),
    ("quartz", "0 0 0 * * ? H", "H has no meaning for years", "years"),
    ("quartz", "@daily", "is not Quartz", "0 0 0 * * ?"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "text", "why", "fix"), REFUSED)
def test_bad_text_is_refused_with_a_fix(dialect: str, text: str, why: str, fix: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_schedules({"cron": text, "dialect": dialect})
    assert caught.value.field == "schedule.cron"
    assert why in caught.value.problem
    assert fix in caught.value.hint


@given(
    st.sampled_from(DIALECTS),
    st.lists(st.text("0123456789*/-,LWH#?()jant", max_size=6), min_size=4, max_size=8).map(" ".join),
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_and_its_normal_form_is_its_own(dialect: str, text: str) -> None:
    try:
        canonical, hashed = read(text, dialect)
    except Invalid as error:
        assert error.field and error.hint
    else:
        assert read(canonical, dialect) == (canonical, hashed)
        assert describe(cron_of(canonical, dialect))
        assert ("H" in canonical.replace("THU", "").replace("MARCH", "")) == hashed or dialect == "quartz"


@pytest.mark.parametrize(
    ("dialect", "text", "canonical"),
    [
        ("cron", "0  0 lw JAN Mon#1", "0 0 LW jan mon#1"),
        ("cron", "h(0-29)/10 h * * thuL", "H(0-29)/10 H * * thuL"),
        ("cron", "@DAILY", "0 0 * * *"),
        ("cron6", "0 h 1 l-3 * *", "0 H 1 L-3 * *"),
        ("quartz", "0 0 12 ? jan-mar mon-fri", "0 0 12 ? JAN-MAR MON-FRI"),
        ("quartz", "0 0 12 ? * * 2030", "0 0 12 * * ? 2030"),
    ],
)
def test_the_stored_text(dialect: str, text: str, canonical: str) -> None:
    schedule = parse_schedule({"cron": text, "dialect": dialect})
    assert schedule.text == canonical
    assert parse_schedule(schedule.document()) == schedule
    assert schedule.document().get("dialect", "cron") == dialect


def test_a_plain_schedule_says_nothing_of_its_dialect() -> None:
    """Documents that were stored before there were dialects stay equal to what a save writes today."""
    assert parse_schedule({"cron": "0 0 * * *", "dialect": "cron"}).document() == {
        "cron": "0 0 * * *", "timezone": "UTC", "dst": "once"
    }  # fmt: skip


# -- H --------------------------------------------------------------------------------------------


def test_h_is_stable_for_a_job_and_spread_over_jobs() -> None:
    schedule = parse_schedule({"cron": "H H * * *"})
    assert schedule.hashed and schedule.text == "H H * * *"
    # Written down once: a release that moves every hashed job would be noticed here.
    assert [schedule.resolved(job).cron.text for job in ("ja", "jb")] == ["20 17 * * *", "7 7 * * *"]  # type: ignore[union-attr]
    minutes = [parse_schedule({"cron": "H * * * *"}).resolved(f"j{n}").next(0) for n in range(6000)]
    counts = [minutes.count(60 * minute or 3600) for minute in range(60)]
    assert min(counts) > 50 and max(counts) < 160, counts
    assert parse_schedule({"cron": "0 0 * * *"}).resolved("j1") == parse_schedule({"cron": "0 0 * * *"})


@pytest.mark.parametrize(
    ("text", "index", "allowed"),
    [
        ("H(10-12) * * * *", 0, {"10", "11", "12"}),
        ("H/20 * * * *", 0, {f"{start}-59/20" for start in range(20)}),
        ("H(30-34)/2 * * * *", 0, {"30-34/2", "31-34/2"}),
        ("0 0 H * *", 2, {str(day) for day in range(1, 29)}),
        ("0 0 * H *", 3, {str(month) for month in range(1, 13)}),
        ("0 0 * * H", 4, {str(day) for day in range(7)}),
    ],
)
def test_h_takes_every_value_of_its_range_and_no_other(text: str, index: int, allowed: set[str]) -> None:
    assert {cron_of(text, ident=f"j{n}").five()[index] for n in range(400)} == allowed


def test_the_centre_fires_by_the_jobs_id_also_before_an_edit() -> None:
    document = {"name": "a", "action": {"kind": "shell", "script": "true"}, "schedule": {"cron": "H H * * *"}}
    live = LiveJob.created("ja", document, now=0)
    again = LiveJob.read(live.encode())
    for job in (live, again):
        assert next_fire(job.schedules, 0) == job.next_due(0) == (17 * 60 + 20) * 60
    edited = live.edited({**document, "schedule": {"cron": "H 5 * * *"}}, revision=2, now=86400 * 2)
    assert edited.due_between(0, 86400 * 3, 9) == [62400, 62400 + 86400, 2 * 86400 + (5 * 60 + 20) * 60]
    assert LiveJob.read(edited.encode()).due_between(0, 86400 * 3, 9) == edited.due_between(0, 86400 * 3, 9)
    assert LiveJob.created("jb", document, now=0).next_due(0) == (7 * 60 + 7) * 60
    assert live.document and live.document["schedule"]["cron"] == "H H * * *"
    assert resolved(live.job.schedules, "jb")[0].next(0) == (7 * 60 + 7) * 60


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "text", "rule"),
    [
        ("cron", "H/15 2 * * *", "elapsed"),
        ("cron", "H 2 * * *", "once"),
        ("cron", "0 0 L * *", "once"),
        ("cron6", "*/10 30 2 * * *", "once"),
        ("cron6", "0 * 2 * * *", "elapsed"),
        ("quartz", "0 0/5 2 * * ?", "elapsed"),
        ("quartz", "* 30 2 ? * MON", "once"),
        ("quartz", "0 10-40/5 2 ? * MON", "once"),
    ],
)
def test_the_default_rule(dialect: str, text: str, rule: str) -> None:
    assert parse_schedule({"cron": text, "dialect": dialect}).dst == rule


def test_seconds_of_a_gap_are_one_fire_and_seconds_that_come_again_follow_the_rule() -> None:
    zone = {"cron": "*/20 59 1,2 * * *", "dialect": "cron6", "timezone": "America/New_York"}
    for rule, spring, autumn in (("once", 3 + 1, 6), ("elapsed", 3, 9), ("both", 3 + 1, 9)):
        schedule = parse_schedule({**zone, "dst": rule})
        assert len(list(schedule.walk(at("2026-03-08"), at("2026-03-09")))) == spring, rule
        assert schedule.count(at("2026-03-08"), at("2026-03-09")) == spring, rule
        assert len(list(schedule.walk(at("2026-11-01"), at("2026-11-02")))) == autumn, rule
        assert schedule.count(at("2026-11-01"), at("2026-11-02")) == autumn, rule


@pytest.mark.parametrize(("rule", "again"), [("once", None), ("elapsed", 3600), ("both", 3600)])
def test_a_last_label_comes_again_when_clocks_go_back_over_new_year(rule: str, again: int | None) -> None:
    """Dhaka's clocks went from midnight of 1 January 2010 back to 23:00 of the last day of 2009."""
    text = {"cron": "0 30 23 31 12 ? 2009", "dialect": "quartz", "timezone": "Asia/Dhaka", "dst": rule}
    schedule, first = parse_schedule(text), at("2009-12-31T16:30:00")
    assert schedule.next(first - 1) == first
    assert schedule.next(first) == (None if again is None else first + again)
    assert schedule.count(first - 1, first + 10**9) == (1 if again is None else 2)
    assert schedule.next(first + 3600) is None


# -- cost ------------------------------------------------------------------------------------------


def test_counting_a_year_of_seconds_is_as_quick_as_a_day() -> None:
    schedule = parse_schedule({"cron": "* * * ? * MON-FRI 2020-2199", "dialect": "quartz", "timezone": "Europe/Berlin"})
    schedule.count(at("2026-01-01"), at("2036-01-01"))
    started = time.thread_time()
    assert schedule.count(at("2026-01-01"), at("2036-01-01")) > 225_000_000
    assert time.thread_time() - started < 0.5  # a fire at a time would take minutes
