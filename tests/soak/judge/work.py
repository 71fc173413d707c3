"""What jobs really did, by the lines they wrote themselves: I3 of the oracles, and I6 of the protocol."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from tests.soak.judge.reading import (
    Change,
    Claim,
    History,
    Judge,
    Mark,
    State,
    Step,
    Told,
    claim_of,
    job_of,
    run_at,
    whole_of,
)
from tests.soak.judge.runs import STARTED, needs_permit

MARKING = "marks"
"""Tag of the jobs that write lines."""


class Work(Judge):
    """Starts, and ends, each under a claim of its own."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.claims: dict[tuple[str, int], tuple[Claim, int]] = {}
        """(run, fence) -> claim, and the attempt it was for."""
        self.outs: dict[tuple[str, int], Told] = {}
        self.marking: set[str] = set()
        self.alone: set[str] = set()
        self.once: set[str] = set()
        self.permits: set[tuple[str, int]] = set()
        """(run, attempt) that needs a permit."""

    def before(self, step: Step, state: State) -> None:
        """Remember claims, outcomes and jobs."""
        for change in step.changes:
            match change.parts:
                case ["run", "q", _, "c", place] if change.new:
                    self._claim(change, run_at(place), state)
                case ["run", "out", run, slot] if change.new and slot.isdigit() and slot != "0":
                    self.outs[run, int(slot)] = change.new.told

    def after(self, step: Step, state: State) -> None:
        """What jobs there are."""
        for change in step.of("job"):
            live = state.jobs.get(change.parts[1]) or {}
            document = live.get("document") or {}
            if MARKING in document.get("tags", ()):
                self.marking.add(change.parts[1])
            if document.get("overlap", "skip") != "allow":
                self.alone.add(change.parts[1])
            if document.get("delivery") == "at_most_once":
                self.once.add(change.parts[1])

    def _claim(self, change: Change, run: str, state: State) -> None:
        assert change.new is not None
        claim = claim_of(change.new)
        lies = next((each for at, each in state.messages.items() if run_at(at[1]) == run), None)
        if lies is not None and needs_permit(lies.envelope):
            self.permits.add((run, int(lies.envelope.get("attempt", 0))))
        self.claims[run, claim.mod] = claim, int(lies.envelope.get("attempt", 0)) if lies else 0

    def finish(self, state: State) -> None:
        """Hold what the jobs wrote against what etcd shows."""
        starts: dict[tuple[str, int], list[Mark]] = defaultdict(list)
        ends: set[tuple[str, int]] = set()
        for mark in self.history.marks:
            if mark.what == "start":
                starts[mark.run, mark.attempt].append(mark)
            else:
                ends.add((mark.run, mark.attempt))
        for (run, attempt), marks in starts.items():
            if len(marks) > 1 and not self._again(marks):
                self.say("started once for each attempt", f"{run}, attempt {attempt}: {len(marks)} times")
            for mark in marks:
                found = self.claims.get((run, mark.fence))
                if found is None and mark.fence <= self._seen:
                    self.say("started under a claim", f"{run}, attempt {attempt}: fence {mark.fence} is no claim of it")
                elif found is not None and (run, attempt) in self.permits and found[0].phase != STARTED:
                    self.say("a permit first", f"{run}, attempt {attempt}: began by fence {mark.fence}, no permit")
                elif found is not None and found[1] != attempt:
                    self.say("started under a claim", f"{run}: started as {attempt}, claimed as attempt {found[1]}")
        self._succeeded(starts, ends)
        self._alone(starts)
        for run in {run for run, _ in starts}:
            if job_of(run) in self.once and sum(len(marks) for key, marks in starts.items() if key[0] == run) > 1:
                self.say("at most once", f"{run} started more than once")

    def _again(self, marks: list[Mark]) -> bool:
        """Whether an etcd that had forgotten the first start may have let it start again under the same number."""
        restored = self.history.restored
        return restored is not None and marks[-1].at >= float(restored["at"])

    @property
    def _seen(self) -> int:
        return self.history.steps[-1].revision if self.history.steps else 0

    def _succeeded(self, starts: dict[tuple[str, int], list[Mark]], ends: set[tuple[str, int]]) -> None:
        for (run, attempt), told in self.outs.items():
            if job_of(run) not in self.marking or told.get("kind") != "succeeded":
                continue
            if (run, attempt) not in starts or (run, attempt) not in ends:
                self.say("success is true", f"{run}, attempt {attempt} succeeded, and did not run to its end")
        if self.history.ended:
            for run, attempt in starts:
                if (run, attempt) not in self.outs and not self.history.restored:
                    self.say("what started has ended", f"{run}, attempt {attempt} started and has no outcome")

    def _alone(self, starts: dict[tuple[str, int], list[Mark]]) -> None:
        """Work of one job does not overlap, unless an attempt was lost: then nobody can know whether it goes on."""
        lost = {run for (run, _), told in self.outs.items() if told.get("kind") in ("lost", "unknown")}
        when: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        done = {(mark.run, mark.attempt): mark.at for mark in self.history.marks if mark.what == "end"}
        for (run, attempt), marks in starts.items():
            end = done.get((run, attempt))
            if job_of(run) in self.alone and run not in lost and end is not None:
                when[job_of(run)].append((marks[0].at, end, run))
        for job, spans in when.items():
            spans.sort()
            for (_, end, run), (begin, _, other) in pairwise(spans):
                if begin < end and whole_of(run) != whole_of(other):
                    self.say("one at a time", f"{job}: {other} began {end - begin:.2f} s before {run} had ended")
