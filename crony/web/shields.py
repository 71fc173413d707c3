"""A dependency that is away costs one waiter its time-out, not every reader of every page.

After a call found the dependency away, calls fail at once for a few seconds; then the next one asks
again. Only failures to reach it count, never refusals.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.errors import Unavailable
from crony.etcd.client import Client
from crony.etcd.txn import Txn, TxnResult
from crony.etcd.wire import Page, Status
from crony.store.db import Database

T = TypeVar("T")

PAUSE = 5.0
"""Seconds without asking after a failure."""


class Shield:
    """Remembers the last failure for `PAUSE` seconds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until, self._error = float("-inf"), Unavailable("")

    def call(self, work: Callable[[], T], *, trips: bool = True) -> T:
        """What `work()` returns; raises the remembered `Unavailable` at once while there is one."""
        with self._lock:
            if SYSTEM.monotonic() < self._until:
                error = self._error
                raise type(error)(error.what, why=error.why, hint=error.hint)
        try:
            return work()
        except Unavailable as error:
            if trips and type(error).__init__ is Unavailable.__init__:
                with self._lock:
                    self._until, self._error = SYSTEM.monotonic() + PAUSE, error
            raise


class ShieldedClient(Client):
    """The web's etcd client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._shield = Shield()

    def range(self, *arguments: Any, **options: Any) -> Page:
        """As `Client.range`."""
        return self._shield.call(lambda: super(ShieldedClient, self).range(*arguments, **options))

    def get(self, *arguments: Any, **options: Any) -> Any:
        """As `Client.get`."""
        return self._shield.call(lambda: super(ShieldedClient, self).get(*arguments, **options))

    def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        """As `Client.put`."""
        return self._shield.call(lambda: super(ShieldedClient, self).put(key, value, lease=lease))

    def txn(self, txn: Txn, *, timeout: float | None = None) -> TxnResult:
        """As `Client.txn`."""
        return self._shield.call(lambda: super(ShieldedClient, self).txn(txn, timeout=timeout))

    def status(self) -> Status:
        """As `Client.status`."""
        return self._shield.call(lambda: super(ShieldedClient, self).status())


class ShieldedDatabase(Database):
    """The web's database. A write that fails alone (a busy lock, say) stops no reader."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._shield = Shield()

    def read(self, work: Callable[[Session], T], *, patience: float | None = None) -> T:
        """As `Database.read`."""
        return self._shield.call(lambda: super(ShieldedDatabase, self).read(work, patience=patience))

    def transaction(self, work: Callable[[Session], T], *, patience: float | None = None) -> T:
        """As `Database.transaction`."""
        write = super().transaction
        return self._shield.call(lambda: write(work, patience=patience), trips=False)
