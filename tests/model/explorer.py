"""A small explicit-state model checker: breadth-first over every interleaving, shortest trace to a violation.

A model is an initial state (hashable) and a function that gives every possible next step as
(what happened, next state). Between the reading of a record and the write that depends on it anything
may happen, so a model splits each transaction in two: *prepare* copies what was read into a pending
transaction, *apply* evaluates its compares on the state as it is then. A pending transaction may also
stay pending while its sender, who got no answer, prepares another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass
class Result:
    """How many states were seen, and the first violation with the shortest way to it."""

    states: int
    violation: str = ""
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.violation:
            return f"holds in {self.states} states"
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.violation} (after {self.states} states)\n{steps}"


@dataclass
class Explorer(Generic[S]):
    """`steps(state)` yields (what, next state); `check(state)` and `final(state)` say what is wrong, or "".

    `check` holds in every state, `final` in those that have no further step.
    """

    initial: S
    steps: Callable[[S], Iterable[tuple[str, S]]]
    check: Callable[[S], str]
    final: Callable[[S], str] = lambda state: ""
    limit: int = 400_000

    def run(self) -> Result:
        """Visit every reachable state, or stop at the first violation. Raises when there are more than `limit`."""
        came_from: dict[S, tuple[S, str] | None] = {self.initial: None}
        queue = deque([self.initial])
        wrong = self.check(self.initial)
        assert not wrong, f"the initial state is wrong: {wrong}"
        while queue:
            state = queue.popleft()
            stuck = True
            for what, following in self.steps(state):
                stuck = False
                if following in came_from:
                    continue
                came_from[following] = (state, what)
                wrong = self.check(following)
                if wrong:
                    return Result(len(came_from), wrong, self._trace(came_from, following))
                queue.append(following)
            if stuck and (wrong := self.final(state)):
                return Result(len(came_from), wrong, self._trace(came_from, state))
            if len(came_from) > self.limit:
                raise AssertionError(f"more than {self.limit} states: narrow the model")
        return Result(len(came_from))

    @staticmethod
    def _trace(came_from: dict[S, tuple[S, str] | None], state: S) -> list[str]:
        trace = []
        while (step := came_from[state]) is not None:
            state, what = step
            trace.append(what)
        return trace[::-1]
