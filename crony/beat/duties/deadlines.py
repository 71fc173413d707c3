"""Accepted runs whose callee is late, or silent for too long, end as timed out (12); then the retry policy decides.

Both are counted by the own monotonic clock: silence from the moment the last sign of life was seen here, the deadline
from when this leader first saw the run. A step of the wall clock ends nothing. Silence that nobody could have broken
does not count: where the end cannot be written because etcd is away, the callee gets its whole time again.
"""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass, replace

from crony.beat.commit import Step, Verdict
from crony.beat.entries import Awaited
from crony.beat.office import Office
from crony.domain.durations import format_duration
from crony.domain.outcome import Kind
from crony.domain.record import UnknownRecord
from crony.domain.run import Accepted, Envelope
from crony.domain.signing import peek
from crony.lifecycle import end
from crony.lifecycle.expire import expire
from crony.lifecycle.slots import slots_of

log = logging.getLogger("crony.beat")


@dataclass(slots=True)
class _Watch:
    """One accepted run under this leader's eyes. Monotonic seconds."""

    seen: int
    """Revision of its record: another one is another attempt."""
    deadline: float
    heard: float


class Deadlines:
    """The duty on accepted runs."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._watched: dict[str, _Watch] = {}
        self._heap: list[tuple[float, str]] = []
        self._odd: set[str] = set()

    def work(self) -> float | None:
        """End what is over its time."""
        office, book, mono = self._office, self._office.book, self._office.mono()
        for run in book.news.heard:
            self._hear(run, mono)
        book.news.heard.clear()
        if len(self._watched) > 2 * len(book.accepted) + 100:
            self._watched = {run: watch for run, watch in self._watched.items() if run in book.accepted}
        steps: list[Step] = []
        limit = office.committer.limit("deadlines")
        while self._heap and self._heap[0][0] <= mono and len(steps) < limit and office.committer.free(mono):
            run = heapq.heappop(self._heap)[1]
            awaited, watch = book.accepted.get(run), self._watched.get(run)
            if awaited is None or watch is None or awaited.seen != watch.seen or awaited.busy:
                continue  # whoever is busy with it puts it back
            due = self._due(awaited, watch)
            if due > mono:
                heapq.heappush(self._heap, (due, run))
                continue
            try:
                steps.append(self._end(awaited, watch, mono))
            except (UnknownRecord, ValueError, LookupError, TypeError, RecursionError) as error:
                self._leave_alone(run, error)
        if steps:
            office.committer.send("deadlines", steps)
        return max(0.0, self._heap[0][0] - mono) if self._heap else None

    def _hear(self, run: str, mono: float) -> None:
        awaited, watch = self._office.book.accepted.get(run), self._watched.get(run)
        if awaited is None:
            return
        if watch is not None and watch.seen == awaited.seen:
            watch.heard = mono  # its place in the heap is earlier, which is looked at then
            return
        if awaited.record is None or not _sound(awaited.record):
            self._leave_alone(run, "its record cannot be read")
            return
        left = awaited.record.deadline_at - self._office.wall()
        watch = self._watched[run] = _Watch(awaited.seen, mono + max(0.0, left), mono)
        heapq.heappush(self._heap, (self._due(awaited, watch), run))

    def _due(self, awaited: Awaited, watch: _Watch) -> float:
        """When it has to be looked at, as far as is known."""
        silent = awaited.record.heartbeat if awaited.record else 0.0
        due = min(watch.deadline, watch.heard + silent) if silent else watch.deadline
        return max(due, awaited.rest_until)

    def _end(self, awaited: Awaited, watch: _Watch, mono: float) -> Step:
        office, record = self._office, awaited.record
        assert record is not None
        late = mono >= watch.deadline
        told = Envelope.read(peek(record.envelope))
        if (told.run, told.attempt) != (awaited.run, record.attempt):
            raise ValueError("its envelope is of another run or attempt")
        if late:
            reason = f"not completed within {format_duration(told.deadline)}"
        else:
            reason = f"nothing was heard of it for {format_duration(record.heartbeat)}"
        outcome = end.outcome_of(
            told,
            Kind.TIMED_OUT,
            ended_at=office.wall(),
            fence=record.fence,
            reason=reason,
            node=record.node,
            incarnation=record.incarnation,
            started_at=record.started_at,
            secret=record.secret,
        )
        move = expire(
            office.keys,
            accepted_seen=awaited.seen,
            beat_seen=None if late else office.book.seen(office.keys.run_beat(awaited.run)),
            outcome=outcome,
            wait=None if outcome.final else replace(end.parked(told, record.envelope, outcome), avoid=list(told.avoid)),
            also=(*slots_of(office.keys, told), *(office.book.orders.get(awaited.run, ()) if outcome.final else ())),
        )
        awaited.busy = True

        def settle(verdict: Verdict) -> None:
            awaited.busy = False
            if verdict is Verdict.DONE:
                office.counts["overdue"] += 1
                return
            now = office.mono()
            if verdict in (Verdict.UNSENT, Verdict.LIMBO):
                watch.heard = now
            awaited.rest_until = now + (60.0 if verdict is Verdict.IMPOSSIBLE else 0.05)
            heapq.heappush(self._heap, (self._due(awaited, watch), awaited.run))

        return Step(move, settle)

    def _leave_alone(self, run: str, why: object) -> None:
        if run not in self._odd:
            self._odd.add(run)
            log.error("the accepted run %s is left alone, a cancel ends it: %s", run, why)


def _sound(record: Accepted) -> bool:
    """Whether the parts that are computed with are what they should be: a node may write anything."""
    numbers = all(type(number) in (int, float) for number in (record.deadline_at, record.heartbeat))
    texts = all(isinstance(text, str) for text in (record.envelope, record.secret, record.node, record.incarnation))
    return numbers and texts and type(record.attempt) is int and type(record.fence) is int
