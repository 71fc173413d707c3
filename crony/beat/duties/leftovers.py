"""Leftovers: what lay beside a run that is over goes, when nobody took it along who ended the run (24).

Marks of what people were told, whoever ended it, once its outcomes have had their consequences; and the last word of an
attempt whose process did not live to end it.
"""

from __future__ import annotations

from collections.abc import Iterator

from crony.beat.commit import Step
from crony.beat.office import Office
from crony.lifecycle.alert import forget

EVERY = 30.0


class Leftovers:
    """The duty on `run/told/` and `run/beat/` of runs that are nowhere."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._next = office.mono() + EVERY
        self._over: set[str] = set()
        """Keys whose runs were over when they were looked at last."""

    def work(self) -> float | None:
        """Delete what was left over already at the last look: who ends a run may be about to."""
        office, mono = self._office, self._office.mono()
        if mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        self._next = mono + EVERY
        over = set(self._of_no_run())
        due = sorted(over & self._over)[: office.committer.limit("leftovers")]
        self._over = over
        if due:
            marks = [(key, office.book.seen(key)) for key in due]
            steps = [Step(forget({key: seen}), lambda verdict: None) for key, seen in marks if seen]
            office.committer.send("leftovers", steps)
        return EVERY

    def _of_no_run(self) -> Iterator[str]:
        book = self._office.book
        if not book.told and not book.beats:
            return
        unsettled = {key.removeprefix(self._office.keys.outs).split("/")[0] for key in book.outs}
        for run, keys in book.told.items():
            if not book.is_live(run) and run not in unsettled:
                yield from keys
        for run in book.beats:
            if not book.is_live(run):
                yield self._office.keys.run_beat(run)
