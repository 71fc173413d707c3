"""Work that is answered later: called once, ended as its callee was told, and not before its deadline (C5 to C7)."""

from __future__ import annotations

from collections import Counter

from tests.soak.judge.bounds import Bounds
from tests.soak.judge.reading import History, Judge, State, Step, Told

SLACK = 1.5
"""Seconds by which centres and the harness may differ on when a deadline was."""
LATE = 5.0
"""Seconds after its deadline in which what nobody completed has ended."""
MEANS = {"complete": "succeeded", "fail": "failed"}


class Later(Judge):
    """Accepted runs, and what was said to their callees."""

    def __init__(self, history: History, bounds: Bounds) -> None:
        super().__init__(history)
        self._bounds = bounds
        self._outs: dict[tuple[str, int], Told] = {}

    def before(self, step: Step, state: State) -> None:
        """How accepted attempts end."""
        for change in step.of("run", "out"):
            match change.parts:
                case ["run", "out", run, slot] if change.new and slot.isdigit() and slot != "0":
                    self._outs[run, int(slot)] = change.new.told
        for change in step.of("run", "acc"):
            if change.new or not change.old:
                continue
            run, told = change.parts[2], change.old.told
            end = self._outs.get((run, int(told.get("attempt", 0))), {})
            deadline = float(told.get("deadline_at", 0.0))
            if end.get("kind") != "timed_out":
                continue
            if step.high < deadline - SLACK and "deadline" in str(end.get("reason")):
                self.say("a deadline is kept", f"{run}: timed out {deadline - step.high:.1f} s before its deadline")
            self._bounds._in_time(f"{run}, which nobody completed, is timed out", deadline, step.low, LATE)

    def finish(self, state: State) -> None:
        """What callees were told is true."""
        called = (each for each in self.history.callee if each["what"] == "called")
        # An etcd that was restored knows nothing of a call since its backup, and numbers the next one as it did that.
        calls = Counter((each["run"], int(each["attempt"]), self._after_restore(each)) for each in called)
        for (run, attempt, _), count in calls.items():
            if count > 1:
                self.say("called once for each attempt", f"{run}, attempt {attempt}: {count} times")
        for each in self.history.callee:
            if each["what"] != "said" or each["verb"] not in MEANS:
                continue
            run, attempt, verb = str(each["run"]), int(each["attempt"]), str(each["verb"])
            out = self._outs.get((run, attempt))
            said = f"{run}, attempt {attempt}: {verb} was answered {each['status']}"
            as_told = out is not None and out.get("kind") == MEANS[verb]
            if each["status"] == 200 and not self._after_restore(each) and not as_told:
                self.say("callees are told the truth", f"{said}, it ended as {out.get('kind') if out else 'nothing'}")
            if each["status"] == 409 and as_told and self._first(each):
                self.say("callees are told the truth", f"{said}, and it is what stands")

    def _after_restore(self, each: Told) -> bool:
        restored = self.history.restored
        return restored is not None and float(each["at"]) >= float(restored["at"])

    def _first(self, said: Told) -> bool:
        """Whether this callee said nothing else of the attempt."""
        mine = [each for each in self.history.callee if each["what"] == "said" and each["run"] == said["run"]
                and each["attempt"] == said["attempt"] and each["verb"] in MEANS]  # fmt: skip
        return {each["verb"] for each in mine} == {said["verb"]} and all(each["status"] == 409 for each in mine)
