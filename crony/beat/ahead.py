"""Messages sealed shortly before their fire, in idle moments, so that a crowd due at one instant goes out at once.

Only the message is kept, never a decision. When the instant comes everything is decided as always, from what is known
then; a message is used if it is what would be written now: of this very document, for the fleet as it is. After an
edit, or when a node came, went or was cordoned, it is written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crony.beat.agenda import Agenda
from crony.beat.book import Book
from crony.beat.desk import Desk
from crony.beat.handout import draft_fire
from crony.domain.livejob import LiveJob
from crony.domain.routing import Strategy
from crony.domain.run import Envelope
from crony.lifecycle.move import Dispatch

SOON = 10.0
"""Seconds before its fire that a message is written."""
WRITING = 0.005
"""Seconds of one round spent on that."""
MOST = 10_000
"""Messages kept, some kilobytes each."""
LARGE = 16 * 1024
"""Bytes: messages of larger documents are not kept."""
_FIXED = frozenset({Strategy.WEIGHTED, Strategy.RANDOM, Strategy.HASH, Strategy.ANY})
"""Ways to choose a node that do not go by how busy each is at that moment."""


@dataclass(frozen=True, slots=True)
class _Letter:
    live: LiveJob
    fleet: int
    told: Envelope
    value: bytes


class Ahead:
    """Of one leader. Belongs to the decision loop."""

    def __init__(self, agenda: Agenda, book: Book, desk: Desk, mono: Callable[[], float]) -> None:
        self._agenda, self._book, self._desk, self._mono = agenda, book, desk, mono
        self._letters: dict[str, _Letter] = {}
        self.used = 0
        """Messages that went out as they had been written."""
        agenda.tell_what_comes()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._letters)

    def write(self) -> bool:
        """Write some for what is due soon; whether there is more to do."""
        now, until = self._agenda.wall(), self._mono() + WRITING
        while (entry := self._agenda.coming(now + SOON)) is not None:
            if entry.done is None or entry.due is None or len(entry.sealed) > LARGE:
                continue
            try:
                live = self._agenda.known(entry, entry.done)
                if live is entry.known and live.next_due(entry.done.upto_at) == entry.due:
                    self._write(live, entry.due, now)
            except Exception:
                continue  # its decision will say what is wrong, once
            if self._mono() >= until:
                return True
        return False

    def take(self, live: LiveJob, run: str) -> Dispatch | None:
        """The message of that run for its queue, if it was written for this document and the fleet as it is."""
        letter = self._letters.pop(run, None)
        if letter is None or letter.live is not live or letter.fleet != self._book.fleet:
            return None
        self.used += 1
        return self._desk.post(letter.told, letter.value)

    def _write(self, live: LiveJob, instant: int, now: float) -> None:
        job = live.job
        if job.limits or job.routing.strategy not in _FIXED or (job.overlap != "allow" and self._book.live(live.id)):
            return
        envelope = draft_fire(self._desk, live, instant, instant)
        letter = None if envelope.splits else self._desk.letter(envelope)
        if letter is None:
            return
        self._tidy(now)
        if len(self._letters) < MOST:
            self._letters[envelope.run] = _Letter(live, self._book.fleet, *letter)

    def _tidy(self, now: float) -> None:
        """Let go of the oldest whose instant has passed: the decision made no use of them."""
        while self._letters:
            run, letter = next(iter(self._letters.items()))
            if letter.told.requested_at + SOON > now:
                return
            del self._letters[run]
