"""Runs that are to follow several others, some of which do not come: given up after a while, with a record."""

from __future__ import annotations

from crony.beat.commit import Step, Verdict
from crony.beat.office import Office
from crony.domain.gathering import MARGIN, overdue
from crony.lifecycle.move import Move
from crony.lifecycle.settle import give_up

EVERY = 2.0


class Overdue:
    """The duty on `run/chain/`, of the leader that settles outcomes."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._next = 0.0
        self._busy: set[str] = set()

    def work(self) -> float | None:
        """Give up those whose time is over; what nobody can read goes without a word."""
        office, mono, now = self._office, self._office.mono(), self._office.wall()
        if mono < self._next or not office.committer.free(mono):
            return None
        self._next = mono + EVERY
        steps: list[Step] = []
        for run, (seen, record) in office.book.gathered.items():
            if run in self._busy:
                continue
            sound = record is not None and record.sound and record.run == run
            if sound and record is not None and record.until_at + MARGIN > now:
                continue
            skip = overdue(record, office.book.graph, now) if sound and record is not None else None
            steps.append(self._step(run, give_up(office.keys, run, gathered_seen=seen, skip=skip), bool(skip)))
            if len(steps) >= office.committer.limit("overdue"):
                break
        if steps:
            office.committer.send("overdue", steps)
        return None

    def _step(self, run: str, move: Move, counts: bool) -> Step:
        self._busy.add(run)

        def settle(verdict: Verdict) -> None:
            self._busy.discard(run)
            if verdict is Verdict.DONE and counts:
                self._office.counts["skipped"] += 1

        return Step(move, settle)
