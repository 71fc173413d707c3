"""Jobs that run after others: each end that they wait for is followed by one run, or by a record why there is none."""

from __future__ import annotations

from collections import defaultdict

from tests.soak.judge.order import BAD
from tests.soak.judge.reading import History, Judge, State, Step, is_part, job_of
from tests.soak.judge.runs import records_of


class Chains(Judge):
    """Jobs that follow one other job; by the cause that records name."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self._follows: dict[str, tuple[str, str]] = {}
        """Job -> (the job that it follows, which ends it waits for)."""
        self._since: dict[str, int] = {}
        """Job -> revision since when it follows: what ended before may be followed, or not."""
        self._ends: dict[str, dict[str, tuple[str, int]]] = defaultdict(dict)
        """Job -> its runs that ended, how, and at which revision."""
        self._caused: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        """Job -> run whose end it followed -> its runs."""

    def before(self, step: Step, state: State) -> None:
        """Which runs end, and because of which."""
        for (run, slot), told in records_of(step).items():
            if is_part(run) or not (told.get("final") or slot in ("0", "end")):
                continue
            self._ends[job_of(run)].setdefault(run, (str(told.get("kind")), step.revision))
            if told.get("cause"):
                self._caused[job_of(run)][str(told["cause"])].add(run)

    def after(self, step: Step, state: State) -> None:
        """Who follows whom."""
        for change in step.of("job"):
            job = change.parts[1]
            after = ((state.jobs.get(job) or {}).get("document") or {}).get("after") or {}
            if len(after.get("ids") or ()) == 1:
                self._follows[job] = str(after["ids"][0]), str(after.get("on", "success"))
                self._since.setdefault(job, step.revision)

    def finish(self, state: State) -> None:
        """One for each, and none for others."""
        for job, (parent, awaited) in self._follows.items():
            for run, (kind, revision) in self._ends[parent].items():
                followed = self._caused[job].get(run, set())
                if len(followed) > 1:
                    self.say("each end is followed once", f"{run} of {parent}: by {' and '.join(sorted(followed))}")
                must = fits(kind, awaited) and revision > self._since[job]
                if must and not followed and self.history.ended and not self.history.restored:
                    say = f"{run} of {parent} ended as {kind}, and {job} did not follow"
                    self.say("each end is followed once", say)
            for cause, runs in self._caused[job].items():
                kind, _ = self._ends[parent].get(cause, ("", 0))
                ran = [run for run in sorted(runs) if self._ends[job][run][0] != "skipped"]
                if ran and not fits(kind, awaited):
                    say = f"{ran[0]} follows {cause}, which ended as {kind or 'nothing'}"
                    self.say("follows what it waits for", say)


def fits(kind: str, awaited: str) -> bool:
    """Whether a job that waits for `awaited` follows an end of this kind."""
    if awaited == "end":
        return kind not in ("", "skipped")
    return kind in ((*BAD,) if awaited == "failure" else ("succeeded",))
