"""Dead letters: a node set a message aside, and the run must not vanish with it (19, P1).

A message that a centre sealed for that very queue, of an attempt that has not ended (expired, or meant for an earlier
process of the node), goes out anew. One that nobody trusted sealed, or that lay in another queue, ends its run and
stays for a person to look at; so does a replay of what has ended, which changes nothing.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from crony.beat.commit import Step, Verdict
from crony.beat.entries import own_run
from crony.beat.office import Office
from crony.domain import ids
from crony.domain.outcome import Kind, Outcome
from crony.domain.queues import node_of
from crony.domain.record import UnknownRecord
from crony.domain.run import Envelope, Wait, WaitReason
from crony.domain.signing import BadSeal
from crony.lifecycle.end import outcome_of
from crony.lifecycle.judge import bury, revive
from crony.lifecycle.move import Move
from crony.transport_etcd import message as wire

log = logging.getLogger("crony.beat")

EVERY = 5.0
DELIVERIES = 5
"""Times a run may come back from quarantine."""


class Quarantine:
    """The duty on `dead/`."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._next = 0.0
        self._busy: set[str] = set()
        self._odd: dict[str, int] = {}
        """Letters that cannot be judged, with the revision looked at."""

    def work(self) -> float | None:
        """Judge the letters that nobody judged yet."""
        office, mono = self._office, self._office.mono()
        if not office.book.dead:
            return None
        if not office.book.news.dead and mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        self._next, office.book.news.dead = mono + EVERY, False
        steps: list[Step] = []
        for key, (seen, value) in office.book.dead.items():
            if key in self._busy or len(steps) >= office.committer.limit("judge"):
                continue
            if self._odd.get(key) == seen:
                continue
            try:
                step = self._one(key, seen, value)
            except Exception as error:  # a letter may hold anything; the others must not wait for it
                self._odd[key] = seen
                log.error("the dead letter %s cannot be judged and stays for a person: %r", key, error)
                continue
            if step is not None:
                steps.append(step)
        if steps:
            office.committer.send("judge", steps)
        return EVERY

    def _one(self, key: str, seen: int, value: bytes) -> Step | None:
        office, now = self._office, self._office.wall()
        try:
            letter = json.loads(value)
            queue, place, reason = str(letter["queue"]), str(letter["place"]), str(letter.get("reason", ""))
            run = ids.place_ident(place)
            parts = own_run(run)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None  # not the letter of a run: for a person
        if letter.get("judged") or not queue.startswith("run.") or office.keys.dead(queue, place) != key:
            return None
        if office.book.is_live(run):  # the other watch has still to tell that its message is gone
            self._next = min(self._next, office.mono() + 0.1)
            return None
        sealed, told = self._envelope(letter, run)
        node = node_of(queue) or str(letter.get("node") or "")
        record = json.dumps({**letter, "judged": True}).encode()
        if told is not None and office.book.seen(office.keys.out(run, told.attempt)):
            log.error("the letter %s is of an attempt that has ended and is not acted on", key)
            return self._step(key, bury(office.keys, key, dead_seen=seen, record=record), "buried")
        if told is not None and told.queue == queue and told.deliveries < DELIVERIES:
            wait = Wait(run, sealed, told.attempt - 1, WaitReason.REROUTE.value, now, deliveries=told.deliveries + 1,
                        losses=told.losses, detail=f"a node set its message aside: {reason}",
                        avoid=[*told.avoid, *([node] if node else [])], node=node)  # fmt: skip
            log.warning("run %s comes back from quarantine: %s", run, reason)
            return self._step(key, revive(office.keys, key, dead_seen=seen, attempt=told.attempt, wait=wait), "revived")
        words = f"its message was quarantined by {node or 'a node'}: {reason}"
        log.error("run %s ends: %s", run, words)
        if told is not None:
            end = outcome_of(told, Kind.REFUSED, ended_at=now, fence=0, final=True, reason=words)
        else:
            end = Outcome(run, parts.job, parts.job, parts.generation, 0, 0, Kind.REFUSED.value, True, "", now, words,
                          awaited=True)  # fmt: skip
        if office.book.seen(office.keys.out(run, "end")):
            return self._step(key, bury(office.keys, key, dead_seen=seen, record=record), "buried")
        return self._step(key, bury(office.keys, key, dead_seen=seen, record=record, outcome=end), "buried")

    def _envelope(self, letter: dict[str, Any], run: str) -> tuple[str, Envelope | None]:
        """The sealed text and what it says, if a centre sealed it for this run."""
        try:
            sealed = str(json.loads(wire.decode(str(letter["message"]).encode())["body"])[0][0])
            told = self._office.desk.open(sealed)
            return sealed, told if told.run == run else None
        except (BadSeal, UnknownRecord, wire.Undecodable, ValueError, LookupError, TypeError, RecursionError):
            return "", None

    def _step(self, key: str, move: Move, count: str) -> Step:
        self._busy.add(key)

        def settle(verdict: Verdict) -> None:
            self._busy.discard(key)
            if verdict is Verdict.DONE:
                self._office.counts[count] += 1
            else:
                self._next = min(self._next, self._office.mono() + 0.2)

        return Step(move, settle)
