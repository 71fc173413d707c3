"""Figures: counted in any thread or process, carried in records, read back only as far as they make sense."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

from crony.beat.duties.counting import counting
from crony.domain.figures import (
    CENTRE_COUNTS,
    CENTRE_STATES,
    CENTRE_TIMES,
    LABELS,
    SECONDS,
    Figures,
    distributions,
    numbers,
)
from crony.domain.outcome import Outcome
from crony.workers.tally import Tally


def test_what_was_counted_is_read_back() -> None:
    figures = Figures()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: figures.count("runs", "failed" if number % 4 else "succeeded"), range(400)))
    for seconds in (-5.0, 0.01, 0.011, 3.0, 1e6):
        figures.took("lag", seconds)
    told = json.loads(json.dumps(figures.told({"backlog": {"": 7}, "held": {"room": 1}})))
    assert numbers(told, "c", CENTRE_COUNTS) == {"runs": {"succeeded": 100, "failed": 300}}
    assert numbers(told, "s", CENTRE_STATES) == {"backlog": {"": 7}, "held": {"room": 1}}
    (row,) = distributions(told, CENTRE_TIMES)["lag"].values()
    assert row.buckets[:2] == (2, 1) and row.buckets[-1] == 1 and sum(row.buckets) == 5
    assert abs(row.total - 1000003.021) < 0.01 and len(row.buckets) == len(SECONDS) + 1


def test_labels_are_bounded() -> None:
    figures = Figures()
    for number in range(500):
        figures.count("skipped", f"reason_{number}")
    found = numbers(figures.told(), "c", CENTRE_COUNTS)["skipped"]
    assert len(found) == LABELS + 1 and found["other"] == 500 - LABELS


def test_what_makes_no_sense_is_left_out() -> None:
    for odd in (None, [], "x", {"c": 1}, {"c": {"runs": 3}}, {"c": {"unknown": {"": 1}}}, {"t": {"lag": {"": [1, 2]}}}):
        assert numbers(odd, "c", CENTRE_COUNTS) == {} and distributions(odd, CENTRE_TIMES) == {}
    wild = {"runs": {"failed": -1, "ok": True, "a\nb": 1, "Upper": 2, "": 3, "lost": "4", "good": 5}, "late": {"x": 1}}
    assert numbers({"c": wild}, "c", CENTRE_COUNTS) == {"runs": {"good": 5}}
    row = ["1"] + [0] * (len(SECONDS) + 1)
    assert distributions({"t": {"lag": {"": row}}}, CENTRE_TIMES) == {}


def _outcome(kind: str, **facts: object) -> bytes:
    base = {"run": "r", "job": "j", "name": "n", "generation": 1, "revision": 1, "attempt": 1, "kind": kind,
            "final": True, "trigger": "schedule", "ended_at": 14.0, "fence": 3, "started_at": 12.0,
            "requested_at": 10.0, "action": "http"}  # fmt: skip
    return Outcome(**(base | facts)).encode()  # type: ignore[arg-type]


def test_outcomes_are_counted_by_what_they_are() -> None:
    figures = Figures()
    outcomes = [
        _outcome("failed", final=False), _outcome("timed_out", attempt=2, final=False),
        _outcome("succeeded", attempt=3),
        _outcome("skipped", attempt=0, fence=0, started_at=None, reason="misfire", count=40),
        _outcome("cancelled", fence=0, started_at=None), b"nonsense",
    ]  # fmt: skip
    counting(figures, outcomes)
    told = figures.told()
    assert numbers(told, "c", CENTRE_COUNTS) == {
        "attempts": {"failed": 1, "timed_out": 1, "succeeded": 1},
        "retries": {"": 2},
        "runs": {"succeeded": 1, "cancelled": 1},
        "skipped": {"misfire": 40},
    }
    times = distributions(told, CENTRE_TIMES)
    assert sum(times["attempt"]["http"].buckets) == 3 and times["attempt"]["http"].total == 6.0
    assert sum(times["start"][""].buckets) == 1 and times["start"][""].total == 2.0


def test_children_that_are_killed_have_counted() -> None:
    tally = Tally()
    for number in range(3):
        child = os.fork()
        if child == 0:
            tally.add("stale")
            tally.add("quarantined", number)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    assert tally.counts() == {"stale": 3, "quarantined": 3}
    tally.add("shed", 100_000)
    tally.add("shed", 100_000)  # the pipe is full: counts are lost, nobody waits
    assert 0 < tally.counts()["shed"] <= 200_000 and tally.counts()["stale"] == 3
