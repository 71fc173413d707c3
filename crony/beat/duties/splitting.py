"""Runs in parts: their parts are made, few at a time, and stopped when the run is cancelled; the run ends with them.

A part is made in the transaction that counts it as made, so a leader that dies in between leaves neither a gap nor a
second one. Ends of parts come as requests, which the settling duty puts in the transaction that moves its position.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from crony.beat import policy
from crony.beat.commit import Step, Verdict
from crony.beat.entries import Joined
from crony.beat.office import Office
from crony.domain import ids
from crony.domain.join import Join
from crony.domain.outcome import Outcome
from crony.domain.record import UnknownRecord
from crony.domain.run import Envelope, Request, Wait
from crony.domain.signing import BadSeal
from crony.lifecycle import split
from crony.lifecycle.end import without_envelope
from crony.lifecycle.move import Dispatch, Move

log = logging.getLogger("crony.beat")

AT_ONCE = 40
"""Most parts made, or asked to stop, in one transaction."""


class Splitting:
    """The duty on `run/join/`."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._ready: dict[str, None] = {}

    def work(self) -> float | None:
        """Take a step for each run in parts that has one to take."""
        office, book = self._office, self._office.book
        self._ready |= dict.fromkeys(book.news.joins)
        book.news.joins.clear()
        mono = office.mono()
        if not self._ready or not office.committer.free(mono):
            return None
        held, wish = bool(office.holds) or book.stopped, float("inf")
        making: list[Step] = []
        others: list[Step] = []
        for run in list(self._ready):
            joined = book.joins.get(run)
            if joined is not None and joined.rest_until > mono:
                wish = min(wish, joined.rest_until - mono)
                continue
            if len(making) + len(others) >= office.committer.limit("split"):
                wish = 0.0
                break
            if joined is not None and held and self._to_make(joined):
                continue
            del self._ready[run]
            if joined is None or joined.busy:
                continue  # when it is settled it is looked at again
            try:
                step = self._one(joined)
            except Exception:
                log.exception("the run %s cannot be carried on in parts right now", run)
                joined.rest_until = mono + 60.0
                self._ready[run] = None
                continue
            if step is not None:
                (making if self._to_make(joined) else others).append(step)
        if making:
            office.committer.send("split", making, control_seen=book.seen(office.keys.control))
        if others:
            office.committer.send("join", others)
        return None if wish == float("inf") else wish

    @staticmethod
    def _to_make(joined: Joined) -> bool:
        join = joined.join
        return join is not None and not join.cancelled and not joined.impossible and join.made < join.total

    def _one(self, joined: Joined) -> Step | None:
        office, join, now = self._office, joined.join, self._office.wall()
        try:
            told, join = _opened(office, joined)
        except (BadSeal, UnknownRecord) as error:
            log.error("the run %s in parts is ended: %s", joined.run, error)
            return self._close(joined, without_envelope(joined.run, str(error), now))
        if join.over:
            return self._close(joined, split.outcome_of_parts(told, join, at=now))
        if joined.impossible and not join.cancelled:
            return self._step(joined, split.give_up(office.keys, join, joined.impossible, join_seen=joined.seen))
        if join.cancelled:
            return self._stop(joined, join)
        return self._make(joined, told, join) if self._to_make(joined) else None

    def _make(self, joined: Joined, told: Envelope, join: Join) -> Step:
        office, now = self._office, self._office.wall()
        # Each part takes an operation and a slot of each pool, each slot a compare, each node one more.
        most = policy.at_once(len(join.envelope), max(1, AT_ONCE // max(1, len(told.pools))))
        dispatches: list[Dispatch] = []
        waits: list[Wait] = []
        upto = min(join.total, join.made + most)
        for number in (each for each in range(join.made, upto) if str(each) not in join.known):
            placed = office.desk.place(office.desk.part(told, join, number), at=now)
            if isinstance(placed, Dispatch):
                dispatches.append(placed)
            else:
                waits.append(placed)
        move = split.make(office.keys, join.with_made(upto), join_seen=joined.seen, dispatches=dispatches, waits=waits)
        return self._step(joined, move, dispatches)

    def _stop(self, joined: Joined, join: Join) -> Step | None:
        """Ask for the parts that are alive to be cancelled, those that nobody asked it of yet."""
        book, now = self._office.book, self._office.wall()
        asked = {each.request.run for each in book.requests.values() if each.request and each.request.kind == "cancel"}
        parts = [ids.part_id(join.run, number) for number in join.unended]
        alive = [part for part in parts if book.is_live(part) and part not in book.orders and part not in asked]
        if not alive:
            return None
        cancels = {ids.request_id(): _cancel(part, join.cancelled, now) for part in alive[:AT_ONCE]}
        move = split.stop_parts(self._office.keys, join.run, join_seen=joined.seen, cancels=cancels)
        return self._step(joined, move)

    def _close(self, joined: Joined, outcome: Outcome) -> Step:
        return self._step(joined, split.close(self._office.keys, outcome, join_seen=joined.seen), count="ended")

    def _step(self, joined: Joined, move: Move, dispatches: list[Dispatch] | None = None, *, count: str = "") -> Step:
        joined.busy = True

        def settle(verdict: Verdict) -> None:
            office = self._office
            joined.busy = False
            office.book.news.joins.add(joined.run)
            if verdict is Verdict.DONE:
                office.sent(dispatches or ())
                if count:
                    office.counts[count] += 1
                return
            joined.rest_until = office.mono() + 0.05
            if verdict is Verdict.IMPOSSIBLE:
                joined.impossible = "a part of it is too large for one message"
                joined.rest_until += 1.0

        return Step(move, settle)


def _cancel(run: str, reason: str, now: float) -> Request:
    parts = ids.parse_run_id(run)
    return Request("cancel", run=run, job=parts.job, generation=parts.generation, requested_at=now, reason=reason)


def _opened(office: Office, joined: Joined) -> tuple[Envelope, Join]:
    """The envelope of the whole run, and its record. Raises `BadSeal` or `UnknownRecord` when they make no sense."""
    join = joined.join
    if join is None or not join.sound:
        raise UnknownRecord("the record of its parts cannot be read")
    told = office.desk.open(join.envelope)
    if told.run != joined.run or join.run != joined.run or not told.splits or told.parts != join.total:
        raise BadSeal("the envelope in the record of its parts is of another run")
    return told, join


def ended(office: Office, joined: Joined, request: Request, ident: str, request_seen: int) -> Move:
    """What the request that tells of ended parts becomes: it is noted, or ends the run with the last of them."""
    keys = office.keys
    told, join = _opened(office, joined)
    noted = join.with_ended(request.parts, request.started_at)
    if not noted.over:
        return split.amend(keys, ident, request_seen=request_seen, join=noted, join_seen=joined.seen)
    outcome = split.outcome_of_parts(told, noted, at=office.wall())
    return split.close(keys, outcome, join_seen=joined.seen, request=ident, request_seen=request_seen)


def cancelled(office: Office, joined: Joined, reason: str, ident: str, request_seen: int) -> Move:
    """What a request to cancel a run in parts becomes."""
    _, join = _opened(office, joined)
    stopped = replace(join, cancelled=join.cancelled or reason)
    return split.amend(office.keys, ident, request_seen=request_seen, join=stopped, join_seen=joined.seen)
