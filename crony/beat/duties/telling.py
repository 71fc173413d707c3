"""Telling: while a leader leads, no watch of a centre stays without news, so none falls behind what etcd compacts.

A range in which nothing changes tells nothing. A stream on it that has to be opened anew would go on at a revision that
is compacted away by then, and the range would be listed anew; to find out that nothing was missed etcd has to go
through all of it as well. With a million jobs that takes etcd longer than a lease lasts.
"""

from __future__ import annotations

from crony.beat.duty import Background
from crony.domain.shards import Part
from crony.errors import Unavailable
from crony.etcd.client import Client
from crony.lifecycle.move import Lead, transaction
from crony.lifecycle.told import told

EVERY = 20.0
"""Seconds; a watch looks after its range when it has heard nothing for 45, and history is kept for 60 at least."""


class Telling:
    """Puts again what the leader put at its election: one key in the range of each watch."""

    def __init__(self, client: Client, lead: Lead, part: Part) -> None:
        self._client, self._lead, self._part = client, lead, part
        self.background = Background("telling", EVERY, self._work)

    def _work(self) -> None:
        move = told(self._lead.keys, self._part.number, self._lead.term.number)
        if not self._client.txn(transaction(self._lead, [move])).succeeded:
            raise Unavailable("the watches could not be told", why="the term is over")
