"""Failover: work of nodes that are lost, drained or leaving goes elsewhere (13, 14; N2, S12).

Level-triggered: every few seconds, and at once when a node changes, it looks at every queued run anew. Unstarted work
is taken back at once. Claimed work gets the grace, counted by the own monotonic clock from when the loss was seen; a
node that puts the same session back within it keeps what it runs.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace

from crony.beat.commit import Step, Verdict
from crony.beat.entries import Presence, Queued
from crony.beat.office import Office
from crony.domain.loss import Next, after_loss, given_up
from crony.domain.outcome import Kind
from crony.domain.queues import Shared, node_of, read_shared
from crony.domain.record import UnknownRecord
from crony.domain.run import Envelope, Wait, WaitReason
from crony.domain.signing import BadSeal
from crony.lifecycle.end import outcome_of
from crony.lifecycle.move import Move
from crony.lifecycle.reroute import renew, reroute
from crony.lifecycle.slots import slots_of
from crony.lifecycle.takeover import takeover

log = logging.getLogger("crony.beat")

EVERY = 3.0
RENEW_EVERY = 600.0
RENEWING = 0.02
"""Seconds of one round spent on looking at their age."""
RENEW_BEFORE = 4 * 3600.0
"""An envelope that runs out within this many seconds is sealed again."""
LOST = "its node was lost"
UNSTARTED = "its node was lost before the work started"
FORSAKEN = 10.0
"""Seconds that runs stay in a shared queue of which no node takes: one that restarts is back by then."""


class Failover:
    """The duty on lost nodes."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._next = 0.0
        self._renew_at = office.mono()
        self._renewing: deque[tuple[str, str]] = deque()
        """Messages whose age is still to be looked at."""
        self._lost: dict[str, float] = {}
        """Incarnation -> monotonic time at which its absence was first seen, while it holds work."""
        self._odd: set[str] = set()
        self._alone: dict[str, float] = {}
        """Shared queue that holds runs -> monotonic time since which no node has taken from it."""

    def work(self) -> float | None:
        """Look at every queued run."""
        office, book, mono = self._office, self._office.book, self._office.mono()
        if not book.news.queues and mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        book.news.queues = False
        self._next = mono + EVERY
        steps: list[Step] = []
        holders: set[str] = set()
        limit = office.committer.limit("failover") * 2
        for item in book.queued.values():
            if len(steps) >= limit:
                book.news.queues = True
                break
            if item.busy:
                continue
            try:
                self._look(steps, holders, item, mono)
            except Exception as error:  # a claim is written by a node, and may say anything
                self._leave_alone(item, error)
        self._lost = {holder: since for holder, since in self._lost.items() if holder not in book.sessions}
        for holder, since in self._lost.items():
            if holder in holders:
                self._next = min(self._next, max(since + self._grace, mono + 0.05))
        if mono >= self._renew_at:
            self._renew_at = mono + RENEW_EVERY
            self._renewing = deque(book.queued)
        if self._renewing:
            steps += self._renewals()
        if self._renewing:
            self._next = mono
        if steps:
            office.committer.send("failover", steps)
        return self._next - mono

    def _look(self, steps: list[Step], holders: set[str], item: Queued, mono: float) -> None:
        """One queued run; `holders` gathers the holders that are gone."""
        book, holder = self._office.book, item.holder
        shared = read_shared(item.queue)
        if not holder and shared is not None:
            if self._forsaken(item.queue, shared, mono):
                self._try(steps, item, mono, lost=False)
        elif not holder:
            if item.target not in book.sessions or self._unwanted(item):
                self._try(steps, item, mono, lost=item.target not in book.sessions)
        elif holder not in book.sessions:
            holders.add(holder)
            if holder not in self._lost:  # the leader before us may have known it, and died with it
                book.incarnations.setdefault(holder, Presence(item.node, draining=False))
            if mono - self._lost.setdefault(holder, self._seen_lost(holder, mono)) >= self._grace:
                self._try(steps, item, mono, lost=True)

    def _forsaken(self, queue: str, shared: Shared, mono: float) -> bool:
        """Whether nobody has taken from a shared queue for long enough that its runs had better say what they miss."""
        if self._office.desk.taken(shared):
            self._alone.pop(queue, None)
            return False
        left = self._alone.setdefault(queue, mono) + FORSAKEN - mono
        if left > 0:
            self._next = min(self._next, mono + left)
        return left <= 0

    @property
    def _grace(self) -> float:
        return self._office.settings.grace

    def _seen_lost(self, holder: str, mono: float) -> float:
        if holder not in self._lost:
            log.warning("%s is gone while it holds work; it has %g s to come back", self._who(holder), self._grace)
        return mono

    def _who(self, incarnation: str) -> str:
        node = self._office.book.node_of(incarnation)
        return f"node {node}" if node else f"a node (incarnation {incarnation})"

    def _unwanted(self, item: Queued) -> tuple[str, int] | None:
        """The record that says its node takes no more work, and its revision: drained by people, or leaving."""
        book, node = self._office.book, node_of(item.queue)
        control = book.controls.get(node)
        if control is not None and control[0].drain:
            return self._office.keys.nodectl(node), control[1]
        entry = book.nodes.get(node)
        if entry is not None and entry.facts.draining and entry.facts.incarnation == item.target:
            return self._office.keys.node(node), entry.seen
        return None

    def _try(self, steps: list[Step], item: Queued, mono: float, *, lost: bool) -> None:
        if item.rest_until > mono:
            self._next = min(self._next, item.rest_until)
            return
        try:
            told = self._office.desk.open(item.sealed)
            if told.run != item.run or told.queue != item.queue:
                raise BadSeal("its envelope is of another run or queue")
        except (BadSeal, UnknownRecord) as error:
            self._leave_alone(item, error)
            return
        if item.holder:
            steps.append(self._take_over(item, told))
        else:
            steps.append(self._reroute(item, told, lost=lost))

    def _leave_alone(self, item: Queued, error: Exception) -> None:
        if item.place not in self._odd:
            self._odd.add(item.place)
            log.error("the message %s in %s is left alone: %s", item.place, item.queue, error)

    def _take_over(self, item: Queued, told: Envelope) -> Step:
        office, claim, now = self._office, item.claim, self._office.wall()
        assert claim is not None
        follows = after_loss(told, started=claim.phase != "C")
        node = item.node
        outcome = None
        wait = Wait(
            run=told.run,
            envelope=item.sealed,
            finished=told.attempt,
            reason=WaitReason.ENDED.value,
            since_at=now,
            due_at=now,
            losses=told.losses + 1,
            outcome=Kind.LOST.value,
            detail=LOST,
            avoid=[*told.avoid, *([node] if node and node not in told.avoid else [])],
            node=node,
        )
        if follows is Next.ELSEWHERE:
            wait = replace(
                wait, finished=told.attempt - 1, reason=WaitReason.REROUTE.value, losses=told.losses, outcome="",
                deliveries=told.deliveries + 1, detail=UNSTARTED,
            )  # fmt: skip
        else:
            many = told.on_node_loss == "rerun" and told.delivery != "at_most_once"
            outcome = outcome_of(
                told,
                Kind.LOST,
                ended_at=now,
                fence=0,  # nobody ended it by its fence: the holder, coming late, must find itself stale
                final=follows is Next.END,
                held=follows is Next.HOLD,
                reason=given_up(told.losses + 1) if follows is Next.END and many else LOST,
                node=node,
                incarnation=claim.incarnation,
                started_at=claim.at or None,
                secret=claim.secret,
            )
        if follows is Next.HOLD:
            wait = replace(wait, reason=WaitReason.HOLD.value, due_at=0.0)
        ends = follows is Next.END
        move = takeover(
            office.keys,
            item.queue,
            item.place,
            incarnation=claim.incarnation,
            message_seen=item.seen,
            claim_seen=item.claim_seen,
            outcome=outcome,
            wait=None if ends else wait,
            orders=tuple(office.book.orders.get(told.run, ())) if ends else (),
            slots=slots_of(office.keys, told),
        )
        return self._step(item, move, "rerouted" if follows is Next.ELSEWHERE else "taken_over")

    def _reroute(self, item: Queued, told: Envelope, *, lost: bool) -> Step:
        office = self._office
        unwanted = None if lost else self._unwanted(item)
        detail = UNSTARTED if lost else "its node takes no more work"
        if not node_of(item.queue):
            detail = "no node takes from its shared queue"
        wait = Wait(
            run=told.run,
            envelope=item.sealed,
            finished=told.attempt - 1,
            reason=WaitReason.REROUTE.value,
            since_at=office.wall(),
            deliveries=told.deliveries,
            losses=told.losses,
            detail=detail,
            avoid=list(told.avoid),
        )
        move = reroute(
            office.keys,
            item.queue,
            item.place,
            message_seen=item.seen,
            claim_seen=item.claim_seen,
            wait=wait,
            lost=told.incarnation if lost else "",
            told=unwanted,
            slots=slots_of(office.keys, told),
        )
        return self._step(item, move, "rerouted")

    def _renewals(self) -> list[Step]:
        """Messages that wait so long that their envelope runs out are sealed again, for the same node."""
        office, steps = self._office, list[Step]()
        until, limit = office.mono() + RENEWING, office.committer.limit("failover")
        while self._renewing and len(steps) < limit and office.mono() < until:
            item = office.book.queued.get(self._renewing.popleft())
            if item is None or item.holder or item.busy:
                continue
            try:
                told = office.desk.open(item.sealed)
            except (BadSeal, UnknownRecord):
                continue
            if told.expires_at - office.client.now() < RENEW_BEFORE:
                value = office.desk.again(replace(told))
                move = renew(
                    office.keys,
                    item.queue,
                    item.place,
                    message_seen=item.seen,
                    claim_seen=item.claim_seen,
                    value=value,
                )
                steps.append(self._step(item, move, "renewed"))
        return steps

    def _step(self, item: Queued, move: Move, count: str) -> Step:
        item.busy = True

        def settle(verdict: Verdict) -> None:
            office = self._office
            item.busy = False
            if verdict is Verdict.DONE:
                office.counts[count] += 1
            else:
                item.rest_until = office.mono() + (60.0 if verdict is Verdict.IMPOSSIBLE else 0.1)
                self._next = min(self._next, item.rest_until)

        return Step(move, settle)
