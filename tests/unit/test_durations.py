"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crony.domain.durations import duration_words, format_duration, parse_duration
from crony.errors import Invalid


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1w", 604800),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5s", 1.5),
    ],
)
def test_reading(text: str, seconds: float) -> None:
    assert parse_duration(text, "timeout") == seconds
    assert parse_duration(f" {text} ", "timeout") == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "-5s",
        "5 s",
        "s",
        "5x",
        "1e9s",
        "5s3m",
        "5s5s",
        "٥s",
        "1" * 50 + "s",
        "NaN",
        "inf",
        5,
        5.0,
        True,
        None,
        [],
    ],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(Invalid) as caught:
        parse_duration(value, "retry.delay")
    assert caught.value.field == "retry.delay"
    assert caught.value.hint


def test_bounds_are_inclusive() -> None:
    assert parse_duration("1s", "timeout", least=1, most=60) == 1
    assert parse_duration("1m", "timeout", least=1, most=60) == 60
    for text in ("999ms", "61s"):
        with pytest.raises(Invalid, match="between 1s and 1m"):
            parse_duration(text, "timeout", least=1, most=60)


@given(st.integers(0, 10**11).map(lambda milliseconds: milliseconds / 1000))
def test_writing_is_exact(seconds: float) -> None:
    assert parse_duration(format_duration(seconds), "x") == seconds


def test_words() -> None:
    assert duration_words(5400) == "1 hour 30 minutes"
    assert duration_words(1) == "1 second"
