"""Publishing exactly once: each publish puts a receipt beside the message, and the next one compares it.

A message may be consumed and gone before its publisher learns that it arrived, so its absence proves nothing. A
receipt is a key of the publisher alone: whether it holds the stamp of a publish tells whether that arrived, and since
every transaction compares the receipt's last revision, a request that comes late, after its repetition, does nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import count

from crony.domain import ids
from crony.errors import Unavailable
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, mod
from crony.transport_etcd.leases import ShortLease
from crony.transport_etcd.places import Stamp

LIFE = 300.0
"""Seconds that a receipt stays, at most; at least half of it. So long a doubt can last and still be cleared up."""


class Receipt:
    """A key that one publish at a time writes: `seen` is the revision of the last one known; 0: none yet."""

    __slots__ = ("key", "put_at", "seen")

    def __init__(self, key: str) -> None:
        self.key, self.seen, self.put_at = key, 0, time.monotonic()


class Receipts:
    """The receipts of one process: as many as it has publishes under way at once. Thread-safe."""

    def __init__(self, client: Client, keys: Keys) -> None:
        """`client`, `keys`: of the link."""
        self._client, self._keys = client, keys
        self._id, self._numbers = ids.fresh("p"), count()
        self._free: deque[Receipt] = deque()
        self._lease = ShortLease(client, LIFE, most=1_000_000)

    def send(self, stamp: Stamp, contents: Callable[[], Txn], *, timeout: float | None = None) -> bool:
        """Carry out a transaction, once for a stamp however often it is tried.

        True: it was carried out, now or by an earlier try. False: a compare of its own does not hold. Raises
        `EtcdUnknown` while that is in doubt (the stamp remembers), and what the client raises when nothing happened.
        """
        if stamp.receipt is not None and self._arrived(stamp):
            return True
        for last in (False, True):
            receipt = stamp.receipt or self._take()
            txn = contents().when(mod(receipt.key, receipt.seen))
            txn.put(receipt.key, stamp.encode(), lease=self._lease.id())
            try:
                result = self._client.txn(txn, timeout=timeout)
            except EtcdUnknown:
                stamp.receipt = receipt
                if last:
                    raise
                if self._arrived(stamp):
                    return True
                continue
            except BaseException:
                self._keep(stamp, receipt)
                raise
            if result.succeeded:
                receipt.seen, receipt.put_at = result.revision, time.monotonic()
                stamp.receipt = None
                self._free.append(receipt)
                return True
            found = self._look(receipt, stamp)
            if found is False:
                self._keep(stamp, receipt)
            if found is not None:
                return found
        raise Unavailable("the receipt of a publish is lost again and again", hint="try again")

    def forget_lease(self) -> None:
        """The lease of the receipts may be gone: take a new one for the next."""
        self._lease.forget()

    # -- parts -------------------------------------------------------------------------------------

    def _take(self) -> Receipt:
        """A receipt that nobody uses, and that cannot have run out."""
        while self._free:
            try:
                receipt = self._free.pop()
            except IndexError:
                break
            if time.monotonic() - receipt.put_at < LIFE / 2 - 5:
                return receipt
        return Receipt(self._keys.receipt(f"{self._id}.{next(self._numbers)}"))

    def _keep(self, stamp: Stamp, receipt: Receipt) -> None:
        """The receipt is as it was: for the next publish, unless this one is in doubt and needs it."""
        if stamp.receipt is None:
            self._free.append(receipt)

    def _arrived(self, stamp: Stamp) -> bool:
        """Whether an earlier try has arrived. Raises `EtcdUnknown` when etcd does not tell either."""
        receipt = stamp.receipt
        assert receipt is not None
        try:
            return bool(self._look(receipt, stamp))
        except Unavailable as error:
            raise EtcdUnknown("a message was sent, but it is not known whether it arrived", why=str(error)) from None

    def _look(self, receipt: Receipt, stamp: Stamp) -> bool | None:
        """Whether the stamp is on the receipt; None: the receipt has run out and tells nothing."""
        pair = self._client.get(receipt.key)
        if (pair.mod if pair is not None else 0) == receipt.seen:
            return False
        stamp.receipt = None
        if pair is None or pair.value != stamp.encode():
            return None
        receipt.seen, receipt.put_at = pair.mod, time.monotonic()
        self._free.append(receipt)
        return True


__all__ = ["LIFE", "Receipt", "Receipts"]
