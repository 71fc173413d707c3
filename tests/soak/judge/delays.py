"""Jobs with a delay after the end: a fire comes so long after the end of the run before it, and not otherwise."""

from __future__ import annotations

from itertools import pairwise

from tests.soak.judge.due import seconds
from tests.soak.judge.fires import Fires
from tests.soak.judge.reading import History, Judge, State, Step, fire_of, job_of

SLACK = 2.0
"""Seconds: ends are rounded up to whole ones, and clocks differ."""


class Delays(Judge):
    """Each fire after the first follows an end."""

    def __init__(self, history: History, fires: Fires) -> None:
        super().__init__(history)
        self._fires = fires
        self.ends: dict[str, Step] = {}

    def before(self, step: Step, state: State) -> None:
        """When runs ended."""
        for change in step.of("run", "out"):
            match change.parts:
                case ["run", "out", run, slot] if change.new and fire_of(run) is not None:
                    if change.new.told.get("final") or slot in ("0", "end"):
                        self.ends.setdefault(run, step)

    def finish(self, state: State) -> None:
        """Hold each fire against the end before it."""
        for job, line in self._fires.lines.items():
            if not line.after_end or len(line.versions) > 2:
                continue  # edited: a save begins anew; the second version is the pause at the end
            period = seconds(line.versions[0].schedules[0]["every"])
            found = sorted((fire_of(run) or 0, step) for run, step in self.ends.items() if job_of(run) == job)
            for (second, step), (following, _) in pairwise(found):
                soonest, latest = step.low + period - SLACK, step.high + period + SLACK
                if not soonest <= following <= latest:
                    say = f"{job}: {following} follows {second}, which ended at {step.low:.1f}, by {period:g} s"
                    self.say("a delay counts from the end", say)
