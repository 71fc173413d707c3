"""Transactions 11 and 12 (accept, complete, heartbeat, expire) among claim, end and take over, around one run.

One node, whose session may end; a child that calls; a callee per attempt that reports through a web, once or more, the
same or the contrary; a leader that ends the late and the silent; an archive that removes outcomes at any moment. Webs
and leader decide from what they saw and write later, also when they have been asked again meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

ATTEMPTS = 2


class Held(NamedTuple):
    """A record of one attempt, with the version that stands for etcd's mod revision."""

    attempt: int
    version: int


class Child(NamedTuple):
    """The process that made the call; `asked`: it has accepted once and got no answer."""

    attempt: int
    fence: int
    asked: bool = False


class Callee(NamedTuple):
    """Who has the token of an attempt: the fence and what it has told the world so far."""

    attempt: int
    fence: int
    told: tuple[str, ...] = ()
    """Its reports that were answered with 200."""


class Pending(NamedTuple):
    """A transaction on its way. `seen`: version of the record it moves; `beat`: of the sign of life, where compared."""

    kind: str
    attempt: int
    seen: int
    report: str = ""
    beat: int = -1


class State(NamedTuple):
    revision: int = 1
    wait: Held | None = Held(0, 1)
    message: Held | None = None
    claim: int = 0
    """Its fence; 0: none."""
    acc: Held | None = None
    beat: int = 0
    session: bool = True
    losses: int = 1
    beats: int = 1
    children: tuple[Child, ...] = ()
    callees: tuple[Callee, ...] = ()
    outs: tuple[tuple[int, str], ...] = ()
    """Outcomes in etcd: (attempt, by what report or by whom)."""
    history: tuple[tuple[int, str, bool], ...] = ()
    """Every outcome there ever was, with `final`."""
    pending: tuple[Pending, ...] = ()
    broken: str = ""


