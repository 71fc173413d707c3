"""Taking in: the leader says up to which revision it reckons with what was saved. Outside the decision loop."""

from __future__ import annotations

from crony.beat.duty import Background
from crony.domain.shards import Part
from crony.etcd.client import Client
from crony.lifecycle.move import Lead, transaction
from crony.lifecycle.taken import Taken, tell

EVERY = 60.0


class TakingIn:
    """One leader's word. Many saves in a row are one write."""

    def __init__(self, client: Client, lead: Lead, part: Part, *, term: int) -> None:
        """`term`: revision of the leader's term."""
        self._client, self._lead, self._part, self._term = client, lead, part, term
        self._upto = self._told = 0
        self.background = Background("taken-in", EVERY, self._work)

    def upto(self, revision: int) -> None:
        """Every save up to this revision is planned for. For the decision loop: it does not wait."""
        if revision > self._upto:
            self._upto = revision
            self.background.nudge()

    def _work(self) -> None:
        upto = self._upto
        if upto > self._told:
            move = tell(self._lead.keys, self._part.number, Taken(self._term, upto))
            if self._client.txn(transaction(self._lead, [move])).succeeded:
                self._told = upto
