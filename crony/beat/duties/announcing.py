"""Announcing: who leads a shard is noted, and an alert when another centre did before (21).

A shard that was handed over by agreement, because the centres share the shards out, changes its leader without one.
"""

from __future__ import annotations

import logging

from crony.beat.duty import Background
from crony.domain.record import UnknownRecord
from crony.domain.shards import Part
from crony.errors import CronyError
from crony.etcd.client import Client
from crony.lifecycle.alert import LastLeader, handed_over, take_the_lead
from crony.lifecycle.move import Lead, transaction

log = logging.getLogger("crony.beat")

EVERY = 60.0
PATIENCE = 1.0
"""Seconds a hand-over may take to be noted."""


class Announcing:
    """One leader's note, made once."""

    def __init__(self, client: Client, lead: Lead, part: Part, *, centre: str) -> None:
        """`centre`: name of the centre that leads."""
        self._client, self._lead, self._part, self._centre = client, lead, part, centre
        self._noted = 0
        """Revision of the note; 0: not made yet."""
        self.background = Background("announcement", EVERY, self._work)

    def _work(self) -> None:
        if self._noted:
            return
        key = self._lead.keys.last_leader(self._part.number)
        kv = self._client.get(key)
        before: LastLeader | None = None
        if kv is not None:
            try:
                before = LastLeader.read(kv.value)
            except UnknownRecord as error:
                log.error("who led before cannot be told, the record %s is not one: %s", key, error)
        term = self._lead.term.number
        if kv is not None and before is not None and before.term == term:
            self._noted = kv.mod
            return
        move = take_the_lead(
            self._lead.keys, self._part, name=self._centre, term=term, before=before,
            before_seen=kv.mod if kv else 0, at=self._client.now(),
        )  # fmt: skip
        answer = self._client.txn(transaction(self._lead, [move]))
        if not answer.succeeded:
            raise CronyError("who leads could not be noted", why="another centre leads, or wrote it just now")
        self._noted = answer.revision

    def hand_over(self) -> None:
        """The next leader follows by agreement. Raises as the client; it is only a note, and may fail."""
        last = LastLeader(self._centre, self._lead.term.number, handed_over=True)
        move = handed_over(self._lead.keys, self._part, last, seen=self._noted)
        if self._noted:
            self._client.txn(transaction(self._lead, [move]), timeout=PATIENCE)