class Model:
    """The model, with some of its compares removed or done as an earlier draft had them."""

    def __init__(self, without: str = "", *, losses: int = 1, beats: int = 1, limbo: int = 2) -> None:
        self.without, self.limbo = without, limbo
        self.initial = State(losses=losses, beats=beats)

    def run(self) -> Result:
        return Explorer(self.initial, self.steps, self.check, self.final).run()

    # -- what may happen ---------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if state.session and state.losses:
            yield "the node's session ends", state._replace(session=False, losses=state.losses - 1)
        if not state.session:
            yield "the session is back", state._replace(session=True)
        if state.wait is not None and state.session:
            yield "the leader releases", self.release(state, state.wait)
        if state.message is not None and not state.claim and state.session:
            yield "the node claims and calls", self.claim(state, state.message)
        for child in state.children:
            yield from self.child(state, child)
        for attempt, by in state.outs:
            outs = tuple(out for out in state.outs if out != (attempt, by))
            yield f"the archive takes attempt {attempt}", state._replace(outs=outs)
        for callee in state.callees:
            yield from self.reports(state, callee)
        if len(state.pending) < self.limbo:
            for what, sent in self.prepared(state):
                yield what, state._replace(pending=tuple(sorted((*state.pending, sent))))
        for sent in state.pending:
            rest = list(state.pending)
            rest.remove(sent)
            yield f"etcd takes: {sent}", self.apply(state._replace(pending=tuple(rest)), sent)

    def child(self, state: State, child: Child) -> Iterator[tuple[str, State]]:
        """The node's process: it has its own fence only, so deciding and writing are one step."""
        gone = state._replace(children=tuple(each for each in state.children if each != child))
        if not child.asked:
            yield "the service answers 200", self.end(gone, child, "succeeded by the node")
            yield "the service answers 500", self.end(gone, child, "failed by the node")
            again = state._replace(children=(*gone.children, child._replace(asked=True)))
            yield f"attempt {child.attempt} is accepted, and its node gets no answer", self.accept(again, child)
        yield f"attempt {child.attempt} is accepted", self.accept(gone, child)

    def reports(self, state: State, callee: Callee) -> Iterator[tuple[str, State]]:
        """A report is answered at once when the attempt has ended; else a transaction goes out (see `prepared`)."""
        if self.standing(state, callee) != "over":
            return
        for report in ("succeeded", "failed"):
            if (callee.attempt, report) in state.outs and report not in callee.told:
                callees = tuple(
                    each._replace(told=(*each.told, report)) if each == callee else each for each in state.callees
                )
                yield f"the callee of attempt {callee.attempt} is told: {report}", state._replace(callees=callees)

    def standing(self, state: State, callee: Callee) -> str:
        """What a web finds when this callee speaks."""
        if state.acc is not None and state.acc.attempt == callee.attempt:
            return "waits"
        return "in call" if state.claim == callee.fence else "over"

    def prepared(self, state: State) -> Iterator[tuple[str, Pending]]:
        """What webs and the leader may decide from what they see now."""
        for callee in state.callees:
            found = self.standing(state, callee)
            seen = state.acc.version if state.acc is not None else 0
            for report in ("succeeded", "failed"):
                if found != "over" or self.without == "create-only outcome":
                    kind = "complete" if found == "waits" else "complete early"
                    seen = seen if found == "waits" else callee.fence
                    yield (
                        f"attempt {callee.attempt} is reported as {report}",
                        Pending(kind, callee.attempt, seen, report),
                    )
            if found == "waits" and state.beats:
                yield "a heartbeat", Pending("heartbeat", callee.attempt, seen, beat=state.beat)
        if state.acc is not None:
            yield "it is late", Pending("late", state.acc.attempt, state.acc.version)
            yield "it was silent", Pending("silent", state.acc.attempt, state.acc.version, beat=state.beat)
        if not state.session and state.claim and state.message is not None:
            yield "the leader takes over", Pending("takeover", state.message.attempt, state.claim)

    # -- the transactions -----------------------------------------------------------------------

    def release(self, state: State, wait: Held) -> State:
        revision = state.revision + 1
        return state._replace(revision=revision, wait=None, message=Held(wait.attempt + 1, revision))

    def claim(self, state: State, message: Held) -> State:
        revision = state.revision + 1
        broken = state.broken
        if any(attempt == message.attempt or final for attempt, _, final in state.history):
            broken = broken or f"attempt {message.attempt} is run although it, or the run, has ended"
        return state._replace(
            revision=revision, claim=revision, broken=broken,
            children=(*state.children, Child(message.attempt, revision)),
            callees=(*state.callees, Callee(message.attempt, revision)),
        )  # fmt: skip

    def accept(self, state: State, child: Child) -> State:
        fits = state.claim == child.fence or (self.without == "accept fence" and state.claim > 0)
        if self.without == "accept anything" and state.acc is None and state.wait is None:
            fits = True
        if not fits:
            return state
        revision = state.revision + 1
        return state._replace(revision=revision, message=None, claim=0, acc=Held(child.attempt, revision))

    def end(self, state: State, child: Child, how: str) -> State:
        if state.claim != child.fence:
            return state
        state = state._replace(revision=state.revision + 1, message=None, claim=0)
        return self.ended(state, child.attempt, how, how.startswith("succeeded"))

    def apply(self, state: State, sent: Pending) -> State:
        acc = state.acc is not None and state.acc.version == sent.seen
        if sent.kind == "heartbeat":
            fits = (acc or self.without == "heartbeat acc") and (state.beat == sent.beat)
            if not fits:
                return state
            revision = state.revision + 1
            return state._replace(revision=revision, beat=revision, beats=state.beats - 1)
        if sent.kind == "takeover":
            if state.session or state.claim != sent.seen:
                return state
            state = state._replace(revision=state.revision + 1, message=None, claim=0)
            return self.ended(state, sent.attempt, "lost", False)
        if sent.kind in ("late", "silent"):
            if self.without == "expire acc":
                acc = state.acc is not None
            heard = sent.kind == "silent" and state.beat != sent.beat and self.without != "silent beat"
            if not acc or heard:
                return state
            broken = state.broken
            if sent.kind == "silent" and state.beat != sent.beat:
                broken = broken or "it is ended for its silence, and it was heard"
            state = state._replace(revision=state.revision + 1, acc=None, beat=0, broken=broken)
            return self.ended(state, sent.attempt, "timed_out", False)
        if self.without == "create-only outcome":
            fits = not any(attempt == sent.attempt for attempt, _ in state.outs)
        elif sent.kind == "complete":
            fits = acc or (self.without == "complete acc" and state.acc is not None)
        else:
            fits = state.claim == sent.seen or (self.without == "early fence" and state.claim > 0)
        if not fits:
            return state
        revision = state.revision + 1
        state = state._replace(revision=revision)
        if self.without == "create-only outcome":  # whatever there is of the attempt goes with it
            if state.acc is not None and state.acc.attempt == sent.attempt:
                state = state._replace(acc=None, beat=0)
            if state.message is not None and state.message.attempt == sent.attempt:
                state = state._replace(message=None, claim=0)
        elif sent.kind == "complete":
            state = state._replace(acc=None, beat=0)
        elif self.without != "early removes nothing":
            state = state._replace(message=None, claim=0)
        return self.ended(state, sent.attempt, sent.report, sent.report == "succeeded")

    def ended(self, state: State, attempt: int, how: str, good: bool) -> State:
        final = good or attempt >= ATTEMPTS
        return state._replace(
            outs=tuple(sorted((*state.outs, (attempt, how)))),
            history=tuple(sorted((*state.history, (attempt, how, final)))),
            wait=state.wait if final else Held(attempt, state.revision),
        )

    # -- what must hold ---------------------------------------------------------------------------

    def check(self, state: State) -> str:
        if state.broken:
            return state.broken
        attempts = [attempt for attempt, _, _ in state.history]
        if len(set(attempts)) != len(attempts):
            return f"an attempt has two outcomes: {state.history}"
        final = [outcome for outcome in state.history if outcome[2]]
        if len(final) > 1 or (final and final[0][0] != max(attempts)):
            return f"the run ended twice, or went on after its end: {state.history}"
        places = sum(record is not None for record in (state.wait, state.message, state.acc))
        if places != (0 if final else 1):
            return f"the run is in {places} places and {'has' if final else 'has not'} ended (I1)"
        if state.beat and state.acc is None:
            return "a sign of life stays behind (A4)"
        if state.claim and state.message is None:
            return "a claim without a message (I5)"
        for callee in state.callees:
            if any((callee.attempt, report) not in [(n, how) for n, how, _ in state.history] for report in callee.told):
                return f"a callee was told that its report counts, and it does not: {callee} {state.history}"
        return ""

    def final(self, state: State) -> str:
        return "" if any(final for _, _, final in state.history) else "nothing moves and the run has not ended"


@pytest.mark.parametrize(("losses", "beats"), [(1, 0), (0, 1)])
def test_the_design_holds(losses: int, beats: int) -> None:
    """A loss meets a claim, a heartbeat an accepted record, and no attempt has both: they need not meet each other."""
    result = Model(losses=losses, beats=beats).run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 5000


@pytest.mark.parametrize(
    ("without", "finds"),
    [
        ("create-only outcome", "two outcomes"),  # A1
        ("early removes nothing", "places"),  # A2
        ("early fence", ""),
        ("complete acc", ""),
        ("accept fence", "two outcomes"),
        ("accept anything", "places"),
        ("expire acc", ""),
        ("silent beat", "it was heard"),
        ("heartbeat acc", "A4"),
    ],
)
def test_each_compare_is_needed(without: str, finds: str) -> None:
    result = Model(without).run()
    print(without, "->", result)
    assert result.violation, f"without `{without}` nothing went wrong: the model shows too little"
    assert finds in result.violation
