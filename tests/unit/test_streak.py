"""Failures in a row: what counts, what begins anew, and when the job is paused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crony.domain.job import parse
from crony.domain.livejob import LiveJob
from crony.domain.run import Done
from crony.domain.streak import FAILURES, counted, freed
from crony.errors import Invalid


def job(pause_after: Any = 3, revision: int = 1) -> LiveJob:
    document = {"name": "x", "action": {"kind": "shell", "command": ["x"]}, "pause_after": pause_after}
    return LiveJob.created("j1", document, revision=revision, now=100)


def after(live: LiveJob, done: Done, *outcomes: str, revision: int | None = None) -> Done:
    for number, outcome in enumerate(outcomes):
        done = counted(live, done, f"r{number}", outcome, revision or live.revision, 5.0) or done
    return done


@pytest.mark.parametrize("bad", ["failed", "timed_out", "lost", "unknown", "refused"])
def test_so_many_in_a_row_pause_it(bad: str) -> None:
    two = after(job(), Done(100), "failed", bad)
    assert (two.failures, two.held) == (2, "")
    three = after(job(), Done(100), "failed", "failed", bad)
    assert (three.held_for, three.held_at, three.held_revision) == (FAILURES, 5.0, 1)
    assert three.held == "3 failures in a row, the last one run r2" and three.upto_at == 100


def test_a_success_begins_anew_and_what_says_nothing_changes_nothing() -> None:
    assert after(job(), Done(100), "failed", "failed", "succeeded", "failed", "failed").failures == 2
    assert after(job(), Done(100), "failed", "cancelled", "failed", "skipped").failures == 2
    assert counted(job(), Done(100), "r", "cancelled", 1, 5.0) is None
    assert counted(job(None), Done(100), "r", "failed", 1, 5.0) is None


def test_an_edit_begins_anew() -> None:
    two = after(job(), Done(100), "failed", "failed")
    edited = job(revision=2)
    assert counted(edited, two, "r", "failed", 1, 5.0) is None, "a run of before the edit"
    assert after(edited, two, "failed").failures == 1


def test_a_pause_stays_until_somebody_ends_it() -> None:
    held = after(job(), Done(100), "failed", "failed", "failed")
    more = after(job(), held, "failed")
    assert (more.held, more.held_at) == (held.held, held.held_at)
    assert after(job(), held, "succeeded").held == held.held
    free = freed(held, 200)
    assert (free.held, free.held_for, free.failures, free.upto_at) == ("", "", 0, 200)
    broken = replace(Done(100), held="ValueError: zone gone", held_revision=1)
    assert after(job(1), broken, "failed").held == broken.held, "what cannot be fired says why"


@pytest.mark.parametrize("value", [0, -1, 1001, "3", True, 2.5])
def test_odd_numbers_are_refused(value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        parse({"name": "x", "action": {"kind": "shell", "command": ["x"]}, "pause_after": value})
    assert caught.value.field == "pause_after"
