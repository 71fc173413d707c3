"""Cron text: what is accepted, what it means, and what is refused with which words."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.cron import Cron, parse_cron
from crony.domain.crontext import MACROS
from crony.domain.dialects import read
from crony.domain.words import describe
from crony.errors import Invalid


def bits(mask: int) -> set[int]:
    return {bit for bit in range(mask.bit_length()) if mask >> bit & 1}


REFUSED = [
    ("", "is empty"),
    (" ", "is empty"),
    ("\t", "is empty"),
    ("\n \n", "is empty"),
    ("* * * *", "has 4 fields instead of five"),
    ("*", "has one field instead of five"),
    ("* * * * * * * *", "has 8 fields instead of five"),
    ("0 0 12 * * *", "has 6 fields"),
    ("0 0 12 * * * 2027", "has 7 fields"),
    ("60 * * * *", "minute: 60 is not between 0 and 59"),
    ("* 24 * * *", "hour: 24 is not between 0 and 23"),
    ("* * 0 * *", "day of month: 0 is not between 1 and 31"),
    ("* * * 13 *", "month: 13 is not between 1 and 12"),
    ("* * * * 8", "day of week: 8 is not between 0 and 7"),
    ("9999 * * * *", "minute: 9999 is not between"),
    ("*/0 * * * *", "a step must be at least 1"),
    ("*/-1 * * * *", "cannot be read"),
    ("-5 * * * *", "cannot be read"),
    ("5-1 * * * *", "`5-1` runs backwards"),
    ("0 0 * * fri-mon", "`fri-mon` runs backwards"),
    ("1-5/0 * * * *", "a step must be at least 1"),
    ("5/15 * * * *", "a step needs a range"),
    ("*/90 * * * *", "a step of 90 is longer than the field itself"),
    ("1,,2 * * * *", "an item of the list is empty"),
    ("1,2, * * * *", "an item of the list is empty"),
    (",1 * * * *", "an item of the list is empty"),
    ("0 0 30 2 *", "never fires"),
    ("0 0 31 2,4,6,9,11 *", "never fires"),
    ("@reboot", "@reboot has no meaning on a cluster"),
    ("@every 0s", "@every is not cron"),
    ("@every 1ns", "@every is not cron"),
    ("@fortnightly", "is not a macro Crony knows"),
    ("٣ * * * *", "outside ASCII"),
    ("＊ * * * *", "outside ASCII"),
    ("1\u200d * * * *", "outside ASCII"),
    ("1\0 * * * *", "control character"),
    ("0 0 * * *\n0 1 * * *", "line break"),
    ("0 0\x0b* * *", "control character"),
    ("TZ=Europe/Berlin 0 0 * * *", "carries a time zone"),
    ("CRON_TZ=Europe/Berlin 0 0 * * *", "carries a time zone"),
    ("${7*7} * * * *", "cannot be read"),
    ("{{7*7}} * * * *", "cannot be read"),
    ("{{ 7 * 7 }} * * * *", "fields"),
    ("0 0 ? * *", "`?` belongs to Quartz"),
    ("0 0 L * *", "`l` means nothing here"),
    ("0 0 15W * *", "`15w` means nothing here"),
    ("0 0 LW * *", "`lw` means nothing here"),
    ("0 0 * * 5#2", "`5#2` means nothing here"),
    ("0 0 * * 5L", "`5l` means nothing here"),
    ("H H * * *", "`h` means nothing here"),
    ("0 0 * * monday", "`monday` is not how a name is written"),
    ("0 0 * foo *", "`foo` is not a name it knows"),
    ("jan * * * *", "`jan` is not a name it knows"),
    ("1.5 * * * *", "cannot be read"),
    ("0x5 * * * *", "cannot be read"),
    ("1--5 * * * *", "cannot be read"),
    ("1-5-7 * * * *", "cannot be read"),
    ("*/5/5 * * * *", "cannot be read"),
    ("** * * * *", "cannot be read"),
    ("*-5 * * * *", "cannot be read"),
    ("0 0 * * *" + " " * 600 + "x", "longer than 512"),
    ("0" * 100_000 + " * * * *", "longer than 512"),
    (",".join("1" * 10_000) + " * * * *", "longer than 512"),
    (" ".join(["1-2/3,"] * 20_000), "longer than 512"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=range(len(REFUSED)))
def test_bad_text_is_refused_quickly_in_one_sentence(text: str, why: str) -> None:
    started = time.thread_time()
    with pytest.raises(Invalid) as caught:
        parse_cron(text, "schedule.cron")
    assert time.thread_time() - started < 0.02  # of this thread: 10 ms, and some for a busy machine
    error = caught.value
    assert error.field == "schedule.cron"
    assert why in str(error)
    assert error.hint, "says what to write instead"
    assert "\n" not in str(error)
    assert len(str(error)) < 400


@given(st.text("0123456789*/-, \tabcjmnsu@L#{}$?\0\n＊٣\u200d\ud800é", max_size=40) | st.text("0123* /-,", max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        cron = parse_cron(text)
    except Invalid as error:
        assert error.field and error.hint
    else:
        assert parse_cron(cron.text) is cron, "its canonical text is its own"
        assert describe(cron)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("0 9 * * 1-5 root", "write 0 9 * * 1-5, and the command into `action`"),
        ("*/5 * * * * /usr/bin/python3 -m a b c d", "write */5 * * * *, and the command into `action`"),
        ("@daily /usr/bin/true", "use @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly"),
        ("0 0 9 * * monday", "add `dialect: cron6` (seconds first), or write minute hour day month weekday"),
        ("0 0 9 ? * MON-FRI", "add `dialect: quartz` (Quartz), or write minute hour day month weekday"),
        ("0 9 * * monday-friday", "write mon-fri"),
        ("0 9 1 january *", "write jan"),
        ("0 9 * * 周一", "write weekdays as mon to sun, months as jan to dec, all else in plain digits"),
        ("0 9 * * 7-2", "write 0-2"),
        ("0 9 * * sat-mon", "write 6-7,0-1"),
        ("0 9 31-2 * *", "write 31,1-2"),
        ("0 9 * 12-1 *", "write 12,1"),
        ("9:30", "write 30 9 * * *"),
        ("0 0 WL * *", "write LW"),
        ("0 0 LW-3 * *", "write L-3W"),
    ],
)
def test_what_people_write_is_answered_with_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(text)
    assert caught.value.hint == hint
    if hint.startswith("write ") and not hint.startswith("write weekdays"):
        fixed = hint.removeprefix("write ").split(", and")[0]
        old = text.split()
        fields = fixed.split()
        if len(fields) == 1:
            bad = next(n for n, part in enumerate(old) if part.lower() in str(caught.value).lower() and len(part) > 1)
            fields = [fixed if n == bad else part for n, part in enumerate(old)]
        read(" ".join(fields))


@pytest.mark.parametrize(("macro", "text"), MACROS.items())
def test_macros(macro: str, text: str) -> None:
    assert parse_cron(macro.upper()).text == text


def test_names_lists_ranges_and_steps() -> None:
    cron = parse_cron("0,30-34,*/20  1-7/3 1,15 JAN,mar-May sun,TUE,5-7")
    assert bits(cron.minutes) == {0, 20, 30, 31, 32, 33, 34, 40}
    assert bits(cron.hours) == {1, 4, 7}
    assert bits(cron.days) == {1, 15}
    assert bits(cron.months) == {1, 3, 4, 5}
    assert bits(cron.weekdays) == {0, 2, 5, 6}


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("7", {0}),
        ("0", {0}),
        ("0-7", {0, 1, 2, 3, 4, 5, 6}),
        ("1-7", {0, 1, 2, 3, 4, 5, 6}),
        ("5-7", {0, 5, 6}),
        ("fri-sun", {0, 5, 6}),
        ("sun-tue", {0, 1, 2}),
        ("sun-sun", {0}),
        ("7-7", {0}),
        ("sat-sun/2", {6}),
        ("*/2", {0, 2, 4, 6}),
        ("1-7/2", {0, 1, 3, 5}),
    ],
)
def test_sunday_is_0_and_7(text: str, days: set[int]) -> None:
    assert bits(parse_cron(f"0 0 * * {text}").weekdays) == days


def test_croniter_expands_every_range_as_written() -> None:
    """All ranges of all fields: `14-14`, which croniter alone takes for the whole circle, is one value here."""
    for index, (low, high) in enumerate([(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]):
        for first in range(low, high + 1):
            for last in range(first, high + 1, 1 if high < 40 else 7):
                for step in (None, 3):
                    fields = ["*"] * 5
                    fields[index] = f"{first}-{last}" + (f"/{step}" if step else "")
                    cron = Cron(" ".join(fields))
                    mask = (cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays)[index]
                    expected = {value % 7 if index == 4 else value for value in range(first, last + 1, step or 1)}
                    assert bits(mask) == expected, fields


def label(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("0 0 29 2 *", "2026-11-22T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00"),  # 2100 is no leap year
        ("0 0 31 * *", "2026-02-01T00:00", "2026-03-31T00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59", "2026-12-31T23:59"),
        ("0 0 1 1 *", "2037-12-31T23:59", "2038-01-01T00:00"),
        ("14 3 19 1 *", "2038-01-18T00:00", "2038-01-19T03:14"),
        ("0 0 13 * 5", "2026-11-01T00:00", "2026-11-06T00:00"),  # the 13th or a Friday
        ("0 0 13 * */5", "2026-11-14T00:00", "2026-12-13T00:00"),  # the 13th, if a Sunday or Friday
        ("0 0 29 2 */6", "2026-11-01T00:00", "2032-02-29T00:00"),  # a Saturday or Sunday
        ("* * * * *", "2026-11-01T00:00:01", "2026-11-01T00:01"),
    ],
)
def test_dates(text: str, after: str, expected: str) -> None:
    assert parse_cron(text).at_or_after(label(after)) == label(expected)


def test_what_can_fire_does_within_400_years() -> None:
    for days in ("29", "30", "31", "29-31", "1,31"):
        for months in ("2", "4", "2,4", "1", "2,12"):
            for weekday in ("*", "*/7", "*/6", "3"):
                cron = Cron(f"0 0 {days} {months} {weekday}")
                assert cron.possible() == (cron.at_or_after(0) is not None), cron


@given(
    st.sampled_from(
        ["*/7 3-9 * * *", "0 0 1,15 * 1", "5 4 31 */2 *", "*/30 * * 2 mon-fri", "0 12 29 2 *", "1 1 * * 7"]
    ),
    st.integers(0, 2_500_000_000),
    st.integers(0, 40_000_000),
)
@settings(max_examples=60, deadline=None)
def test_counting_agrees_with_walking(text: str, low: int, length: int) -> None:
    cron, high = parse_cron(text), low + length
    found, walked = cron.at_or_after(low), 0
    while found is not None and found < high:
        walked += 1
        found = cron.at_or_after(found + 60)
    assert cron.count(low, high) == walked


@given(st.sampled_from(["*/7 3-9 * * *", "0 0 1,15 * 1", "5 4 31 * *", "0 0 29 2 *"]), st.integers(0, 2_500_000_000))
@settings(max_examples=100, deadline=None)
def test_labels_agree_with_croniter(text: str, after: int) -> None:
    expected = croniter(text, after).get_next(float)
    assert parse_cron(text).at_or_after(after + 1) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("*/7 * * * *", "at minute */7 past every hour"),
        ("0 * * * *", "every hour"),
        ("5 * * * *", "at minute 5 past every hour"),
        ("30 1 * * *", "at 01:30 every day"),
        ("0 9,18 * * *", "at 09:00 and 18:00 every day"),
        ("0 */2 * * *", "every 2 hours"),
        ("*/10 8-18 * * mon-fri", "every 10 minutes from 08:00 to 18:59 on Monday to Friday"),
        ("0 0 1 1 *", "at 00:00 on day 1 of the month in January"),
        ("0 0 13 * 5", "at 00:00 on day 13 of the month or on Friday"),
        ("0 0 1-7 * */7", "at 00:00 on day 1-7 of the month, if it is Sunday"),
        ("15 2 * * sun", "at 02:15 on Sunday"),
    ],
)
def test_words(text: str, words: str) -> None:
    assert describe(parse_cron(text)) == words
