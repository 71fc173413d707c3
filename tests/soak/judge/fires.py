"""Every fire, one by one: decided when the cursor passes it, once, by the policy of its job (I1, I2 of both lists)."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from tests.soak.judge.due import Due, Timeline, seconds, timelines
from tests.soak.judge.reading import Change, History, Judge, State, Step, Told, fire_of, job_of
from tests.soak.judge.runs import handed_out

EARLY = 0.5
"""Seconds by which a decision may precede its instant: clocks differ."""

AHEAD = 3.0
"""Seconds by which a cursor may be ahead of the time: a clock that is further off must not decide anything."""


@dataclass
class Decided:
    """What one step decided of one job."""

    runs: dict[int, float] = field(default_factory=dict)
    """Nominal second -> when it was decided, as its envelope says."""
    rest: list[int] = field(default_factory=list)
    """Seconds left to a backfill."""
    skips: list[Told] = field(default_factory=list)
    before: int | None = None
    """The cursor before and after; None: there was none."""
    upto: int | None = None
    published: bool = False
    """The step also published the job: creation, resume or deletion."""


class Fires(Judge):
    """Completeness and uniqueness, by the cursor; `decided` keeps when each fire was decided, for other judges."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.lines: dict[str, Timeline] = timelines(history)
        self.decided: dict[tuple[str, int], Step] = {}
        self._steps: list[tuple[Step, str, Decided, Told]] = []
        self._upto: dict[str, int] = {}

    def paused(self, job: str, second: int) -> bool:
        """Whether only a pause kept a fire from being due: it is recorded when the job is resumed, however late."""
        line = self.lines.get(job)
        due = line.table.get(second) if line else None
        return due is not None and due.paused

    # -- gathering -----------------------------------------------------------------------------

    def before(self, step: Step, state: State) -> None:
        """What this step decides; judged at the end, when the shifts of jobs are known."""
        found: dict[str, Decided] = defaultdict(Decided)
        backfilled = self._from_backfills(step)
        for run, envelope, _ in handed_out(step):
            second = fire_of(run)
            if second is not None and not state.alive(run) and (job_of(run), second) not in backfilled:
                found[job_of(run)].runs[second] = float(envelope.get("requested_at", 0.0))
        for change in step.of("run", "out"):
            match change.parts:
                case ["run", "out", run, "0"] if change.new and fire_of(run) is not None:
                    if not state.alive(run) and (job_of(run), fire_of(run)) not in backfilled:
                        found[job_of(run)].skips.append(change.new.told)
        for change in step.of("run", "backfill"):
            told = change.new.told if change.new and not change.old else {}
            if told.get("trigger") == "schedule":
                found[str(told["job"])].rest += [int(each) for each in told.get("fires", ())]
        for change in step.of("done"):
            self._cursor(step, change, found[change.parts[1]])
        for job, decided in found.items():
            decided.published = any(each.new for each in step.of("job") if each.parts[1] == job)
            self._steps.append((step, job, decided, dict(state.jobs.get(job) or {})))

    def _cursor(self, step: Step, change: Change, decided: Decided) -> None:
        if change.new is None:
            return
        job, upto = change.parts[1], int(change.new.told["upto_at"])
        decided.before = int(change.old.told["upto_at"]) if change.old else None
        decided.upto = upto
        if upto > step.high + AHEAD:
            self.say("no cursor runs ahead", f"{job} at revision {step.revision}: by {upto - step.high:.1f} s")
        if upto < self._upto.get(job, upto):
            self.say("decided is decided", f"{job} at revision {step.revision}: back from {self._upto[job]} to {upto}")
        self._upto[job] = max(upto, self._upto.get(job, upto))

    def _from_backfills(self, step: Step) -> set[tuple[str, int]]:
        """Fires that leave a backfill in this step; each must become a run or a record in it."""
        left: set[tuple[str, int]] = set()
        for change in step.of("run", "backfill"):
            was = change.old.told if change.old else {}
            now = change.new.told if change.new else {}
            still = set(now.get("fires", ()))
            left |= {(str(was["job"]), int(each)) for each in was.get("fires", ()) if each not in still}
        if left:
            self._conserved(step, left)
        return left

    def _conserved(self, step: Step, left: set[tuple[str, int]]) -> None:
        runs = {(job_of(run), fire_of(run)) for run, _, _ in handed_out(step)}
        ranges = [told for told in _skips(step) if told]
        for job, second in left:
            covered = [each for each in ranges if each["job"] == job and _covers(each, second)]
            if ((job, second) in runs) + len(covered) != 1:
                self.say("every fire is accounted for", f"{job} at {second}: left its backfill, {len(covered)} records")

    # -- judging -------------------------------------------------------------------------------

    def finish(self, state: State) -> None:
        """Judge each decision, then what was never decided."""
        first: dict[str, list[int]] = defaultdict(list)
        for _, job, decided, _ in self._steps:
            first[job] += list(decided.runs) + decided.rest
        for job, line in self.lines.items():
            line.learn(first.get(job, ()))
        for step, job, decided, live in self._steps:
            if job in self.lines:
                self._judge(step, job, decided, live)
        self._missing(state)

    def _judge(self, step: Step, job: str, decided: Decided, live: Told) -> None:
        where = f"{job} at revision {step.revision}"
        line = self.lines[job]
        taken = [*decided.runs, *decided.rest]
        for second in taken:
            due = line.table.get(second)
            if (due is None or due.paused) and not line.after_end:
                self.say("nothing fires that is not due", f"{where}: {second}, {'paused' if due else 'not scheduled'}")
            if (job, second) in self.decided:
                self.say("no fire twice", f"{where}: {second}, before at revision {self.decided[job, second].revision}")
            if second > step.high + EARLY:
                self.say("nothing fires early", f"{where}: {second - step.high:.1f} s before its time")
            self.decided[job, second] = step
        if decided.upto is None:
            if taken or (decided.skips and not decided.published):
                self.say("decided is decided", f"{where}: fires decided and the cursor stood still: {taken[:3]}")
            return
        before = decided.upto if decided.before is None else decided.before
        if before == decided.upto and taken:
            self.say("decided is decided", f"{where}: fires decided and the cursor stood still: {taken[:3]}")
        self._interval(step, job, decided, line.between(before, decided.upto), (before, decided.upto), where)
        if not decided.published and live and not line.after_end:
            self._policy(job, decided, live, line, where)

    def _interval(
        self,
        step: Step,
        job: str,
        decided: Decided,
        due: dict[int, Due],
        between: tuple[int, int],
        where: str,
    ) -> None:
        """Everything due that the cursor passes has one run or one record; nothing else has."""
        taken = [*decided.runs, *decided.rest]
        for second in taken:
            if not between[0] < second <= between[1]:
                self.say(
                    "decided is decided", f"{where}: {second} decided, the cursor went {between[0]} to {between[1]}"
                )
        for second, what in due.items():
            ranges = [each for each in decided.skips if _covers(each, second)]
            if what.must and not second_of(ranges):
                ranges = [each for each in ranges if each.get("reason") != "paused"] or ranges
            found = taken.count(second) + len(ranges)
            if what.must and not found:
                self.say("every fire is accounted for", f"{where}: {second} was due, is passed, without run or record")
            if found > 1:
                self.say("no fire twice", f"{where}: {second} has {found} runs and records")
            if what.must and ranges and (job, second) in self.decided and second not in taken:
                self.say("no fire twice", f"{where}: {second} is skipped, and ran")
            if ranges and not taken.count(second):
                self.decided.setdefault((job, second), step)
        for told in [] if self.lines[job].after_end else decided.skips:
            if not (decided.published and told.get("reason") == "misfire"):
                self._range(told, due, where)

    def _range(self, told: Told, due: dict[int, Due], where: str) -> None:
        """A record counts the fires that it stands for. (An `at` that was over when it went live was never due.)"""
        first, last = int(told["fire_at"]), int(told.get("to_at") or told["fire_at"])
        inside = {second: each for second, each in due.items() if first <= second <= last}
        certain = sum(1 for each in inside.values() if each.must)
        count = int(told.get("count", 1))
        if not certain <= count <= len(inside) and "at least" not in str(told.get("detail")):
            say = f"{where}: a record of {told.get('reason')} for {count} fires, {certain} to {len(inside)} were due"
            self.say("records count right", say)

    def _policy(self, job: str, decided: Decided, live: Told, line: Timeline, where: str) -> None:
        """Late fires: as the job's misfire policy says, by the moment of decision that the records name."""
        document = live.get("document") or {}
        misfire = document.get("misfire") or {}
        moments = {*decided.runs.values(), *(float(each["ended_at"]) for each in decided.skips)}
        moments = {each for each in moments if each}
        if not moments or decided.before is None or decided.upto is None:
            return
        now = min(moments)
        after = seconds(misfire.get("after", "60s"))
        within = seconds(misfire.get("within", "365000d"))
        policy = misfire.get("policy", "fire_once")
        due = line.between(decided.before, math.floor(now))
        if any(not each.must for each in due.values()):
            return  # next to an edit: what the leader saw of it cannot be told
        late = [second for second in due if second < now - after]
        prompt = [second for second in due if second >= now - after]
        young = [second for second in late if second >= now - within]
        runs = {"skip": [], "fire_all": young, "fire_once": [] if prompt else young[-1:]}[policy]
        for second in (each for each in due if each <= decided.upto):
            reasons = [str(each.get("reason")) for each in decided.skips if _covers(each, second)]
            ran = second in decided.runs or second in decided.rest
            meant = second in prompt or second in runs
            if ran and not meant:
                self.say("late fires by their policy", f"{where}: {second} ran {now - second:.1f} s late, {misfire}")
            if not ran and meant and "misfire" in reasons:
                self.say(
                    "late fires by their policy", f"{where}: {second} skipped {now - second:.1f} s late, {misfire}"
                )
            if "overlap" in reasons and document.get("overlap") == "allow":
                self.say("late fires by their policy", f"{where}: {second} skipped for overlap, which is allowed")

    def _missing(self, state: State) -> None:
        """Of what was due and never decided, nothing may be left when all had time to be."""
        if not self.history.ended or self.history.restored:
            return
        for job, line in self.lines.items():
            passed = self._upto.get(job, 0)
            for second, due in line.table.items():
                if due.must and second > passed and second < line.until - 5.0:
                    self.say("every fire is accounted for", f"{job}: {second} was due and was never decided")


def second_of(ranges: list[Told]) -> bool:
    """Whether a record that is not of a pause is among them."""
    return any(each.get("reason") != "paused" for each in ranges)


def _covers(told: Told, second: int) -> bool:
    return int(told["fire_at"]) <= second <= int(told.get("to_at") or told["fire_at"])


def _skips(step: Step) -> list[Told]:
    return [
        change.new.told
        for change in step.of("run", "out")
        if change.new and change.parts[-1] == "0" and change.new.told.get("fire_at") is not None
    ]
