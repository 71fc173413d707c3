"""Which runs of each job, and of each backfill, are alive, and which of them wait for their turn.

A run in parts counts as one.
"""

from __future__ import annotations

from collections.abc import Mapping

from crony.beat.entries import Waiting
from crony.beat.sorting import filled_by, job_of
from crony.domain.ids import parse_run_id, whole
from crony.domain.run import WaitReason


class Alive:
    """Counts of one book, which tells it of every record of a run that comes or goes."""

    def __init__(self, waits: Mapping[str, Waiting]) -> None:
        """`waits`: the book's waiting runs."""
        self._waits = waits
        self._live: dict[str, dict[str, int]] = {}
        """Job -> run -> how many records it and its parts have."""
        self._filled: dict[str, set[str]] = {}
        """Backfill -> its live runs."""
        self._lines: dict[str, set[str]] = {}
        """Job -> runs that wait for their turn."""

    @property
    def empty(self) -> bool:
        """Whether it knows of no run."""
        return not self._live and not self._lines and not self._filled

    def of(self, job: str) -> list[str]:
        """Runs of a job that count for overlap: all live ones but those of backfills, and those that wait for a moment
        their caller chose."""
        return [run for run in self._live.get(job, ()) if self._reason(run) != WaitReason.DELAY and not filled_by(run)]

    def any_of(self, job: str) -> bool:
        """Whether any run of a job is alive, whatever its kind."""
        return job in self._live

    def filled(self, backfill: str) -> set[str]:
        """Live runs of a backfill."""
        return self._filled.get(backfill, set())

    def line(self, job: str) -> list[str]:
        """Runs of a job that wait until another one has ended, first come first."""
        return sorted(self._lines.get(job, ()), key=self._came)

    def next_in(self, job: str) -> str:
        """The first in line; empty: nobody stands there."""
        return self.line(job)[0] if self._lines.get(job) else ""

    def turn(self, job: str) -> str:
        """The run whose turn it is: first in line, and nothing else of the job is alive; empty: nobody's."""
        line = self._lines.get(job, set())
        return "" if not line or any(run not in line for run in self.of(job)) else self.line(job)[0]

    def enter(self, run: str) -> None:
        """A record of the run has come."""
        job, run = job_of(run), whole(run)
        runs = self._live.setdefault(job, {})
        runs[run] = runs.get(run, 0) + 1
        if backfill := filled_by(run):
            self._filled.setdefault(backfill, set()).add(run)

    def leave(self, run: str) -> str:
        """A record of the run is gone. The backfill that has a run less with it, if one has."""
        job, run = job_of(run), whole(run)
        runs = self._live.get(job, {})
        if runs.get(run, 0) > 1:
            runs[run] -= 1
            return ""
        runs.pop(run, None)
        if not runs:
            self._live.pop(job, None)
        backfill = filled_by(run)
        if backfill in self._filled:
            self._filled[backfill].discard(run)
            if not self._filled[backfill]:
                del self._filled[backfill]
        return backfill

    def stand(self, run: str) -> bool:
        """Note whether a run stands in line: its waiting record is new, or gone. Whether it left the line."""
        job = job_of(run)
        if job and self._reason(run) == WaitReason.OVERLAP:
            self._lines.setdefault(job, set()).add(run)
            return False
        line = self._lines.get(job, set())
        if run not in line:
            return False
        line.discard(run)
        if not line:
            del self._lines[job]
        return True

    def _reason(self, run: str) -> str:
        waiting = self._waits.get(run)
        return waiting.wait.reason if waiting is not None and waiting.wait is not None else ""

    def _came(self, run: str) -> tuple[int, int, str]:
        suffix = parse_run_id(run).suffix
        return self._waits[run].seen, int(suffix) if suffix.isdecimal() else 0, run
