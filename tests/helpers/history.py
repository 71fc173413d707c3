"""The judge of an acceptance test: what was due, by plain arithmetic, against what the records say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crony.domain.ids import parse_run_id


@dataclass(frozen=True)
class Verdict:
    """Fires of one job between two instants, both inclusive."""

    due: int
    dispatched: int
    skipped: int
    lost: list[int]
    doubled: list[int]
    early: list[int]


def epoch(text: str | None) -> float:
    """Epoch seconds of an RFC 3339 time."""
    assert text, "a time is missing"
    return datetime.fromisoformat(text).timestamp()


def judge(runs: list[dict[str, Any]], skips: list[dict[str, Any]], period: int, first: int, last: int) -> Verdict:
    """Judge a job `every: <period>s`: each multiple of `period` in [first, last] needs one run or one skip."""
    due = [instant for instant in range(first, last + 1) if instant % period == 0]
    fires = Counter(fire for run in runs if (fire := parse_run_id(run["id"]).fire) is not None)
    covered: Counter[int] = Counter()
    for skip in skips:
        start = parse_run_id(skip["run"]).fire
        assert start is not None, skip
        end = int(epoch(skip["to_at"])) if skip.get("to_at") else start
        covered.update(instant for instant in range(start, end + 1) if instant % period == 0)
    return Verdict(
        due=len(due),
        dispatched=sum(1 for instant in due if fires[instant]),
        skipped=sum(1 for instant in due if covered[instant]),
        lost=[instant for instant in due if not fires[instant] and not covered[instant]],
        doubled=[instant for instant in due if fires[instant] + covered[instant] > 1],
        early=[instant for instant in fires if instant % period],
    )


def starts(marks: list[tuple[str, int, str, float]]) -> Counter[tuple[str, int]]:
    """How often each (run, attempt) really started, by the file the jobs wrote themselves."""
    return Counter((run, attempt) for run, attempt, what, _ in marks if what == "start")
