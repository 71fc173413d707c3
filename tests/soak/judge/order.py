"""What must hold for records as such: order, revisions, leases, sizes (PROTOCOL 1.3: I7 to I10; oracle I5)."""

from __future__ import annotations

from tests.soak.judge.reading import Change, History, Judge, Kept, State, Step, Told, is_part, sealed

LEASED = (
    "session/",
    "node/",
    "svc/",
    "beat/centre/",
    "queue.consumer/",
    "queue.sent/",
    "queue.upkeep",
    "queue.delayed-owner",
    "fan/",
)
"""Keys that must have a lease, beside the leader's."""
MAY_BE_LEASED = ("queue/", "bind/", "q/")
"""Exclusive queues, and what belongs to them."""
MOST_CHANGES = 100
MOST_BYTES = 512 * 1024
PUBLISH_BYTES = 1280 * 1024
BAD = ("failed", "timed_out", "lost", "unknown", "refused")
"""Final outcomes that somebody has to be told of."""


class Order(Judge):
    """Positions, revisions and terms only rise; records are archived behind `settled`, and told of first."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.revisions: dict[str, int] = {}
        self.terms: dict[str, int] = {}
        """Shard -> its latest term."""
        self.settled = (0, "")
        self.told: set[str] = set()
        """Runs that an alert spoke of."""
        self.not_told: dict[str, tuple[int, str]] = {}
        self.no_room = False

    def before(self, step: Step, state: State) -> None:
        """Judge each change by its kind."""
        for change in step.changes:
            match change.parts:
                case ["job", job]:
                    self._job(step, job, change, state)
                case ["settled"] if change.new:
                    self._settled(step, change.new.told)
                case ["alert", ident] if change.new:
                    self.told.add(str(change.new.told.get("run")))
                    self.no_room |= ident.startswith("not_kept")
                case ["run", "out", run, _]:
                    self._out(step, run, change)
                case ["beat", shard, "last"] if change.new:
                    term, known = int(change.new.told.get("term", 0)), self.terms.get(shard, 0)
                    if term < known:
                        self.say("terms only rise", f"{term} after {known} at revision {step.revision}")
                    self.terms[shard] = max(term, known)

    def _job(self, step: Step, job: str, change: Change, state: State) -> None:
        if change.new is None:
            return
        told = sealed(change.new.value)
        revision, known = int(told.get("revision", 0)), self.revisions.get(job, 0)
        if revision <= known:
            self.say("revisions only rise", f"{job}: {revision} published over {known} at revision {step.revision}")
        self.revisions[job] = max(revision, known)

    def _settled(self, step: Step, told: Told) -> None:
        now = int(told.get("revision", 0)), str(told.get("key", ""))
        if now < self.settled:
            self.say("settled in order", f"from {self.settled} back to {now} at revision {step.revision}")
        self.settled = max(now, self.settled)
        for run, at in list(self.not_told.items()):
            if at <= self.settled:
                del self.not_told[run]
                alerts = {str(each.new.told.get("run")) for each in step.of("alert") if each.new}
                if run not in self.told | alerts and not self.no_room:
                    self.say("failures are told", f"{run} failed, and is settled at {step.revision} without an alert")

    def _out(self, step: Step, run: str, change: Change) -> None:
        if change.new is None:
            at = change.old.mod if change.old else 0
            if (at, self.history.root + change.key) > self.settled:
                self.say("archived behind settled", f"{change.key} of revision {at} went at {step.revision}")
        elif is_part(run):
            return  # its whole run is told of
        elif change.new.told.get("final") and change.new.told.get("kind") in BAD:
            self.not_told[run] = step.revision, self.history.root + change.key


class Shape(Judge):
    """Leases where they belong, and transactions that etcd can take."""

    def before(self, step: Step, state: State) -> None:
        """Judge keys, and the step as a whole."""
        for change in step.changes:
            if change.new is not None:
                self._lease(step, change.key, change.new)
        puts = [each for each in step.changes if each.new is not None]
        size = sum(len(each.key) + len(each.new.value) for each in puts if each.new)
        if puts and len(step.changes) > MOST_CHANGES:
            self.say("small transactions", f"{len(step.changes)} changes at revision {step.revision}")
        most = PUBLISH_BYTES if any(each.key.startswith("job/") for each in puts) else MOST_BYTES
        if size > most:
            self.say("small transactions", f"{size} bytes at revision {step.revision}")

    def _lease(self, step: Step, key: str, kept: Kept) -> None:
        leader = key.startswith("beat/") and key.endswith("/leader")
        if (leader or key.startswith(LEASED)) and not kept.lease:
            self.say("leases where they belong", f"{key} has none at revision {step.revision}")
        if kept.lease and not leader and not key.startswith(LEASED + MAY_BE_LEASED):
            self.say("leases where they belong", f"{key} has one at revision {step.revision}")


class Witness(Judge):
    """The recorder saw every revision."""

    def finish(self, state: State) -> None:
        """No gap, and the last listing is what the changes add up to."""
        last = self.history.recorded_from
        for step in self.history.steps:
            if step.revision != last + 1:
                self.say(
                    "the witness saw everything", f"nothing is known of revisions {last + 1} to {step.revision - 1}"
                )
            last = step.revision
        for each in self.history.blind:
            self.say("the witness saw everything", f"compaction overtook it after revision {each['after']}")
