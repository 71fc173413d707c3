"""What changed in a book and was not looked at yet; each duty takes its own part off."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class News:
    """By what it is about."""

    jobs: set[str] = field(default_factory=set)
    waits: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)
    """Accepted runs that are new, or of which a sign of life came."""
    joins: set[str] = field(default_factory=set)
    inbox: bool = False
    ends: bool = False
    backfills: set[str] = field(default_factory=set)
    """Backfills that changed, or some of whose runs did."""
    queues: bool = False
    """A claim was released, or a node changed."""
    outs: bool = False
    dead: bool = False
    doubt: bool = False
    """A cursor moved that should not have: an unanswered transaction arrived late. List the runs anew."""

    def rest(self) -> None:
        """Forget all but what is new of jobs."""
        for gathered in (self.waits, self.heard, self.joins, self.backfills):
            gathered.clear()
        self.doubt = False
