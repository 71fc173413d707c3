"""Which job is due when: what a leader, or a centre that stands by, works out from its book.

Jobs due soon lie in a heap; the others in one list for each quarter of an hour, until theirs comes near. Where a cursor
bears a hint that is good, the document is not even read.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Callable

from crony.beat.book import Book
from crony.beat.entries import JobEntry
from crony.domain import afterend, hint
from crony.domain.livejob import LiveJob
from crony.domain.record import UnknownRecord
from crony.domain.run import Done
from crony.domain.signing import BadSeal, Verifier
from crony.domain.streak import stays_held

log = logging.getLogger("crony.beat")

READING = 0.02
"""Seconds of one round spent on documents not read before."""
AHEAD = 30.0
"""Seconds before its fire that a job's document is made ready, in idle moments: a crowd at midnight is prompt."""
WARMING = 0.005
"""Seconds of one round spent on that."""
FAR = 900
"""Seconds: a job not due within them keeps only its packed text in memory."""
NAMED = 20
"""Most documents of which it is told why they cannot be acted on."""
EXAMINING = 0.005
"""Of the time, the share that is spent on looking for hints that lie."""


class Agenda:
    """Of one book. Belongs to whoever owns that."""

    def __init__(self, book: Book, webs: Verifier, wall: Callable[[], float], mono: Callable[[], float]) -> None:
        """`webs` opens documents; `wall` says what is due, `mono` how long something took."""
        self._book, self._webs, self.wall, self._mono = book, webs, wall, mono
        self._near: list[tuple[int, str]] = []
        self._far: dict[int, list[str]] = {}
        self._quarters: list[int] = []
        self._unread: deque[str] = deque()
        self._cold: list[tuple[float, str]] = []
        self.unnoted: dict[str, int | None] = {}
        """Far jobs that had to be read, with their next due instant: worth a hint for the next leader."""
        self.broken: dict[str, Exception] = {}
        """Jobs whose next due instant cannot be told, and why: to be held."""
        self._untrusted: dict[str, str] = {}
        self.lies = 0
        """Hints found wrong."""
        self._coming: list[tuple[int, str]] | None = None
        """As `_near`, for whoever wants to know beforehand."""
        self._examined: list[str] = []
        self._examine_at = 0.0

    @property
    def knows(self) -> bool:
        """Whether every job it was told of is planned for."""
        return not self._unread and not self._book.news.jobs

    # -- which job is due when -----------------------------------------------------------------

    def learn(self) -> bool:
        """Take note of jobs and cursors that changed; whether some are still to be read."""
        book, trusted = self._book, hint.trusted
        for job in book.news.jobs:
            entry = book.jobs.get(job)
            if entry is None:
                continue
            entry.due = None
            done = entry.done
            if entry.busy or not entry.seen or done is None:
                continue
            if trusted(done, entry.seen, entry.done_seen):
                self._plan(entry, done.due_at)
            else:
                self._unread.append(job)
        book.news.jobs.clear()
        until = self._mono() + READING
        while self._unread and self._mono() < until:
            entry = book.jobs.get(self._unread.popleft())
            if entry is not None and not entry.busy and entry.seen and entry.done is not None:
                self._read(entry, entry.done)
        return bool(self._unread)

    def plan_anew(self) -> None:
        """Time zone data changed. Until a job is read again its old plan wakes it up; what is decided then goes by the
        new data anyway. The ones that are due soonest are read first."""
        jobs = (entry for entry in self._book.jobs.values() if entry.seen and entry.done is not None)
        zoned = [each for each in jobs if each.done is None or not hint.timeless(each.done, each.seen, each.done_seen)]
        zoned.sort(key=lambda entry: math.inf if entry.due is None else entry.due)
        self._unread.extend(each.id for each in zoned)

    def plan(self, job: str, due: int | None) -> None:
        """A job is due next at `due`; None: never."""
        self._plan(self._book.jobs[job], due)

    def known(self, entry: JobEntry, done: Done) -> LiveJob:
        """Its document, with the instant that follows from an end where it goes by ends. Raises as
        `JobEntry.document`."""
        return afterend.known(entry.document(self._webs), done)

    def distrust(self, entry: JobEntry, error: Exception) -> None:
        """The document is not one a web signed, or not for this version: it does not fire, and nothing is written."""
        if entry.problem != str(error):
            log.error("job %s is not acted on: %s", entry.id, error)
            entry.problem = str(error)
        self._untrusted[entry.id] = entry.problem[:200]

    def untrusted(self) -> dict[str, str]:
        """Jobs whose documents are not ones a web signed, or not for this version, and why: `NAMED` of them at most.
        Any thread may ask."""
        entries = ((why, self._book.jobs.get(job)) for job, why in list(self._untrusted.items()))
        found = [(entry.id, why) for why, entry in entries if entry is not None and entry.problem]
        return dict(found[:NAMED])

    def _plan(self, entry: JobEntry, due: int | None) -> None:
        entry.due = due
        if due is None:
            entry.shrink()
        elif due - self.wall() > FAR:
            entry.shrink()
            quarter = due // FAR
            if quarter not in self._far:
                self._far[quarter] = []
                heapq.heappush(self._quarters, quarter)
            self._far[quarter].append(entry.id)
        else:
            self._soon(entry, due)

    def _soon(self, entry: JobEntry, due: int) -> None:
        heapq.heappush(self._near, (due, entry.id))
        if self._coming is not None:
            heapq.heappush(self._coming, (due, entry.id))
        if not entry.warm:
            heapq.heappush(self._cold, (due - AHEAD, entry.id))

    def _come_near(self) -> None:
        """Take up the jobs of the quarters of an hour that are near."""
        last = (self.wall() + FAR) // FAR
        while self._quarters and self._quarters[0] <= last:
            quarter = heapq.heappop(self._quarters)
            for job in self._far.pop(quarter):
                entry = self._book.jobs.get(job)
                if entry is not None and entry.due is not None and entry.due // FAR == quarter:
                    self._soon(entry, entry.due)

    def _read(self, entry: JobEntry, done: Done) -> None:
        """Work out a job's next due instant from its document."""
        self._untrusted.pop(entry.id, None)
        try:
            live = self.known(entry, done)
            entry.problem = ""
            if stays_held(done, live):
                entry.problem = done.held
                return
            due = live.next_due(done.upto_at)
            if done.held or (not live.deleted and (due is None or due - self.wall() > FAR)):
                self.unnoted[entry.id] = due
            self._plan(entry, due)
        except (BadSeal, UnknownRecord) as error:
            self.distrust(entry, error)
        except Exception as error:
            self.broken[entry.id] = error

    # -- what is due ---------------------------------------------------------------------------

    def next(self) -> tuple[int, str] | None:
        """The job that is due first, and when; None: nothing is due soon."""
        self._come_near()
        while self._near:
            due, job = self._near[0]
            entry = self._book.jobs.get(job)
            if entry is not None and entry.due == due:
                return due, job
            heapq.heappop(self._near)
        return None

    def take(self) -> tuple[int, str]:
        """Take off what `next` has just told; its plan stays until it is decided."""
        return heapq.heappop(self._near)

    def put_back(self, item: tuple[int, str]) -> None:
        """What was taken off is not decided now."""
        heapq.heappush(self._near, item)

    def tell_what_comes(self) -> None:
        """Somebody asks for `coming` from now on."""
        self._coming = list(self._near)

    def coming(self, until: float) -> JobEntry | None:
        """The next job that is due by then and was not told before; None: there is none now."""
        while self._coming and self._coming[0][0] <= until:
            due, job = heapq.heappop(self._coming)
            entry = self._book.jobs.get(job)
            if entry is not None and entry.due == due and not entry.busy and entry.seen:
                return entry
        return None

    def make_ready(self) -> bool:
        """Make documents of jobs that are due soon ready; whether there are more."""
        now, until = self.wall(), self._mono() + WARMING
        while self._cold and self._cold[0][0] <= now:
            entry = self._book.jobs.get(heapq.heappop(self._cold)[1])
            if entry is None or entry.warm or not entry.seen or entry.due is None:
                continue
            entry.warm = True
            try:
                _ = entry.document(self._webs).job
            except Exception as error:
                log.debug("job %s cannot be made ready: %s", entry.id, error)  # its decision will say so, once
            if self._mono() >= until:
                return True
        return False

    # -- hints that lie ------------------------------------------------------------------------

    def examine(self) -> None:
        """Read one job whatever its hint says, and go by what it says itself; all of them by turns, for ever.

        A hint that tells too late an instant so delays a fire until its job's turn. It never loses one: the cursor
        stands before it, and what is late goes by the job's misfire policy. One that tells too early an instant costs
        a look.
        """
        began = self._mono()
        if began < self._examine_at:
            return
        if not self._examined:
            self._examined = list(self._book.jobs)
        entry = self._book.jobs.get(self._examined.pop()) if self._examined else None
        if entry is not None and not entry.busy and entry.seen and entry.done is not None and not entry.problem:
            self._prove(entry, entry.done)
        took = self._mono() - began
        self._examine_at = began + max(0.2, took / EXAMINING)

    def _prove(self, entry: JobEntry, done: Done) -> None:
        planned = entry.due
        try:
            live = self.known(entry, done)
            due = None if stays_held(done, live) else live.next_due(done.upto_at)
        except Exception:
            self._unread.append(entry.id)  # it is said there what is wrong
            return
        if due != planned:
            self.lies += 1
            log.error("job %s: its hint says it is due next at %s, it is at %s", entry.id, planned, due)
            self._plan(entry, due)
        elif planned is None or planned - self.wall() > FAR:
            entry.shrink()
