"""Why a node was chosen and each other one was not, as one line of text that travels with the run.

Envelope, outcome and archive keep the line; people read it as it is, `Grounds.read` takes it apart for programs:
`its turn among 2 nodes, weight 1 of 3; strategy weighted; not in its turn: n2; cordoned: n3, n4; 5 more`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

MOST = 20
"""Nodes that are named; further ones are counted."""
LONGEST = 700
"""Characters of such a line, about: outcomes and rows have little room."""
NAME = 60
"""Characters of one node's name in it."""
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Grounds:
    """`why` is empty when nobody was chosen."""

    why: str = ""
    strategy: str = ""
    passed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Reason -> nodes that were passed over for it, in the order of their weight for a reader."""
    more: int = 0
    """Nodes passed over that are not named."""

    def text(self) -> str:
        """The line."""
        clauses = [self.why] if self.why else []
        clauses += [f"strategy {self.strategy}"] if self.strategy else []
        clauses += [f"{reason}: {', '.join(nodes)}" for reason, nodes in self.passed]
        clauses += [f"{self.more} more"] if self.more else []
        return "; ".join(clauses)

    @classmethod
    def read(cls, text: str) -> Grounds:
        """What a line says; a line of an older version, or one that was cut, says less."""
        why: list[str] = []
        strategy, more = "", 0
        passed: list[tuple[str, tuple[str, ...]]] = []
        for clause in text.split("; ") if text else ():
            reason, marked, nodes = clause.partition(": ")
            if marked:
                passed.append((reason, tuple(nodes.split(", "))))
            elif match := re.fullmatch("strategy ([a-z_]+)", clause):
                strategy = match[1]
            elif match := re.fullmatch("([0-9]{1,9}) more", clause):
                more = int(match[1])
            else:
                why.append(clause)
        return cls("; ".join(why), strategy, tuple(passed), more)


def grounds(why: str, strategy: str, passed: Iterable[tuple[str, Sequence[str]]]) -> Grounds:
    """Grounds with at most `MOST` nodes named, in a line of about `LONGEST` characters."""
    kept: list[tuple[str, tuple[str, ...]]] = []
    left, more = MOST, 0
    size = len(why)
    for reason, nodes in passed:
        names: list[str] = []
        for node in nodes[:left] if size < LONGEST else ():
            names.append(_named(node))
            size += len(names[-1]) + 2
            if size >= LONGEST:
                break
        left, more = left - len(names), more + len(nodes) - len(names)
        if names:
            kept.append((_reason(reason), tuple(names)))
            size += len(kept[-1][0]) + 4
    return Grounds(why, strategy, tuple(kept), more)


@lru_cache(maxsize=10_000)
def _named(node: str) -> str:
    """A node's name without blanks, so that the line can be taken apart."""
    return _BLANKS.sub("_", node)[:NAME]


@lru_cache(maxsize=10_000)
def _reason(text: str) -> str:
    return _BLANKS.sub(" ", text)[:100]
