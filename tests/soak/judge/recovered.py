"""After `crony recover`: every fire has one run or one record in the archive, whatever etcd had forgotten."""

from __future__ import annotations

from collections import Counter

from tests.soak.judge.due import fires
from tests.soak.judge.fires import Fires
from tests.soak.judge.reading import History, Judge, State, fire_of, job_of

EDGE = 2
"""Seconds around the first publication and the end within which nothing is asked for."""


class Recovered(Judge):
    """What the archive says at the end of a round whose etcd was restored, recovered, and went on."""

    def __init__(self, history: History, due: Fires) -> None:
        super().__init__(history)
        self._due = due

    def finish(self, state: State) -> None:
        """Count, job by job; those that nobody edited, and whose instants nothing shifts."""
        end = self.history.end
        if end is None or not self.history.restored or "ranges" not in end:
            return
        for run, outcome in end["runs"]:
            if not outcome:
                self.say("recovered: every run ends", f"{run} has no end")
        found: dict[str, Counter[int]] = {}
        for run, _ in end["runs"]:
            second = fire_of(run) if run.count(".") == 2 else None
            if second is not None:
                found.setdefault(job_of(run), Counter())[second] += 1
        ranges = [(str(job), int(first), int(last)) for job, first, last in end["ranges"]]
        for job, line in self._due.lines.items():
            version = line.versions[0]
            if len(line.versions) > 1 or line.after_end or line.widest or not version.schedules:
                continue
            if version.document.get("overlap") != "allow" or version.paused_at(int(version.high)):
                continue
            low, high = int(version.high) + EDGE, int(end["quiet"]) - EDGE
            due = {s for each in version.schedules for s in fires(each, low, high, self.history.zones)}
            for second in sorted(due):
                runs = found.get(job, Counter())[second]
                records = sum(1 for name, first, last in ranges if name == job and first <= second <= last)
                if runs + records == 0:
                    self.say("recovered: every fire is accounted for", f"{job} at {second}: no run and no record")
                elif runs + records > 1:
                    self.say("recovered: no fire twice", f"{job} at {second}: {runs} runs and {records} records")
