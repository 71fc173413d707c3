"""Pruning: tombstones of deleted jobs after an hour (M4), and idempotency keys whose time is over (Q1)."""

from __future__ import annotations

import json
import logging

from crony.beat.commit import Step, Verdict
from crony.beat.duty import Background
from crony.beat.office import Office
from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.lifecycle.move import Lead, Move, transaction
from crony.lifecycle.note import forget

log = logging.getLogger("crony.beat")

TOMBSTONE = 3600.0
EVERY = 30.0
IDEM_EVERY = 300.0
IDEM_BATCH = 80


class Pruning:
    """The duty on tombstones."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._next = office.mono() + EVERY

    def work(self) -> float | None:
        """Forget jobs that were deleted long enough ago, so that no slow publish can bring them back."""
        office, mono = self._office, self._office.mono()
        if mono < self._next:
            return self._next - mono
        if not office.committer.free(mono):
            return None
        self._next = mono + EVERY
        steps: list[Step] = []
        for entry in office.book.jobs.values():
            live = entry.known
            if live is None or not live.deleted or entry.busy or office.book.has_runs(entry.id):
                continue
            if office.wall() - live.published_at > TOMBSTONE and len(steps) < office.committer.limit("prune"):
                move = forget(office.keys, entry.id, job_seen=entry.seen, done_seen=entry.done_seen)
                steps.append(Step(move, self._settled))
        if steps:
            office.committer.send("prune", steps)
        return EVERY

    def _settled(self, verdict: Verdict) -> None:
        if verdict is Verdict.DONE:
            self._office.counts["tombstones_pruned"] += 1


class IdemPruning:
    """Deletes expired idempotency keys."""

    def __init__(self, client: Client, keys: Keys, lead: Lead) -> None:
        self._client, self._keys, self._lead = client, keys, lead
        self.background = Background("idempotency-pruning", IDEM_EVERY, self._work)

    def _work(self) -> None:
        prefix = self._keys.idem("", "")[:-1]
        now = self._client.now()
        expired = [kv for kv in self._client.list(prefix).kvs if _until(kv) < now]
        for index in range(0, len(expired), IDEM_BATCH):
            if self.background.stopping:
                return
            part = {kv.key: kv.mod for kv in expired[index : index + IDEM_BATCH]}
            self._client.txn(transaction(self._lead, [Move(part, deletes=tuple(part))]))


def _until(kv: KV) -> float:
    """When the key may go; one that cannot be read stays, for a person."""
    try:
        return float(json.loads(kv.value)["until"])
    except (ValueError, LookupError, TypeError):
        return float("inf")
