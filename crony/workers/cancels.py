"""Orders to this node about runs it executes: one watch over `cmd/<node>/` per process, begun with the first run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from crony.etcd.client import KV, Client
from crony.etcd.keys import Keys
from crony.etcd.watch import Event, Watcher

SYNC_PATIENCE = 2.0
"""How long a first run waits for the list of orders, seconds; with etcd away it starts without."""


class Cancels:
    """Calls back once when the cancel of a run is ordered, also when the order came first."""

    def __init__(self, client: Client, keys: Keys, node: str) -> None:
        self._prefix = keys.cmd(node, "")
        self._lock = threading.Lock()
        self._ordered: set[str] = set()
        self._calls: dict[str, Callable[[], None]] = {}
        end = self._prefix[:-1] + chr(ord("/") + 1)
        self._watch = Watcher(
            client, self._prefix, end, on_snapshot=self._list, on_events=self._events, name="crony-cancels"
        )
        self._watch.start()
        self._watch.synced(SYNC_PATIENCE)

    def register(self, run: str, call: Callable[[], None]) -> None:
        """Call `call` (quick, from any thread) when the run's cancel is ordered; at once if it was already."""
        with self._lock:
            self._calls[run] = call
            now = run in self._ordered
        if now:
            call()

    def forget(self, run: str, call: Callable[[], None]) -> None:
        """The attempt that registered `call` ended."""
        with self._lock:
            if self._calls.get(run) is call:
                del self._calls[run]

    def _list(self, found: list[KV], revision: int) -> None:
        with self._lock:
            self._ordered = {kv.key[len(self._prefix) :] for kv in found}
        self._tell(self._ordered)

    def _events(self, events: list[Event], revision: int) -> None:
        ordered = set()
        with self._lock:
            for event in events:
                run = event.key[len(self._prefix) :]
                if event.kind == "put":
                    self._ordered.add(run)
                    ordered.add(run)
                else:
                    self._ordered.discard(run)
                    ordered.discard(run)
        self._tell(ordered)

    def _tell(self, runs: set[str]) -> None:
        with self._lock:
            calls = [self._calls[run] for run in runs if run in self._calls]
        for call in calls:
            call()
