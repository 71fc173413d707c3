"""Transactions 7, 8, 10, 13 and 14 (release, claim, end, take over, re-route) around one run.

Two nodes, whose sessions may end and come back under the same incarnation while their children run
on; a leader that decides from what it saw; every transaction is prepared from one state and applied
to another, also when its sender has gone on meanwhile. One retry is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.model.explorer import Explorer, Result

ATTEMPTS = 2
"""First attempt and one retry."""
NODES = (0, 1)


class Message(NamedTuple):
    """A message in a node's queue. `version` stands for etcd's mod revision."""

    attempt: int
    version: int


class Claim(NamedTuple):
    """The claim beside it; the holder is always the queue's node, `version` is the fence."""

    version: int


class Wait(NamedTuple):
    """The run while it waits."""

    finished: int
    version: int


class Child(NamedTuple):
    """A process that runs an attempt, on a node that may be cut off."""

    attempt: int
    fence: int
    asked: str = ""
    """How it ended, when it got no answer to saying so; it says it once more."""


class Pending(NamedTuple):
    """A prepared transaction."""

    kind: str
    node: int
    attempt: int
    seen: int
    """Version of the record it moves: wait, message or claim."""


class State(NamedTuple):
    revision: int
    wait: Wait | None
    messages: tuple[Message | None, Message | None]
    claims: tuple[Claim | None, Claim | None]
    sessions: tuple[bool, bool]
    losses: int
    """Sessions that may still end."""
    children: tuple[tuple[Child, ...], tuple[Child, ...]]
    started: tuple[int, ...]
    """Attempts that ever started, in order."""
    outcomes: tuple[tuple[int, str, bool], ...]
    """(attempt, kind, final)."""
    pending: tuple[Pending, ...]
    broken: str = ""


