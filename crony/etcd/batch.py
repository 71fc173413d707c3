"""Group commit: many small transactions travel as one request, each with its own compares and its own result."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from crony.errors import CronyError, Unavailable
from crony.etcd.client import Client
from crony.etcd.errors import BadRequest, OuterRefused
from crony.etcd.txn import MAX_BYTES, SERVER_OPS, Compare, Txn, TxnResult

log = logging.getLogger("crony.etcd.batch")


class _Item:
    __slots__ = ("cost", "future", "size", "txn", "writes")

    def __init__(self, txn: Txn) -> None:
        self.txn = txn
        self.future: Future[TxnResult] = Future()
        self.size = txn.size
        self.cost = txn.depth_cost
        puts, deletes = txn.writes()
        self.writes = puts | deletes


class Batcher:
    """Collects transactions while one request is under way and sends them together as the next.

    The first goes at once. Transactions that write the same key go one after the other, in the order submitted.
    """

    def __init__(
        self,
        client: Client,
        *,
        outer: Callable[[], list[Compare]] | None = None,
        limit: int = 60,
        linger: float = 0.0,
        company: Callable[[], int] | None = None,
        name: str = "crony-batch",
    ) -> None:
        """`outer`: compares that must hold for the whole request; `limit`: most transactions in one;
        `linger`: seconds to wait for company, and `company` how many may come: with so many it goes at once.
        """
        if not 1 <= limit <= 100:
            raise BadRequest("the limit of a batch must be between 1 and 100")
        self._client, self._outer = client, outer
        self._limit, self._linger, self._company, self.name = limit, linger, company, name
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._items: deque[_Item] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, txn: Txn) -> Future[TxnResult]:
        """Sends `txn` with the next request. The future gives its own result, or raises:

        `BadRequest` (this transaction is impossible), `OuterRefused` and `EtcdUnavailable` (nothing happened),
        `EtcdUnknown` (it may have happened).
        """
        if os.getpid() != self._pid:  # a forked child: the thread and the lock's holder stayed behind
            self._reset()
        txn.check()
        item = _Item(txn)
        with self._condition:
            if self._closed:
                raise Unavailable("the batch is closed")
            self._items.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self._thread.start()
            self._condition.notify()
        return item.future

    def close(self, timeout: float = 5.0) -> None:
        """Sends what is left, `timeout` seconds at most; the rest raises `Unavailable`."""
        if os.getpid() != self._pid:
            return
        with self._condition:
            self._closed = True
            self._condition.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        with self._condition:
            left, self._items = list(self._items), deque()
        for item in left:
            if item.future.set_running_or_notify_cancel():
                item.future.set_exception(Unavailable("the batch was closed"))

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._items:
                    if self._closed:
                        return
                    self._condition.wait()
                if self._linger and not self._closed:
                    until = time.monotonic() + self._linger
                    while len(self._items) < self._enough() and not self._closed and until > time.monotonic():
                        self._condition.wait(until - time.monotonic())
            outer: list[Compare] = []
            problem: Exception | None = None
            try:
                outer = self._outer() if self._outer is not None else []
            except Exception as error:
                problem = error
            with self._condition:
                batch = self._take(len(outer))
            batch = [item for item in batch if item.future.set_running_or_notify_cancel()]
            if problem is not None:
                _fail(batch, problem)
            elif batch:
                self._send(batch, outer)

    def _enough(self) -> int:
        return self._limit if self._company is None else min(self._limit, self._company())

    def _take(self, outer: int) -> list[_Item]:
        """The next transactions that may share a request; the others keep their order."""
        batch: list[_Item] = []
        rest: list[_Item] = []
        busy: set[str] = set()
        size, cost = outer * 200, 0
        while self._items and len(batch) < self._limit:
            item = self._items.popleft()
            level = max(outer, len(batch) + 1)
            fits = size + item.size <= MAX_BYTES and level + max(cost, item.cost) <= SERVER_OPS
            if (fits or not batch) and busy.isdisjoint(item.writes):
                batch.append(item)
                size, cost = size + item.size, max(cost, item.cost)
            else:
                rest.append(item)
                if not fits:
                    break
            busy |= item.writes
        self._items.extendleft(reversed(rest))
        return batch

    def _send(self, batch: list[_Item], outer: list[Compare]) -> None:
        try:
            if len(batch) == 1 and not outer:
                results = [self._client.txn(batch[0].txn)]
            else:
                txn = Txn(max_bytes=max(MAX_BYTES, batch[0].txn.max_bytes)).when(*outer)
                for item in batch:
                    txn.nest(item.txn)
                answer = self._client.txn(txn)
                if not answer.succeeded:
                    _fail(batch, OuterRefused("the conditions of the batch do not hold any more"))
                    return
                results = answer.responses
        except BadRequest as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            # One bad transaction (a dead lease, say) makes etcd refuse them all, and nothing was carried out.
            middle = len(batch) // 2
            self._send(batch[:middle], outer)
            self._send(batch[middle:], outer)
        except CronyError as error:
            _fail(batch, error)
        except Exception as error:
            log.exception("batch: unexpected")
            _fail(batch, error)
        else:
            for item, result in zip(batch, results, strict=True):
                item.future.set_result(result)


def _fail(batch: list[_Item], error: Exception) -> None:
    for item in batch:
        item.future.set_exception(error)
