"""Calendars: what is in them, and schedules that keep to them, against every second tried one by one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.cli.documents import read_documents
from crony.dev.audit import due
from crony.domain.calendar import Calendar, parse_calendar
from crony.domain.fires import count_between, fires_between, last_fire, next_fire
from crony.domain.livejob import LiveJob
from crony.domain.schedule import parse_schedule, parse_schedules
from crony.errors import Invalid

ROOT = Path(__file__).parents[2]
DAY = 86400
START = int(datetime(2026, 10, 22, tzinfo=UTC).timestamp())  # clocks go back in Europe on the 25th
WORKDAYS = {
    "name": "workdays",
    "weekdays": ["mon", "tue", "wed", "thu", "fri"],
    "include": ["2026-10-24"],
    "exclude": ["2026-10-26..2026-10-27"],
}
FREEZE = {"name": "freeze", "periods": [{"start": "2026-10-23T20:00:00+02:00", "end": "2026-10-24T01:30:00+02:00"}]}
BERLIN = {"timezone": "Europe/Berlin"}


def known(*documents: dict[str, Any]) -> dict[str, Calendar]:
    return {document["name"]: parse_calendar(document) for document in documents}


KNOWN = known(WORKDAYS, FREEZE)


def local_fires(document: dict[str, Any], days: int = 8) -> list[str]:
    schedules = [parse_schedule(document).filled(KNOWN)]
    zone = ZoneInfo(document.get("timezone", "UTC"))
    fires = fires_between(schedules, START, START + days * DAY, 1000)
    return [datetime.fromtimestamp(fire, zone).strftime("%d %H:%M") for fire in fires]


def test_days_are_those_of_the_schedules_zone() -> None:
    daily = {"cron": "30 1 * * *", "calendars": {"include": ["workdays"]}}
    # Of the 22nd (a Thursday) to the 29th: the Saturday is taken in, the Sunday, Monday and Tuesday are out.
    assert local_fires({**daily, **BERLIN}) == ["23 01:30", "24 01:30", "28 01:30", "29 01:30"]
    assert local_fires(daily)[0] == "22 01:30"
    assert local_fires({**daily, "timezone": "Pacific/Kiritimati"})[:3] == ["23 01:30", "24 01:30", "28 01:30"]


def test_a_period_closes_to_the_second() -> None:
    hourly = {"every": "30m", "calendars": {"exclude": ["freeze"]}, **BERLIN}
    assert "23 19:30" in (fires := local_fires(hourly, 3)) and "24 01:30" in fires
    assert not {"23 20:00", "24 00:00", "24 01:00"} & set(fires)


def test_an_excluded_calendar_wins() -> None:
    both = {"every": "6h", "calendars": {"include": ["workdays"], "exclude": ["freeze"]}, **BERLIN}
    assert local_fires(both, 3) == ["22 08:00", "22 14:00", "22 20:00", "23 02:00", "23 08:00", "23 14:00", "24 02:00",
                                    "24 08:00", "24 14:00", "24 20:00"]  # fmt: skip


DATES = st.dates(date(2026, 10, 20), date(2026, 11, 2))
BASES: tuple[dict[str, Any], ...] = (
    {"cron": "*/40 0-3,22 * * *", **BERLIN},
    {"cron": "30 2 * * *", "dst": "both", **BERLIN},
    {"every": "5h", "timezone": "America/St_Johns"},
)


@st.composite
def calendars(draw: st.DrawFn, name: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "weekdays": draw(st.lists(st.sampled_from(["mon", "wed", "sat"]), unique=True)),
    }
    taken = draw(st.lists(DATES, max_size=3, unique=True))
    made["include"] = [day.isoformat() for day in taken]
    made["exclude"] = [day.isoformat() for day in draw(st.lists(DATES, max_size=3)) if day not in taken]
    edges = sorted(draw(st.lists(st.integers(-100, 20_000), min_size=2, max_size=2, unique=True)))
    start, end = (datetime.fromtimestamp(START + 37 * edge, UTC).isoformat() for edge in edges)
    return made | {"periods": [{"start": start, "end": end}]}


@given(st.sampled_from(BASES), calendars("a"), calendars("b"), calendars("c"), st.data())
@settings(max_examples=40, deadline=None)
def test_it_agrees_with_every_instant_looked_at_alone(
    base: dict[str, Any], a: dict[str, Any], b: dict[str, Any], c: dict[str, Any], data: st.DataObject
) -> None:
    named = data.draw(st.sampled_from([{"include": ["a"]}, {"include": ["a", "b"]}, {"exclude": ["a", "b"]},
                                       {"include": ["a"], "exclude": ["c"]}]))  # fmt: skip
    document = {**base, "calendars": named}
    if data.draw(st.booleans()):
        document |= {"start": "2026-10-23T00:00:00Z", "count": 3}
    schedule = parse_schedule(document).filled(known(a, b, c))
    published = schedule.document()
    assert parse_schedule(published) == schedule
    after, until = sorted(START + data.draw(st.integers(0, 9 * DAY)) for _ in range(2))
    # The second opinion is the audit's, which shares no code with the schedule.
    published.pop("count", None)
    every_one = fires_between([parse_schedule(base)], START, until, 9999)
    wanted = [at for at in every_one if due(published, at)][: document.get("count")]
    wanted = [at for at in wanted if at > after]
    assert fires_between([schedule], after, until, 9999) == wanted
    assert count_between([schedule], after, until) == len(wanted)
    assert last_fire([schedule], after, until) == (wanted[-1] if wanted else None)
    found = next_fire([schedule], after)
    assert (found if found is not None and found <= until else None) == (wanted[0] if wanted else None)


def test_a_schedule_that_its_calendars_never_let_through_is_over() -> None:
    never = parse_schedule({"cron": "0 0 * * sun", "calendars": {"include": ["workdays"]}}).filled(
        known({**WORKDAYS, "include": []})
    )
    assert next_fire([never], START) is None and count_between([never], START, START + 999 * DAY) == 0
    often = parse_schedule({"every": "1s", "calendars": {"exclude": ["workdays"]}}).filled(KNOWN)
    assert next_fire([often], START) == START + 3 * DAY, "from the first second of the Sunday on"


def test_a_published_job_needs_nothing_else() -> None:
    job = {"name": "a", "action": {"kind": "shell", "command": ["true"]}}
    document = {**job, "schedule": {"every": "12h", "calendars": {"include": ["workdays"]}}}
    with pytest.raises(Invalid, match="are not there"):
        LiveJob.created("j1", document, now=START).due_between(START, START + DAY, 9)
    schedule = parse_schedules(document["schedule"])[0].filled(KNOWN).document()
    live = LiveJob.read(LiveJob.created("j1", {**job, "schedule": schedule}, now=START).encode())
    sunday = START + 3 * DAY
    assert live.due_between(sunday - 1, sunday + 4 * DAY, 9) == [
        sunday + 3 * DAY,
        sunday + 3 * DAY + DAY // 2,
        sunday + 4 * DAY,
    ]
    # An edited calendar is an edited schedule: what was due before the edit stays due by the old days.
    wider = parse_schedules(document["schedule"])[0].filled(known({**WORKDAYS, "exclude": []})).document()
    edited = live.edited({**job, "schedule": wider}, revision=2, now=sunday + DAY + 60)
    assert edited.due_between(sunday - 1, sunday + 2 * DAY, 9) == [sunday + DAY + DAY // 2, sunday + 2 * DAY]


@pytest.mark.parametrize(
    ("document", "field", "why"),
    [
        ({"weekdays": ["mon"]}, "name", "is not the name of a calendar"),
        ({"name": "A b", "weekdays": ["mon"]}, "name", "is not the name of a calendar"),
        ({"name": "a"}, "weekdays", "leaves the calendar empty"),
        ({"name": "a", "weekdays": ["monday"]}, "weekdays[0]", "is not a day of the week"),
        ({"name": "a", "include": ["2026-02-30"]}, "include[0]", "a day that does not exist"),
        ({"name": "a", "include": ["soon"]}, "include[0]", "is neither a day nor a range"),
        ({"name": "a", "include": [date(2026, 1, 1)]}, "include[0]", "is a date, which YAML made of it"),
        ({"name": "a", "exclude": ["2026-01-02..2026-01-01"]}, "exclude[0]", "ends before it begins"),
        ({"name": "a", "include": ["2026-01-02"], "exclude": ["2026-01-01..2026-01-05"]}, "exclude", "has 2026-01-02"),
        ({"name": "a", "periods": [{"start": "2026-01-01T00:00:00Z"}]}, "periods[0].end", "must be a time in text"),
        ({"name": "a", "periods": [{"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}]},
         "periods[0].end", "is not later than"),
        ({"name": "a", "weekdays": ["mon"], "holidays": []}, "holidays", "is not a known field"),
        ([], "", "must be a mapping"),
    ],
    ids=range(13),
)  # fmt: skip
def test_bad_calendars_are_refused(document: Any, field: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_calendar(document)
    assert caught.value.field == field and why in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("named", "field", "why"),
    [
        ({}, "schedule.calendars", "names no calendar"),
        (["a"], "schedule.calendars", "must be a mapping"),
        ({"include": ["a"], "exclude": ["a"]}, "schedule.calendars", "names a twice"),
        ({"include": ["A!"]}, "schedule.calendars.include[0]", "is not the name"),
        ({"include": "a"}, "schedule.calendars.include", "must be a list"),
        ({"only": ["a"]}, "schedule.calendars.only", "is not a known field"),
    ],
)
def test_bad_names_in_a_schedule_are_refused(named: Any, field: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_schedule({"every": "5m", "calendars": named})
    assert caught.value.field == field and why in str(caught.value)


def test_a_count_counts_what_the_calendars_leave() -> None:
    limited = {"every": "12h", "start": "2026-10-24T00:00:00Z", "count": 3, "calendars": {"include": ["workdays"]}}
    schedule = parse_schedule(limited).filled(KNOWN)
    fires = fires_between([schedule], START, START + 20 * DAY, 99)
    assert [(at - START) / DAY for at in fires] == [2, 2.5, 6], "Saturday twice, then Wednesday"
    assert [at for at in range(START, START + 9 * DAY, DAY // 2) if due(schedule.document(), at)] == fires


def test_the_examples_are_calendars() -> None:
    found = [parse_calendar(document) for document in read_documents(str(ROOT / "examples" / "calendars.yaml"))]
    assert [calendar.name for calendar in found] == ["office-example", "freeze-example"]


def test_a_calendar_is_its_own_normal_form() -> None:
    for document in (WORKDAYS, FREEZE):
        full = parse_calendar(document).document()
        assert parse_calendar(full).document() == full
    assert parse_schedule({"every": "1d", "calendars": {"include": ["a", "b"], "exclude": ["c"]}}).describe() == (
        "every day, in a or b, not in c"
    )
