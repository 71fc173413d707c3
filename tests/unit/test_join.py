"""What a run in parts has come to: noted once, whatever is said twice, and judged only when nothing more comes."""

from __future__ import annotations

from typing import Any

import pytest

from crony.domain.join import Join
from crony.domain.outcome import Kind


def join(total: int = 3, **changes: Any) -> Join:
    """A run in parts, all of them made."""
    made: int = changes.pop("made", total)
    return Join("j.1.5", "{}", total, 0.0, **changes).with_made(made)


def test_the_first_end_of_a_part_stands() -> None:
    told = join().with_ended({"0": "succeeded", "2": "failed"}, 7.0)
    assert told.ends == "s.f" and told.unended == [1] and told.ended == 2 and told.started_at == 7.0
    again = told.with_ended({"0": "failed", "1": "lost"}, 5.0)
    assert again.ends == "slf" and again.started_at == 5.0 and again.over
    assert again.with_ended({"9": "failed", "x": "failed", "-1": "lost", "²": "lost"}, None) == again
    assert join().with_ended({"0": "exploded"}, None).ends == "..."


@pytest.mark.parametrize(
    ("made", "ends", "cancelled", "over"),
    [
        (0, {}, "", False),
        (0, {}, "why", True),
        (2, {"0": "succeeded", "1": "succeeded"}, "", False),
        (2, {"0": "succeeded", "1": "succeeded"}, "why", True),
        (2, {"0": "succeeded"}, "why", False),
        (3, {"0": "succeeded", "1": "succeeded"}, "", False),
        (3, {"0": "succeeded", "1": "succeeded", "2": "lost"}, "", True),
    ],
)
def test_when_it_is_over(made: int, ends: dict[str, str], cancelled: str, over: bool) -> None:
    assert join(made=made, cancelled=cancelled).with_ended(ends, None).over is over


@pytest.mark.parametrize(
    ("ends", "changes", "kind", "reason"),
    [
        ("sss", {}, Kind.SUCCEEDED, ""),
        ("sfs", {}, Kind.FAILED, "1 of 3 parts did not succeed; failed: 1"),
        ("lls", {"nodes": ["a", "b", "c"]}, Kind.LOST, "2 of 3 parts did not succeed; lost: 0 (a), 1 (b)"),
        ("tfs", {}, Kind.FAILED, "2 of 3 parts did not succeed; timed_out: 0; failed: 1"),
        ("scs", {}, Kind.CANCELLED, "1 of 3 parts did not succeed; cancelled: 1"),
        ("scc", {"cancelled": "by eve"}, Kind.CANCELLED, "by eve"),
        ("sss", {"cancelled": "too late"}, Kind.SUCCEEDED, ""),
        ("s", {"cancelled": "by eve", "made": 1}, Kind.CANCELLED, "by eve; 2 of 3 parts were not begun"),
    ],
)
def test_verdict(ends: str, changes: dict[str, Any], kind: Kind, reason: str) -> None:
    letters = {"s": "succeeded", "f": "failed", "l": "lost", "t": "timed_out", "c": "cancelled"}
    told = join(**changes).with_ended({str(n): letters[letter] for n, letter in enumerate(ends)}, None)
    assert told.ends == ends and told.over and told.verdict() == (kind, reason)


def test_many_failures_are_counted() -> None:
    told = join(500).with_ended({str(n): "failed" if n < 300 else "lost" for n in range(500)}, None)
    kind, reason = told.verdict()
    assert kind == Kind.FAILED and reason.startswith("500 of 500 parts did not succeed; failed: 0, 1, ")
    assert reason.endswith("19; 480 more") and told.counts() == {"parts": 500, "failed": 300, "lost": 200}


@pytest.mark.parametrize(
    "changes",
    [
        {"total": -1}, {"total": "3"}, {"made": 4}, {"made": True}, {"ends": "s"}, {"ends": "xyz"}, {"ends": 5},
        {"nodes": ["a"]}, {"nodes": "abc"}, {"nodes": [1, 2, 3]}, {"started_at": "x"}, {"cancelled": None}, {"run": 1},
    ],
)  # fmt: skip
def test_what_makes_no_sense(changes: dict[str, Any]) -> None:
    good = join().payload()
    assert Join.read(good).sound
    assert not Join.read({**good, **changes}).sound


def test_parts_that_are_known_to_have_ended_are_counted_when_their_turn_comes() -> None:
    join = Join("r", "", 5, 0.0, known={"1": "succeeded", "3": "lost"}).with_made(2)
    assert (join.ends, join.unended, join.known, join.over) == (".s", [0], {"3": "lost"}, False) and join.sound
    join = join.with_made(5).with_ended({"0": "succeeded", "2": "succeeded", "4": "succeeded"}, None)
    assert join.over and join.verdict()[1] == "1 of 5 parts did not succeed; lost: 3"
    assert not Join("r", "", 5, 0.0, known={"x": "succeeded"}).sound
