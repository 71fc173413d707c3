"""Backfills that people asked for: each instant of the period once, so many at a time, counted, until they end."""

from __future__ import annotations

import json
from collections import defaultdict

from tests.soak.judge.due import fires
from tests.soak.judge.reading import History, Judge, State, Step, Told, is_part, job_of
from tests.soak.judge.runs import touched

COUNTS = ("succeeded", "failed", "cancelled")


class Backfills(Judge):
    """Each record against the runs that bear its name."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._told: dict[str, Told] = {}
        """Backfill -> its record as it was last."""
        self._runs: dict[str, dict[int, int]] = defaultdict(dict)
        """Backfill -> instant -> revision at which its run was there first."""
        self._alive: dict[str, set[str]] = defaultdict(set)

    def before(self, step: Step, state: State) -> None:
        """The records."""
        for change in step.of("run", "backfill"):
            if change.new and change.new.told.get("trigger") != "schedule":
                self._told[change.parts[2]] = change.new.told

    def after(self, step: Step, state: State) -> None:
        """The runs: an instant gets one, in the step that takes it off what is left."""
        for run in touched(step):
            ident, instant = backfill_of(run)
            if not ident or is_part(run):
                continue
            (self._alive[ident].add if state.alive(run) else self._alive[ident].discard)(run)
            if instant in self._runs[ident] or not state.alive(run):
                continue
            self._runs[ident][instant] = step.revision
            if not any(each.parts[2] == ident for each in step.of("run", "backfill")):
                self.say("each instant once", f"{run} at revision {step.revision}: made, and its backfill stood still")
            most = int(self._told.get(ident, {}).get("parallel", 1))
            if len(self._alive[ident]) > most:
                self.say(
                    "so many at a time", f"{ident} at revision {step.revision}: {len(self._alive[ident])}, {most} may"
                )

    def finish(self, state: State) -> None:
        """What was asked for has come about."""
        for op in self.history.ops:
            if (
                op["what"] == "backfill"
                and 200 <= int(op.get("status", 0)) < 300
                and op.get("backfill") not in self._told
            ):
                self.say("what was accepted is there", f"the backfill {op.get('backfill')}: nobody knows it")
        for ident, told in self._told.items():
            made, where = self._runs[ident], f"{ident} of {told.get('name')}"
            if not told.get("ended_at"):
                if self.history.ended and not self.history.restored:
                    self.say(
                        "every backfill ends", f"{where}: {told.get('made')} of {told.get('total')} made at the end"
                    )
                continue
            wanted = set(self._instants(told))
            if set(made) - wanted:
                self.say("each instant once", f"{where}: {sorted(set(made) - wanted)[:3]} are none of its instants")
            if not told.get("stop") and not told.get("reason") and wanted - set(made):
                self.say("each instant once", f"{where}: ended, and {sorted(wanted - set(made))[:3]} had no run")
            counted = sum(int(told.get(name, 0)) for name in COUNTS)
            if not counted == int(told.get("made", 0)) == len(made):
                say = f"{where}: {told.get('made')} made and {counted} ended by its record, {len(made)} runs were there"
                self.say("a backfill counts right", say)

    def _instants(self, told: Told) -> list[int]:
        found = json.loads(str(told.get("schedule") or "null"))
        schedules = found if isinstance(found, list) else [found] if found else []
        low, high = int(told["from_at"]), int(told["to_at"])
        return [second for each in schedules for second in fires(each, low, high, self.history.zones)]


def backfill_of(run: str) -> tuple[str, int]:
    """(backfill, instant) of a run that one made; ("", 0) for others."""
    suffix = run.split(".")[2]
    ident, instant = suffix[:21], suffix[21:]
    return (ident, int(instant)) if ident.startswith("b") and instant.isdigit() and job_of(run) else ("", 0)
