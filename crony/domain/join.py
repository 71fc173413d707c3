"""A run in parts: which of them are made, how those that ended went, and what the run has come to with that.

The record `run/join/<run>` is where such a run is while its parts, which are runs of their own, are alive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from crony.domain.outcome import Kind
from crony.domain.record import Record

MOST_PARTS = 1000
MOST_NODES = 4000
"""Most nodes of one broadcast: its record names them all."""
NAMED = 20
"""Parts that are named when they did not succeed; further ones are counted."""
NOT_ENDED = "."
_LETTERS = {
    Kind.SUCCEEDED: "s", Kind.FAILED: "f", Kind.TIMED_OUT: "t", Kind.CANCELLED: "c", Kind.LOST: "l", Kind.UNKNOWN: "u",
    Kind.REFUSED: "r",
}  # fmt: skip
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Join(Record):
    """`run/join/<run>`."""

    run: str
    envelope: str
    """Sealed, of the whole run: what the parts are made from."""
    total: int
    since_at: float
    nodes: list[str] = field(default_factory=list)
    """Of a broadcast: the node of each part."""
    made: int = 0
    """Parts made so far: the first so many. A part is made in the transaction that raises this, so it is made once."""
    ends: str = ""
    """How each part made ended, as a letter; `.` for one that has not."""
    started_at: float | None = None
    """When the first of those that ended started."""
    known: dict[str, str] = field(default_factory=dict)
    """How parts that are not made yet ended, by number, as the archive knew when etcd was restored: they are counted
    as made when their turn comes, and not made again."""
    cancelled: str = ""
    """Why it was cancelled: no further parts are made. Empty: it was not."""

    def with_made(self, made: int) -> Self:
        """So many parts are made now; those that are known to have ended are not."""
        more = (_letter(self.known.get(str(number), "")) for number in range(self.made, made))
        left = {number: kind for number, kind in self.known.items() if int(number) >= made}
        return replace(self, made=made, ends=self.ends + "".join(more), known=left)

    def with_ended(self, kinds: Mapping[str, str], started_at: float | None) -> Self:
        """These parts ended, by number. Saying it again changes nothing; the first end of a part stands."""
        ends = list(self.ends)
        for number, kind in kinds.items():
            if number.isdecimal() and int(number) < len(ends) and ends[int(number)] == NOT_ENDED and kind in set(Kind):
                ends[int(number)] = _letter(kind)
        starts = [at for at in (self.started_at, started_at) if at is not None]
        return replace(self, ends="".join(ends), started_at=min(starts, default=None))

    @property
    def sound(self) -> bool:
        """Whether its parts fit together: whoever may write to etcd could have put anything."""
        return (
            all(type(number) is int for number in (self.total, self.made))
            and 0 <= self.made <= self.total
            and all(isinstance(text, str) for text in (self.run, self.envelope, self.ends, self.cancelled))
            and len(self.ends) == self.made
            and set(self.ends) <= {NOT_ENDED, *_KINDS}
            and isinstance(self.nodes, list)
            and len(self.nodes) in (0, self.total)
            and all(isinstance(node, str) for node in self.nodes)
            and isinstance(self.known, dict)
            and all(number.isdecimal() and kind in set(Kind) for number, kind in self.known.items())
            and (self.started_at is None or type(self.started_at) in (int, float))
        )

    @property
    def unended(self) -> list[int]:
        """Parts made that have not ended."""
        return [number for number, letter in enumerate(self.ends) if letter == NOT_ENDED]

    @property
    def ended(self) -> int:
        """How many parts have ended."""
        return len(self.ends) - self.ends.count(NOT_ENDED)

    @property
    def over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self.ended == self.made and (self.made == self.total or bool(self.cancelled))

    def counts(self) -> dict[str, Any]:
        """How many parts it has, and how many ended how."""
        ended = Counter(str(_KINDS[letter]) for letter in self.ends if letter != NOT_ENDED)
        return {"parts": self.total, **dict(sorted(ended.items()))}

    def verdict(self) -> tuple[Kind, str]:
        """How the whole run ends, and in one sentence why: well only if every part did."""
        bad: dict[Kind, list[int]] = {}
        for number, letter in enumerate(self.ends):
            if letter not in ("s", NOT_ENDED):
                bad.setdefault(_KINDS[letter], []).append(number)
        if not bad and self.made == self.total:
            return Kind.SUCCEEDED, ""
        if self.cancelled:
            left = f"{self.total - self.made} of {self.total} parts were not begun"
            return Kind.CANCELLED, f"{self.cancelled}; {left}" if self.made < self.total else self.cancelled
        count = sum(map(len, bad.values()))
        clauses, left_to_name = [f"{count} of {self.total} parts did not succeed"], NAMED
        for kind, numbers in bad.items():
            named = [self._named(number) for number in numbers[:left_to_name]]
            left_to_name -= len(named)
            clauses += [f"{kind}: {', '.join(named)}"] if named else []
        clauses += [f"{count - NAMED} more"] if count > NAMED else []
        return next(iter(bad)) if len(bad) == 1 else Kind.FAILED, "; ".join(clauses)

    def _named(self, number: int) -> str:
        return f"{number} ({self.nodes[number][:60]})" if number < len(self.nodes) else str(number)


def _letter(kind: str) -> str:
    """How a part ended, as a letter; of one that nobody knows to have ended, that it has not."""
    return _LETTERS.get(Kind(kind), "u") if kind else NOT_ENDED
