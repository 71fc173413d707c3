"""What the duties of one leader share: settings, clock, memory, desk, committer, holds, counters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from crony.beat import policy
from crony.beat.agenda import Agenda
from crony.beat.book import Book
from crony.beat.commit import Committer
from crony.beat.desk import Desk
from crony.beat.entries import JobEntry
from crony.clock import Clock
from crony.domain.figures import Figures
from crony.domain.livejob import LiveJob
from crony.domain.routing import Strategy
from crony.domain.signing import Verifier
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.move import Dispatch
from crony.settings import Settings

log = logging.getLogger("crony.beat")

LATE = 1.0
"""A fire that is dispatched so many seconds after it was due is counted as late."""


class Holds:
    """Reasons not to dispatch right now; each is said once when it comes and once when it goes."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def set(self, name: str, sentence: str) -> None:
        """Hold: `sentence` says what, why, and what to try."""
        if name not in self._reasons:
            log.warning("dispatch is held: %s", sentence)
        self._reasons = {**self._reasons, name: sentence}

    def clear(self, name: str) -> None:
        """That reason is gone."""
        if name in self._reasons:
            self._reasons = {key: value for key, value in self._reasons.items() if key != name}
            log.warning("dispatch is no longer held because of: %s", name)

    def __bool__(self) -> bool:
        return bool(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Name -> sentence."""
        return dict(self._reasons)


@dataclass
class Office:
    """One leader's things. The decision loop owns `book`, `agenda`, `desk` and `committer`."""

    settings: Settings
    clock: Clock
    client: Client
    keys: Keys
    book: Book
    agenda: Agenda
    desk: Desk
    committer: Committer
    webs: Verifier
    """Opens job documents."""
    holds: Holds = field(default_factory=Holds)
    counts: Counter[str] = field(default_factory=Counter)
    """What happened in this term, by name."""
    figures: Figures = field(default_factory=Figures)
    """What the centre counted since its start."""
    strangers: dict[str, float] = field(default_factory=dict)
    """Jobs asked for that no watch has told of yet, and since when, monotonic."""

    def __post_init__(self) -> None:
        """The wall clock counts as right until somebody looks."""
        self._trusted = self.clock.wall(), self.clock.monotonic()

    def wall(self) -> float:
        """Whether something is due: the wall clock as it was when it was last found right, carried on by the monotonic
        one. So nothing is decided by a clock that has just stepped, and that nobody has looked at yet."""
        wall, mono = self._trusted
        return wall + self.clock.monotonic() - mono

    def trust(self, wall: float, mono: float) -> None:
        """The wall clock was right: `wall`, when the monotonic one was at `mono`."""
        self._trusted = wall, mono

    @property
    def stepped(self) -> float:
        """How far the wall clock is now from what it was found to be, seconds."""
        return self.clock.wall() - self.wall()

    def mono(self) -> float:
        """How long something took."""
        return self.clock.monotonic()

    def sent(self, dispatches: Iterable[Dispatch]) -> None:
        """These messages are in their queues."""
        for dispatch in dispatches:
            item = self.book.queued.get((dispatch.envelope.queue, dispatch.place))
            if item is not None:
                item.sent_to(dispatch.envelope.incarnation)
            self.counts["dispatched"] += 1

    def figured(self, dispatches: Iterable[Dispatch]) -> None:
        """These fires are dispatched: how long after they were due."""
        now = self.wall()
        for dispatch in dispatches:
            if dispatch.envelope.fire_at is not None:
                lag = now - dispatch.envelope.fire_at
                self.figures.took("lag", lag)
                if lag > LATE:
                    self.figures.count("late")

    def at_once(self, entry: JobEntry, live: LiveJob) -> int:
        """How many runs of a job fit one decision. A broadcast's record names the nodes."""
        named = live.job.routing.strategy == Strategy.BROADCAST
        size = entry.size + (sum(len(node) + 3 for node in self.book.nodes) // 2 if named else 0)
        return policy.at_once(size, pools=len(live.job.limits))

    def owner(self, job: str) -> tuple[str, int]:
        """A published job's (id, revision of its key as known), for a move's compare."""
        return job, self.book.seen(self.keys.job(job))
