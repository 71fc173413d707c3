"""What narrows or shifts a schedule: which of its instants are due and when, however it is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.dev.audit import due
from crony.domain.fires import count_between, fires_between, last_fire, next_fire
from crony.domain.job import parse
from crony.domain.livejob import LiveJob
from crony.domain.schedule import parse_schedule, parse_schedules
from crony.errors import Invalid

DAY = 86400
IDENT = "j0123456789abcdefghij"
START = int(datetime(2026, 10, 24, tzinfo=UTC).timestamp())  # clocks go back in Europe on the 25th
BASES: tuple[dict[str, Any], ...] = (
    {"cron": "*/20 1-3 * * *", "timezone": "Europe/Berlin"},
    {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "dst": "both"},
    {"every": "1h40m"},
    {"every": "6h", "anchor": "2030-01-01T00:00:07Z"},
)
FAR = st.integers(-DAY, 6 * DAY)


def text(instant: int) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat().replace("+00:00", "Z")


@st.composite
def narrowed(draw: st.DrawFn) -> dict[str, Any]:
    made = dict(draw(st.sampled_from(BASES)))
    start, end = sorted(START + edge * 600 for edge in (draw(st.integers(0, 576)), draw(st.integers(0, 576))))
    if draw(st.booleans()):
        made["start"] = text(start)
        if draw(st.booleans()):
            made["count"] = draw(st.integers(1, 12))
    if end > start and draw(st.booleans()):
        made["end"] = text(end)
    if draw(st.booleans()):
        made["jitter"] = f"{draw(st.integers(1, DAY))}s"
    return made


def let_through(document: dict[str, Any], after: int, until: int) -> list[int]:
    """The instants that are due for the job `IDENT`, from the same schedule without a window."""
    first = int(datetime.fromisoformat(document.get("start", "1970-01-01T00:00:00Z")).timestamp())
    end = int(datetime.fromisoformat(document.get("end", "9000-01-01T00:00:00Z")).timestamp())
    all_of_them = fires_between(parse_schedules(_base(document)), START - 3 * DAY, until, 10_000)
    inside = [at for at in all_of_them if first <= at < end]
    shift = 0
    if "jitter" in document:
        shift = int(sha256(IDENT.encode()).hexdigest()[:16], 16) % (int(document["jitter"][:-1]) + 1)
    return [at + shift for at in inside[: document.get("count")] if after < at + shift <= until]


@given(narrowed(), FAR, FAR)
@settings(max_examples=200, deadline=None)
def test_a_window_takes_a_part_of_the_instants(document: dict[str, Any], after: int, until: int) -> None:
    after, until = START + min(after, until), START + max(after, until)
    parsed = parse_schedules(document)
    wanted, schedules = let_through(document, after, until), tuple(schedule.resolved(IDENT) for schedule in parsed)
    assert fires_between(schedules, after, until, 10_000) == wanted
    assert count_between(schedules, after, until) == len(wanted)
    assert last_fire(schedules, after, until) == (wanted[-1] if wanted else None)
    found = next_fire(schedules, after)
    assert (found if found is not None and found <= until else None) == (wanted[0] if wanted else None)
    assert parse_schedules(schedules[0].document()) == parsed


@given(narrowed())
@settings(max_examples=20, deadline=None)
def test_the_audit_of_crony_dev_agrees(document: dict[str, Any]) -> None:
    document = {name: value for name, value in document.items() if name != "count"}
    schedule = parse_schedule(document).resolved(IDENT)
    wanted = fires_between([schedule], START, START + DAY, 10_000)
    near = {at + aside for at in wanted for aside in (-1, 0, 1)} | set(range(START + 60, START + DAY, 600))
    assert [at for at in sorted(near) if due(document, at, IDENT)] == wanted


def test_the_audit_counts_from_the_start() -> None:
    document = {"every": "10s", "start": text(START + 5), "count": 3}
    assert [at for at in range(START, START + 90) if due(document, at)] == [START + 10, START + 20, START + 30]


def _base(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("start", "end", "count", "jitter")}


def test_the_edges() -> None:
    schedules = parse_schedules({"every": "60s", "start": text(START), "end": text(START + 180)})
    assert fires_between(schedules, 0, START + DAY, 99) == [START, START + 60, START + 120]
    assert next_fire(schedules, START + 120) is None
    # Windows that follow one another share no fire and leave none out.
    after = parse_schedules({"every": "60s", "start": text(START + 180)})
    assert next_fire(after, 0) == START + 180


def test_a_count_of_more_than_there_are_ends_with_the_last() -> None:
    schedules = parse_schedules({"cron": "0 0 29 2 *", "start": "9990-01-01T00:00:00Z", "count": 1000})
    assert count_between(schedules, 0, 2**40) == len(fires_between(schedules, 0, 2**40, 99)) == 2
    none = parse_schedules({"every": "1d", "start": text(START + 1), "end": text(START + 2), "count": 5})
    assert next_fire(none, 0) is None and count_between(none, 0, 2**40) == 0


def test_an_edit_of_the_window_decides_the_instants_after_it() -> None:
    job = {"name": "a", "action": {"kind": "shell", "command": ["true"]}}
    often = {**job, "schedule": {"every": "60s", "start": text(START), "count": 3}}
    live = LiveJob.created("j1", often, now=START - 5)
    assert live.due_between(START - 5, START + DAY, 99) == [START, START + 60, START + 120]
    longer = live.edited({**job, "schedule": {**often["schedule"], "count": 5}}, revision=2, now=START + 70)
    assert longer.due_between(START - 5, START + DAY, 99) == [START + 60 * n for n in range(5)]
    read = LiveJob.read(longer.encode())
    assert read.due_between(START - 5, START + DAY, 99) == [START + 60 * n for n in range(5)]
    shorter = live.edited({**job, "schedule": {**often["schedule"], "count": 1}}, revision=2, now=START + 70)
    assert shorter.due_between(START - 5, START + DAY, 99) == [START, START + 60]


def test_in_words() -> None:
    document = {"cron": "0 2 * * *", "start": "2026-12-01T00:00:00+08:00", "end": "2027-01-01T00:00:00Z", "count": 7}
    said = parse_schedule(document).describe()
    assert said == (
        "at 02:00 every day (UTC), from 2026-12-01T00:00:00+08:00, until 2027-01-01T00:00:00Z, 7 times at most"
    )


def test_a_jitter_spreads_jobs_and_leaves_each_its_rhythm() -> None:
    job = {"name": "a", "schedule": {"every": "60s", "jitter": "90s"}, "action": {"kind": "shell", "command": ["true"]}}
    shifts = set()
    for number in range(200):
        live = LiveJob.created(f"j{number}", job, now=START)
        first, *others = live.due_between(START + 200, START + 500, 99)
        assert others == [first + 60 * n for n in range(1, 5)], "the intervals are exact, the order is kept"
        assert LiveJob.read(live.encode()).due_between(START + 200, START + 500, 99) == [first, *others]
        shifts.add(live.schedules[0].window.shift)  # type: ignore[union-attr]
    assert len(shifts) > 60 and min(shifts) >= 0 and max(shifts) <= 90


def test_an_edit_leaves_the_past_to_the_old_jitter() -> None:
    job = {"name": "a", "action": {"kind": "shell", "command": ["true"]}}
    old, new = ({**job, "schedule": {"every": "60s", "jitter": jitter}} for jitter in ("20s", "45s"))
    live = LiveJob.created(IDENT, old, now=START)
    edited = live.edited(new, revision=2, now=START + 300)
    before, after = (parse_schedules(each["schedule"])[0].resolved(IDENT) for each in (old, new))
    assert before.window != after.window
    wanted = [*before.walk(START, START + 300), *after.walk(START + 300, START + 600)]
    for each in (edited, LiveJob.read(edited.encode())):
        assert each.due_between(START, START + 600, 99) == wanted
    # An edit of something else goes on from where it was.
    assert live.edited({**old, "description": "x"}, revision=2, now=START + 300).replaced == ()


EVERY = {"every": "5m"}


@pytest.mark.parametrize(
    ("document", "field", "why"),
    [
        ({**EVERY, "start": "2026-12-01"}, "schedule.start", "is not an RFC 3339 time"),
        ({**EVERY, "end": "2026-12-01T00:00:00"}, "schedule.end", "has no offset"),
        ({**EVERY, "start": text(START), "end": text(START)}, "schedule.end", "is not later than `start`"),
        ({**EVERY, "count": 3}, "schedule.count", "needs `start`"),
        ({**EVERY, "start": text(START), "count": 0}, "schedule.count", "must be between 1 and 1000"),
        ({**EVERY, "start": text(START), "count": "3"}, "schedule.count", "must be a whole number"),
        ({"at": text(START), "end": text(START)}, "schedule.end", "does not go with `at`"),
        ({**EVERY, "jitter": "0s"}, "schedule.jitter", "must be between 1s and 1d"),
        ({**EVERY, "jitter": 30}, "schedule.jitter", "must be a duration in text"),
        ({**EVERY, "jitter": "1500ms"}, "schedule.jitter", "must be whole seconds"),
        ({"at": text(START), "jitter": "5s"}, "schedule.jitter", "does not go with `at`"),
        ([EVERY, {**EVERY, "count": 3}], "schedule[1].count", "needs `start`"),
    ],
    ids=range(12),
)
def test_what_is_refused(document: object, field: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_schedules(document)
    assert caught.value.field == field and why in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("name", ["start", "end", "count", "jitter", "calendars"])
def test_beside_the_schedule_they_are_refused_with_their_place(name: str) -> None:
    with pytest.raises(Invalid, match="belongs to a schedule"):
        parse({"name": "a", "action": {"kind": "shell", "command": ["true"]}, "schedule": EVERY, name: "5"})


def test_fields_that_are_null_are_not_there() -> None:
    assert parse_schedule({**EVERY, "start": None, "end": None, "count": None, "jitter": None}) == parse_schedule(EVERY)
