"""What each process that executes runs has one of, made when first asked for and never shared across a fork."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from crony.domain.sealing import Cipher
from crony.domain.signing import Verifier
from crony.domain.targets import Targets
from crony.etcd.batch import Batcher
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.txn import Txn, TxnResult
from crony.settings import Settings, load
from crony.workers.alarms import Alarms
from crony.workers.cancels import Cancels
from crony.workers.keeper import Keeper
from crony.workers.spool import Spool, directory

T = TypeVar("T")

NOTICEABLE = 2.0
"""Difference of clocks, in seconds, from which on etcd's counts. Centres with more than that do not lead."""
TOGETHER = 0.005
"""Seconds an end waits for those of other attempts under way: a request costs more than what is in it."""


class Process:
    """The parts of one operating-system process: etcd client, trusted keys, spool, keeper, alarms, cancels."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self.under_way: Callable[[], int] = lambda: 1
        """How many attempts are under way in this process."""
        self._lock = threading.RLock()

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        found = self.__dict__.get(name)
        if found is None:
            with self._lock:
                found = self.__dict__.get(name)
                if found is None:
                    found = self.__dict__[name] = make()
        return found

    def own(self, name: str, make: Callable[[], T]) -> T:
        """This process's one part of that name, made with the first question for it."""
        return self._once(f"_own_{name}", make)  # type: ignore[no-any-return]

    @cached_property
    def targets(self) -> Targets:
        """Which addresses jobs may call from here."""
        return Targets.of(self.settings.http_allow)

    @property
    def client(self) -> Client:
        """This process's etcd client."""
        return self._once("_client", lambda: Client.from_settings(self.settings))  # type: ignore[no-any-return]

    def now(self) -> float:
        """The wall clock for records: ours, unless etcd's is clearly another (its answers tell whole seconds only)."""
        offset = self.client.clock_offset
        return time.time() + (offset if abs(offset) > NOTICEABLE else 0.0)

    def commit(self, txn: Txn) -> TxnResult:
        """Carry out a transaction; those of several threads at a time share a request."""
        if threading.current_thread() is threading.main_thread():
            return self.client.txn(txn)
        batcher: Batcher = self._once(
            "_batcher",
            lambda: Batcher(self.client, linger=TOGETHER, company=lambda: self.under_way(), name="crony-ends"),
        )
        return batcher.submit(txn).result()

    @cached_property
    def verifier(self) -> Verifier:
        """Opens envelopes of the trusted centres."""
        return Verifier(self.settings.centre_keys)

    @cached_property
    def cipher(self) -> Cipher:
        """Opens secrets; without a key none."""
        return Cipher(self.settings.secret_key)

    @property
    def spool(self) -> Spool:
        """Where output goes."""
        return self._once("_spool", lambda: Spool(directory(self.settings), self.settings))  # type: ignore[no-any-return]

    @property
    def keeper(self) -> Keeper:
        """Starts commands, and ends all of them when this process dies."""
        return self._once("_keeper", Keeper)  # type: ignore[no-any-return]

    @property
    def alarms(self) -> Alarms:
        """Calls functions at a time."""
        return self._once("_alarms", Alarms)  # type: ignore[no-any-return]

    @property
    def cancels(self) -> Cancels:
        """Orders to cancel runs that this process executes."""
        return self._once(  # type: ignore[no-any-return]
            "_cancels", lambda: Cancels(self.client, self.keys, self.settings.node_name)
        )


_lock = threading.Lock()
_current: Process | None = None


def current() -> Process:
    """The parts of this very process; a forked child gets its own."""
    global _current
    found = _current
    if found is None:
        with _lock:
            if _current is None:
                _current = Process(load())
            found = _current
    return found


def _after_fork() -> None:
    # Only references are dropped: the sockets, threads and pipes behind them are the parent's.
    global _current, _lock
    _current, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
