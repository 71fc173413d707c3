"""Slots nobody gives back (Q3): of runs that are nowhere, as when a message was quarantined or deleted by hand."""

from __future__ import annotations

import logging

from crony.beat.commit import Step, Verdict
from crony.beat.office import Office
from crony.beat.pools import Holding
from crony.beat.sorting import job_of
from crony.lifecycle.free_slot import free_slot

log = logging.getLogger("crony.beat")

EVERY = 5.0


class Slots:
    """The duty on `pool/`: each leader looks at the slots of its own runs; what is nobody's is the first one's."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._next = office.mono() + EVERY
        self._busy: set[str] = set()

    def work(self) -> float | None:
        """Give back what no run holds any more."""
        office, mono = self._office, self._office.mono()
        if mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        self._next = mono + EVERY
        steps = [
            self._step(key, holding)
            for key, holding in office.book.pools.holdings()
            if key not in self._busy and self._is_stray(holding)
        ]
        if steps:
            office.committer.send("free_slot", steps)
        return EVERY

    def _is_stray(self, holding: Holding) -> bool:
        book, slot = self._office.book, holding.slot
        if slot is None:
            return book.part.first
        return book.part.has(job_of(slot.run)) and slot.run not in book.places and slot.run not in book.accepted

    def _step(self, key: str, holding: Holding) -> Step:
        self._busy.add(key)
        move = free_slot(self._office.keys, key, slot_seen=holding.seen, slot=holding.slot)

        def settle(verdict: Verdict) -> None:
            self._busy.discard(key)
            if verdict is Verdict.DONE:
                who = holding.slot.run if holding.slot else "nobody who can be read"
                log.warning("the slot %s was held by %s, which is nowhere: it is free", key, who)
                self._office.counts["slots_freed"] += 1

        return Step(move, settle)
