"""What callers were told is true: saves are live, runs exist, one idempotency key means one run."""

from __future__ import annotations

from collections import defaultdict

from tests.soak.judge.reading import History, Judge, State, Step, Told, job_of, sealed

SAVES = ("create", "edit", "pause", "resume")


class Answers(Judge):
    """Each answer against what etcd shows."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.published: dict[str, list[tuple[int, float, bool]]] = defaultdict(list)
        """Job -> (revision, not before this instant, deleted)."""
        self.known: dict[str, float] = {}
        """Run -> not before this instant."""
        self.keys: dict[tuple[str, str], set[str]] = defaultdict(set)
        """(job, idempotency key) -> runs that bear it."""
        self.over: set[str] = set()

    def before(self, step: Step, state: State) -> None:
        """Gather."""
        for change in step.changes:
            if change.new is None:
                continue
            match change.parts:
                case ["job", job]:
                    told = sealed(change.new.value)
                    self.published[job].append((int(told["revision"]), step.low, bool(told.get("deleted"))))
                case ["run", "in", _]:
                    told = change.new.told
                    if told.get("kind") == "run":
                        self._bears(str(told["run"]), str(told.get("idem") or ""), step)
                case ["run", "out", run, slot]:
                    told = change.new.told
                    self._bears(run, str(told.get("idem") or ""), step)
                    if told.get("final") or slot in ("0", "end"):
                        self.over.add(run)

    def _bears(self, run: str, key: str, step: Step) -> None:
        self.known.setdefault(run, step.low)
        if key:
            self.keys[job_of(run), key].add(run)

    def finish(self, state: State) -> None:
        """Judge the answers."""
        given: dict[tuple[str, str], set[str]] = defaultdict(set)
        for op in self.history.ops:
            status = int(op.get("status", 0))
            if not 200 <= status < 300:
                continue
            if op["what"] in SAVES:
                self._saved(op, status)
            elif op["what"] == "delete":
                published = self.published[op["job"]]  # created and deleted while etcd was away: nothing ever is
                if self.history.ended and published and not any(deleted for *_, deleted in published):
                    self.say(
                        "saves go live", f"{op['job']} was deleted for {op['answered']:.1f}, and still is published"
                    )
            elif op["what"] in ("run", "enqueue"):
                self._asked(op)
                if op.get("key"):
                    given[op["job"], op["key"]].add(op["run"])
        for (job, key), runs in given.items():
            if len(runs) > 1:
                self.say("one key, one run", f"{job}, key {key}: callers were told of {', '.join(sorted(runs))}")
        for (job, key), runs in self.keys.items():
            if len(runs) > 1:
                self.say("one key, one run", f"{job}, key {key}: {', '.join(sorted(runs))}")

    def _saved(self, op: Told, status: int) -> None:
        seen = [low for revision, low, _ in self.published[op["job"]] if revision >= int(op["revision"])]
        where = f"{op['what']} of {op['job']}, revision {op['revision']}"
        if not seen and self.history.ended and not self.history.restored:
            self.say("saves go live", f"{where}: never published")
        if status != 202 and seen and min(seen) > float(op["answered"]) and self._covered(op):
            self.say("saves go live", f"{where}: answered as live {min(seen) - op['answered']:.1f} s before it was")

    def _covered(self, op: Told) -> bool:
        """The history goes on until after the answer."""
        return bool(self.history.steps) and self.history.steps[-1].low > float(op["answered"])

    def _asked(self, op: Told) -> None:
        run = str(op["run"])
        since = self.known.get(run)
        if since is None or (since > float(op["answered"]) and self._covered(op)):
            self.say("what was accepted is there", f"{run}: answered {op['status']}, and nobody knows it")
        elif self.history.ended and run not in self.over and not self.history.restored:
            self.say("what was accepted is there", f"{run}: accepted, and never ended")
