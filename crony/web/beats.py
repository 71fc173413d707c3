"""Signs of life of many callees: gathered into few transactions, and put without looking where a web remembers.

A callee is told that it runs when that was compared and its sign was stored, never before: what is remembered saves a
reading, not a check. No thread waits for it meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from dataclasses import replace

from starlette.concurrency import run_in_threadpool

from crony.domain.callback import Token
from crony.domain.run import Envelope
from crony.domain.signing import peek
from crony.etcd.batch import Batcher
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult
from crony.lifecycle.complete import Told
from crony.lifecycle.heartbeat import Sign, heard, heartbeat, transaction
from crony.lifecycle.standing import Archive, Waits
from crony.web.hiding import Hiding

GATHER = 0.02
"""Seconds that a sign of life waits for others to travel with. Callees are silent for longer than that."""
REMEMBERED = 10_000
"""Most attempts of which a web knows how they stood."""


class Beats:
    """Takes the signs of life that come through one web."""

    def __init__(self, client: Client, keys: Keys, hiding: Hiding) -> None:
        self._client, self._keys, self._hiding = client, keys, hiding
        self._batcher = Batcher(client, linger=GATHER, name="crony-beats")
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Waits] = OrderedDict()

    async def hear(self, run: str, attempt: int, token: Token, sign: Sign, *, archive: Archive) -> Told:
        """Note a sign of life. Raises as `heartbeat`."""
        known = self._known.get(run)
        plain = not (sign.message and known is not None and known.record.envelope)
        if known is not None and plain and known.may_speak(attempt, token, self._client.now()):
            beat = sign.after(known.beat, attempt, self._client.now())
            put = self._batcher.submit(transaction(self._keys, run, known, beat))
            result = await asyncio.wrap_future(put)
            if result.succeeded:
                self._remember(run, heard(known, beat, result))
                return Told("running")
            self._forget(run, known)
        return await run_in_threadpool(self._look, run, attempt, token, sign, archive)

    def close(self) -> None:
        """Send what is left."""
        self._batcher.close()

    def _look(self, run: str, attempt: int, token: Token, sign: Sign, archive: Archive) -> Told:
        def remember(waits: Waits) -> None:
            # Without the envelope, which is most of it, where there is no secret that a message could hold.
            secret = Envelope.read(peek(waits.record.envelope)).secrets
            self._remember(run, replace(waits, record=replace(waits.record, envelope="secret" if secret else "")))

        return heartbeat(
            self._client, self._keys, run, attempt, token, sign,
            archive=archive, commit=self._commit, hide=self._hiding.message, remember=remember,
        )  # fmt: skip

    def _commit(self, txn: Txn) -> TxnResult:
        return self._batcher.submit(txn).result()

    def _forget(self, run: str, waits: Waits) -> None:
        with self._lock:
            if self._known.get(run) is waits:
                del self._known[run]

    def _remember(self, run: str, waits: Waits) -> None:
        with self._lock:
            self._known[run] = waits
            self._known.move_to_end(run)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