def put(pair: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (value, pair[1]) if index == 0 else (pair[0], value)


class Model:
    """The model with some of its compares removed."""

    def __init__(self, without: str = "", losses: int = 2, limbo: int = 2) -> None:
        self.without, self.losses, self.limbo = without, losses, limbo

    def run(self) -> Result:
        initial = State(
            1, Wait(0, 1), (None, None), (None, None), (True, True), self.losses, ((), ()), (), (), ()
        )  # fmt: skip
        return Explorer(initial, self.steps, self.check, self.final).run()

    # -- what may happen ---------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        for node in NODES:
            if state.sessions[node] and state.losses:
                sessions = put(state.sessions, node, False)
                yield f"node {node}'s session ends", state._replace(sessions=sessions, losses=state.losses - 1)
            if not state.sessions[node]:
                yield f"node {node}'s session is back", state._replace(sessions=put(state.sessions, node, True))
        if len(state.pending) < self.limbo:
            for what, sent in self.prepared(state):
                # The same one may be under way twice: sent again because no answer came.
                yield what, state._replace(pending=tuple(sorted((*state.pending, sent))))
        for sent in state.pending:
            rest = list(state.pending)
            rest.remove(sent)
            after = self.apply(state._replace(pending=tuple(rest)), sent)
            yield f"etcd takes: {sent.kind} attempt {sent.attempt} node {sent.node}", after
        for node in NODES:
            for child in state.children[node]:
                # It has read nothing but its own fence, so preparing and applying are one step.
                name = f"the child of attempt {child.attempt} on node {node}"
                for kind in (child.asked,) if child.asked else ("succeeded", "failed"):
                    yield f"{name} {kind}", self.end(state, node, child, kind)
                    if not child.asked:
                        yield f"{name} {kind} and gets no answer", self.end(state, node, child, kind, answered=False)

    def prepared(self, state: State) -> Iterator[tuple[str, Pending]]:
        """What leader and nodes may decide from what they see now."""
        if state.wait is not None:
            for node in NODES:
                if state.sessions[node]:
                    attempt = state.wait.finished + 1
                    yield (
                        f"the leader releases attempt {attempt} to node {node}",
                        Pending("release", node, attempt, state.wait.version),
                    )
        for node in NODES:
            message, claim = state.messages[node], state.claims[node]
            if message is None:
                continue
            if claim is None and state.sessions[node]:
                yield f"node {node} claims", Pending("claim", node, message.attempt, message.version)
            if not state.sessions[node]:
                if claim is None:
                    yield (
                        f"the leader re-routes from node {node}",
                        Pending("reroute", node, message.attempt, message.version),
                    )
                else:
                    yield (
                        f"the leader takes over from node {node}",
                        Pending("takeover", node, message.attempt, claim.version),
                    )

    # -- the transactions -----------------------------------------------------------------------

    def apply(self, state: State, sent: Pending) -> State:
        node = sent.node
        message, claim = state.messages[node], state.claims[node]
        if sent.kind == "release":
            held = {
                "wait": state.wait is not None and state.wait.version == sent.seen,
                "session": state.sessions[node],
            }
        elif sent.kind == "claim":
            held = {
                "session": state.sessions[node],
                "message": message is not None and message.version == sent.seen,
                "claim": claim is None,
            }
        elif sent.kind == "reroute":
            held = {
                "session": not state.sessions[node],
                "message": message is not None and message.version == sent.seen,
                "unclaimed": claim is None,
            }
        else:
            held = {
                "session": not state.sessions[node],
                "fence": claim is not None and claim.version == sent.seen,
            }
        if not all(ok or f"{sent.kind} {name}" == self.without for name, ok in held.items()):
            return state
        revision = state.revision + 1
        state = state._replace(revision=revision)
        if sent.kind == "release":
            return state._replace(wait=None, messages=put(state.messages, node, Message(sent.attempt, revision)))
        if sent.kind == "claim":
            child = Child(sent.attempt, revision)
            broken = state.broken
            if sent.attempt in state.started:
                broken = broken or f"attempt {sent.attempt} was started twice"
            return state._replace(
                claims=put(state.claims, node, Claim(revision)),
                children=put(state.children, node, tuple(sorted((*state.children[node], child)))),
                started=(*state.started, sent.attempt),
                broken=broken,
            )
        state = state._replace(
            messages=put(state.messages, node, None), claims=put(state.claims, node, None)
        )  # fmt: skip
        if sent.kind == "reroute":
            return state._replace(wait=Wait(sent.attempt - 1, revision))
        if state.sessions[node]:
            state = state._replace(broken=state.broken or f"node {node} was alive and its claim was taken over")
        return self.ended(state, sent.attempt, "lost")

    def end(self, state: State, node: int, child: Child, kind: str, answered: bool = True) -> State:
        """Transaction 10 by the child; refused or answered, the child goes."""
        children = list(state.children[node])
        children.remove(child)
        if not answered:
            children = sorted([*children, child._replace(asked=kind)])
        state = state._replace(children=put(state.children, node, tuple(children)))
        message, claim = state.messages[node], state.claims[node]
        if self.without == "end fence":
            allowed = claim is not None  # the holder is the same node, so "is it mine" says yes
        elif self.without == "end everything":
            allowed = True
        else:
            allowed = claim is not None and claim.version == child.fence
        if not allowed:
            return state
        broken = state.broken
        if message is not None and message.attempt != child.attempt:
            broken = broken or f"attempt {message.attempt} was ended by the child of attempt {child.attempt}"
        revision = state.revision + 1
        state = state._replace(
            revision=revision,
            messages=put(state.messages, node, None),
            claims=put(state.claims, node, None),
            broken=broken,
        )
        return self.ended(state, child.attempt, kind)

    def ended(self, state: State, attempt: int, kind: str) -> State:
        """Outcome, and either the run's end or a place in wait."""
        final = kind == "succeeded" or attempt >= ATTEMPTS
        outcomes = tuple(sorted((*state.outcomes, (attempt, kind, final))))
        wait = state.wait if final else Wait(attempt, state.revision)
        return state._replace(outcomes=outcomes, wait=wait)

    # -- what must hold ---------------------------------------------------------------------------

    def check(self, state: State) -> str:
        if state.broken:
            return state.broken
        attempts = [attempt for attempt, _, _ in state.outcomes]
        if len(set(attempts)) != len(attempts):
            return f"an attempt has two outcomes: {state.outcomes}"
        final = [outcome for outcome in state.outcomes if outcome[2]]
        if len(final) > 1 or (final and final[0][0] != max(attempts)):
            return f"the run ended twice, or went on after its end: {state.outcomes}"
        places = (state.wait is not None) + sum(message is not None for message in state.messages)
        if places != (0 if final else 1):
            return f"the run is in {places} places and {'has' if final else 'has not'} ended (I1)"
        for node in NODES:
            if state.claims[node] is not None and state.messages[node] is None:
                return f"node {node} holds a claim without a message (I5)"
        return ""

    def final(self, state: State) -> str:
        return "" if any(final for _, _, final in state.outcomes) else "nothing moves and the run has not ended"


def test_the_design_holds() -> None:
    result = Model().run()
    print(result)
    assert not result.violation, str(result)
    assert result.states > 5000


@pytest.mark.parametrize(
    ("without", "finds"),
    [
        ("end fence", "was ended by the child of"),
        ("end everything", "two outcomes"),
        ("takeover session", "was alive and its claim was taken over"),
        ("takeover fence", ""),
        ("claim message", ""),
        ("claim claim", "was started twice"),
        ("reroute message", ""),
        ("reroute unclaimed", ""),
        ("release wait", "places"),
    ],
)
def test_each_compare_is_needed(without: str, finds: str) -> None:
    result = Model(without).run()
    print(without, "->", result)
    assert result.violation, f"without `{without}` nothing went wrong: the model shows too little"
    assert finds in result.violation
