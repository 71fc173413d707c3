"""The wait before the next attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crony.domain.job import parse_retry
from crony.domain.retry import delay

EXPONENTIAL = {"max": 5, "backoff": "exponential", "delay": 10.0, "max_delay": 600.0, "jitter": False}


def test_exponential_doubles_up_to_the_longest() -> None:
    assert [delay(EXPONENTIAL, finished, "r") for finished in (1, 2, 3, 4, 7, 8, 1000, 10**9)] == [
        10, 20, 40, 80, 600, 600, 600, 600,
    ]  # fmt: skip


def test_fixed_stays() -> None:
    fixed = {**EXPONENTIAL, "backoff": "fixed"}
    assert {delay(fixed, finished, "r") for finished in range(1, 50)} == {10}


def test_a_job_without_the_section_has_the_defaults() -> None:
    assert delay({}, 1, "r") == delay(parse_retry(None).payload(), 1, "r")
    assert delay({"delay": 0.0}, 9, "r") == 0


def test_a_callee_that_asks_for_more_gets_it_up_to_the_longest() -> None:
    waits = [delay(EXPONENTIAL, 2, "r", asked) for asked in (0.0, 19.0, 21.5, 600.0, 10**9)]
    assert waits == [20, 20, 21.5, 600, 600]


@given(st.integers(1, 200), st.text("abcdefgj0123456789.", min_size=1), st.sampled_from(["exponential", "fixed"]))
def test_jitter_is_the_same_everywhere_and_within_its_half(finished: int, run: str, backoff: str) -> None:
    retry = {**EXPONENTIAL, "backoff": backoff, "jitter": True}
    whole = delay({**retry, "jitter": False}, finished, run)
    assert whole / 2 <= delay(retry, finished, run) < whole
    assert delay(retry, finished, run) == delay(retry, finished, run)


def test_jitter_spreads_runs() -> None:
    waits = [delay({**EXPONENTIAL, "jitter": True}, 1, f"job.1.{second}") for second in range(1000)]
    assert max(waits) - min(waits) > 4.5
    assert 7.3 < sum(waits) / len(waits) < 7.7
