"""Settling: outcomes have their consequences in revision order, then go to the archiver (transaction 16).

The consequences: a run that failed for good is an alert, so is the first that succeeds after it; the leader of a job is
told of an awaited end and of parts of runs that ended; jobs that follow others are asked to run, or it is recorded why
they do not; and ends are counted for the rules on failure rates.
"""

from __future__ import annotations

import logging
from heapq import nsmallest

from crony.beat.commit import Step, Verdict
from crony.beat.duties.alerts import Undelivered
from crony.beat.duties.archiver import Archiver, Item
from crony.beat.duties.counting import counting
from crony.beat.duties.rates import Rates
from crony.beat.duty import Background
from crony.beat.office import Office
from crony.domain.alert import AlertKind, not_kept
from crony.domain.gathering import Gathering
from crony.domain.node import NodeFacts
from crony.lifecycle.settle import Consequences, consequences, settle

log = logging.getLogger("crony.beat")

EVERY = 0.2
NODES_EVERY = 10.0
MOST = 1000
"""Most outcomes of one settle: a leader that finds a mountain of them must go on firing meanwhile."""


class Settling:
    """The duty on `settled`."""

    def __init__(
        self,
        office: Office,
        archiver: Archiver,
        undelivered: Undelivered,
        delivery: Background,
        rates: Rates,
        *,
        term: int,
    ) -> None:
        self._office, self._archiver, self._rates = office, archiver, rates
        self._undelivered, self._delivery, self._term = undelivered, delivery, term
        self._not_kept = 0
        """Alerts of this term that found no room."""
        self._next = self._nodes_at = 0.0
        self._busy = False
        self.stream_revision = 0
        """All news of runs up to this revision is in the book; beyond it an earlier outcome may still be missing."""

    def work(self) -> float | None:
        """Advance the position over the outcomes there are."""
        office, mono = self._office, self._office.mono()
        if mono >= self._nodes_at:
            self._nodes_at = mono + NODES_EVERY
            self._archiver.nodes = self._facts()
        if not office.book.news.outs or self._busy:
            return None
        if mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        self._next = mono + EVERY
        office.book.news.outs = False
        outs, settled = office.book.outs, office.book.settled
        known = [(seen, key) for key, (seen, _) in outs.items() if seen <= self.stream_revision]
        office.book.news.outs = len(known) < len(outs)
        due = nsmallest(MOST, (each for each in known if not settled.covers(*each)))
        if due:
            told = [(seen, key, outs[key][1]) for seen, key in due]
            book, gathered = office.book, self._gathered()
            found = consequences(office.keys, told, settled, book.graph, gathered, office.wall(), lapsed=book.lapses,
                                 rules=book.rules.values(), told=self._told)  # fmt: skip
            if len(due) == MOST or not found.position.covers(*due[-1]):
                office.book.news.outs, self._next = True, mono
            self._send(found, [value for seen, key, value in told if found.position.covers(seen, key)])
        else:
            self._hand_over()
        return max(0.0, self._next - mono) if office.book.news.outs else None

    def _send(self, found: Consequences, settling: list[bytes]) -> None:
        """Put them, alerts as far as there is room; the others are counted in one of their own.

        `settling`: the outcomes that have had their consequences then.
        """
        office, room, alerts = self._office, self._undelivered.room, list(found.alerts)
        late, alerts = list(found.late)[:room], alerts[: max(0, room - len(found.late))]
        kept, more = alerts, len(found.alerts) + len(found.late) - len(alerts) - len(late)
        over = not_kept(self._term, self._not_kept + more, office.wall()) if more else None
        told = [*kept, over] if over is not None and not self._not_kept else kept
        self._busy = True
        move = settle(
            office.keys,
            settled_seen=office.book.seen(office.keys.settled),
            position=found.position,
            alerts=told,
            late=late,
            again=over if self._not_kept else None,
            requests=found.requests,
            skips=found.skips,
            chains_seen=office.book.seen(office.keys.chains),
            gathered={
                run: (office.book.seen(office.keys.run_chain(run)), record) for run, record in found.gathered.items()
            },
            lapses=found.lapses,
        )

        def settled(verdict: Verdict) -> None:
            if verdict is Verdict.DONE:
                counting(office.figures, settling)
                self._rates.ended(found.over)
            if verdict is Verdict.DONE and (told or late or more):
                self._undelivered.more(len(kept) + len(late))
                office.counts["alerts"] += len(kept) + len(late)
                if more and not self._not_kept:
                    log.error("there is no room for more alerts, further ones are only counted: is the database away?")
                self._not_kept += more
                if more:
                    office.counts["alerts_not_kept"] += more
                self._delivery.nudge()
            self._settled(verdict)

        office.committer.send("settle", [Step(move, settled)])

    def _told(self, run: str) -> bool:
        """Whether people were told that a run is late; of other shards it is found out when that is refused."""
        return self._office.book.seen(self._office.keys.run_told(run, AlertKind.LATE)) > 0

    def _gathered(self) -> dict[str, Gathering]:
        known = self._office.book.gathered
        return {run: each for run, (_, each) in known.items() if each is not None and each.sound}

    def _settled(self, verdict: Verdict) -> None:
        self._busy = False
        if verdict is Verdict.DONE:
            self._hand_over()
        else:
            self._office.book.news.outs = True

    def _hand_over(self) -> None:
        """What lies behind the position goes to the archiver, oldest first."""
        book = self._office.book
        behind = [Item(key, seen, value) for key, (seen, value) in book.outs.items() if book.settled.covers(seen, key)]
        for item in behind:
            del book.outs[item.key]
        self._office.counts["settled"] += len(behind)
        self._archiver.take(sorted(behind, key=lambda item: (item.seen, item.key)))

    def _facts(self) -> list[NodeFacts]:
        return [node.facts for node in self._office.book.nodes.values()]
