"""The offline judge of runs: etcd's changes, revision by revision, against the invariants of the run life.

It reads records, and knows nothing of the transactions that made them. A finding names the rule it breaks.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Kind, Outcome
from crony.domain.run import Claim, Done, Envelope, Request
from crony.domain.signing import peek
from crony.etcd.keys import Keys, decode
from crony.etcd.watch import Event
from crony.transport_etcd import message as wire
from tests.property.judge import Finding

At = tuple[str, str]
"""Queue and place of a message."""


@dataclass
class State:
    """What lies in etcd after a revision, as far as runs are concerned."""

    jobs: dict[str, LiveJob] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    requests: dict[str, str] = field(default_factory=dict)
    waits: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    messages: dict[At, Envelope] = field(default_factory=dict)
    claims: dict[At, tuple[int, str]] = field(default_factory=dict)
    """Fence and holder."""

    def places(self) -> dict[str, list[str]]:
        """Where each live run is."""
        found: dict[str, list[str]] = defaultdict(list)
        for run in self.requests.values():
            found[run].append("requested")
        for run in self.waits:
            found[run].append("waiting")
        for queue, place in self.messages:
            found[ids.place_ident(place)].append(f"in {queue} at {place}")
        for run in self.accepted:
            found[run].append("accepted")
        return found


class RunJudge:
    """Feed it events in their order; `found` is what is wrong."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._state = State()
        self._outcomes: set[tuple[str, str]] = set()
        self.found: list[Finding] = []

    def judge(self, events: Iterable[Event]) -> list[Finding]:
        """Everything that is wrong with this history."""
        for _, group in groupby(events, key=lambda event: event.mod):
            self._revision(list(group))
        return self.found

    def _say(self, rule: str, what: str) -> None:
        self.found.append(Finding(rule, what))

    def _revision(self, events: list[Event]) -> None:
        """All changes of one revision, as one step."""
        state = self._state
        before = state.places()
        claims, sessions = dict(state.claims), set(state.sessions)
        ended: dict[str, Outcome] = {}
        sent: list[Envelope] = []
        for event in events:
            kind, *rest = event.key.removeprefix(self._keys.root).split("/")
            if kind == "run":
                self._run(event, rest, ended, sent)
            elif kind == "session":
                (state.sessions.add if event.kind == "put" else state.sessions.discard)(rest[0])
            elif kind == "job" and event.kind == "put":
                self._job(rest[0], LiveJob.read(peek(event.value)))
            elif kind == "done" and event.kind == "put":
                upto = Done.read(event.value).upto_at
                if upto < state.done.get(rest[0], 0):
                    self._say("decided is decided", f"{rest[0]}: back from {state.done[rest[0]]} to {upto}")
                state.done[rest[0]] = upto
        self._places(before, ended)
        self._holders(claims, sessions, ended)
        for envelope in sent:
            self._dispatched(envelope, sessions)

    def _run(self, event: Event, rest: list[str], ended: dict[str, Outcome], sent: list[Envelope]) -> None:
        state, put = self._state, event.kind == "put"
        match rest:
            case ["in", ident]:
                state.requests.pop(ident, None)
                if put and (request := Request.read(event.value)).kind == "run":
                    state.requests[ident] = request.run
            case ["wait", run]:
                (state.waits.add if put else state.waits.discard)(run)
            case ["acc", run]:
                (state.accepted.add if put else state.accepted.discard)(run)
            case ["q", queue, "m", place]:
                state.messages.pop((decode(queue), place), None)
                if put:
                    envelope = Envelope.read(peek(json.loads(wire.decode(event.value)["body"])[0][0]))
                    state.messages[decode(queue), place] = envelope
                    sent.append(envelope)
            case ["q", queue, "c", place]:
                state.claims.pop((decode(queue), place), None)
                if put:
                    state.claims[decode(queue), place] = event.mod, Claim.read(event.value).incarnation
            case ["out", run, slot] if put:
                if (run, slot) in self._outcomes:
                    self._say("an attempt ends once", f"{run}, {slot}: a second outcome at revision {event.mod}")
                self._outcomes.add((run, slot))
                ended[run] = Outcome.read(event.value)

    def _job(self, job: str, live: LiveJob) -> None:
        known = self._state.jobs.get(job)
        if known is not None and live.revision < known.revision:
            self._say("revisions only rise", f"{job}: {live.revision} published over {known.revision}")
        self._state.jobs[job] = live

    def _places(self, before: dict[str, list[str]], ended: dict[str, Outcome]) -> None:
        after = self._state.places()
        for run, places in after.items():
            if len(places) > 1 and len(before.get(run, ())) < 2:
                self._say("one run, one place", f"{run} is {' and '.join(places)}")
        for run in before.keys() - after.keys() - ended.keys():
            self._say("no run vanishes", f"{run} was {before[run][0]}, and is nowhere, without outcome")

    def _holders(self, claims: dict[At, tuple[int, str]], sessions: set[str], ended: dict[str, Outcome]) -> None:
        state = self._state
        for at, (fence, holder) in claims.items():
            if at in state.claims and at not in state.messages:
                self._say("a holder keeps it", f"{at}: the message went, {holder or 'nobody'}'s claim stayed")
            outcome = ended.get(ids.place_ident(at[1]))
            if at in state.claims or outcome is None:
                continue
            if outcome.kind == Kind.LOST and outcome.fence == 0:
                if holder in sessions:
                    self._say("a holder keeps it", f"{at}: taken over from {holder}, which lives")
            elif outcome.fence != fence:
                self._say("ended by its fence", f"{at}: held by fence {fence}, ended by fence {outcome.fence}")

    def _dispatched(self, envelope: Envelope, sessions: set[str]) -> None:
        live = self._state.jobs.get(envelope.job)
        if live is not None and (live.revision, live.enabled) != (envelope.revision, True):
            say = f"{envelope.run}: revision {envelope.revision}, published is {live.revision}, enabled: {live.enabled}"
            self._say("the document that stands", say)
        if envelope.incarnation not in sessions:
            self._say("sent to the living", f"{envelope.run}: {envelope.incarnation} has no session")


__all__ = ["RunJudge"]
