"""Who leads: a create-only key with a lease (PROTOCOL transaction 1). The term is the key's create revision.

A leader stops believing in itself before its lease can end; what protects the data is that every transaction of its
compares the term.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable

from crony.errors import CronyError, Forbidden, Halted
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown, LeaseGone
from crony.etcd.keys import Keys
from crony.etcd.lease import Lease
from crony.etcd.txn import Compare, Txn, absent, create
from crony.etcd.watch import Event, Watcher
from crony.etcd.wire import KV

log = logging.getLogger("crony.etcd.election")

_LOOK = 2.0
_SOON = 0.1


class Term:
    """Leadership from `revision` (the term) until it is lost or given up; it never comes back."""

    def __init__(self, key: str, revision: int, lease: Lease) -> None:
        """Made by `Election.campaign`."""
        self.key, self.revision = key, revision
        self._lease = lease
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._watch: Watcher | None = None
        self._thread = threading.Thread(target=self._keep, name=f"crony-term-{revision}", daemon=True)
        self.why = ""
        """Why the term ended."""

    def compare(self) -> Compare:
        """Holds as long as this term lasts: belongs into every transaction of the leader."""
        return create(self.key, self.revision)

    @property
    def believes(self) -> bool:
        """Whether we certainly still lead (own monotonic deadline not passed, nothing seen to the contrary)."""
        return not self._over.is_set() and self._lease.alive and os.getpid() == self._pid

    @property
    def left(self) -> float:
        """Seconds for which we certainly still lead."""
        return self._lease.left if self.believes else 0.0

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Calls back once when the term is lost (not when resigned), at once if it is lost already."""
        with self._lock:
            if not self._over.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def resign(self) -> None:
        """Stops leading, then lets the next one in. Never raises: if etcd is away the lease runs out by itself."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._over.set()
            self._callbacks.clear()
            self.why = self.why or "resigned"
        self._end()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(self._lease.ttl)

    def _begin(self, watch: Watcher) -> None:
        self._watch = watch
        self._thread.start()

    def _lose(self, why: str) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            self.why = why
            callbacks, self._callbacks = self._callbacks, []
        self._lease.forfeit()
        log.warning("leadership of %s, term %d, is lost: %s", self.key, self.revision, why)
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("election: a callback failed")

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        with contextlib.suppress(CronyError):
            self._lease.revoke()

    def _keep(self) -> None:
        pause = self._lease.interval
        while not self._over.wait(min(pause, self._lease.left)):
            pause = self._lease.interval
            if not self._lease.alive:
                self._lose("the lease could not be renewed in time")
                break
            try:
                if not self._lease.renew():
                    self._lose("the lease is gone")
                    break
            except Halted as error:
                self._lose(str(error))
                break
            except CronyError as error:
                log.info("election: renewal failed: %s", error)
                pause = 0.1
        if self.why != "resigned":
            self._end()


class Election:
    """Candidacy for one shard."""

    def __init__(self, client: Client, keys: Keys, shard: int, name: str, ttl: float, *, centre: str = "") -> None:
        """`name`: how people know this centre; `ttl`: seconds after which a silent leader is replaced; `centre`: which
        process it is."""
        self._client = client
        self.key = keys.leader(shard)
        self.name, self.ttl, self._centre = name, ttl, centre

    def leader(self) -> str | None:
        """Name of the current leader, or None."""
        pair = self._client.get(self.key)
        return None if pair is None else _name(pair)

    def campaign(self, stop: threading.Event, ready: Callable[[], bool] | None = None) -> Term | None:
        """Waits until elected, through outages of etcd; None when `stop` is set. Raises `Halted` and `AuthFailed`.

        `ready` is asked before each attempt: False leaves the lead to others for now.
        """
        contest = _Contest()
        watch = Watcher(
            self._client,
            self.key,
            None,
            on_snapshot=contest.snapshot,
            on_events=contest.events,
            idle=5.0,
            name=f"crony-election-{self.name}",
        ).start()
        term: Term | None = None
        failures = 0
        try:
            while not stop.is_set():
                if ready is not None and not ready():
                    contest.wait_free(stop, _SOON)
                    continue
                try:
                    term = self._try()
                    if term is not None:
                        break
                    failures = 0
                    contest.wait_free(stop, _LOOK)
                except (Halted, Forbidden):
                    raise
                except CronyError as error:
                    if self._client.closed:
                        raise
                    failures += 1
                    log.log(logging.WARNING if failures == 3 else logging.DEBUG, "election: %s", error)
                    stop.wait(min(1.0, 0.05 * 2 ** min(failures, 6)))
            if term is not None and stop.is_set():
                term.resign()
                term = None
            if term is not None:
                contest.follow(term)
                term._begin(watch)
                log.info("%s leads %s, term %d", self.name, self.key, term.revision)
            return term
        finally:
            if term is None:
                watch.stop()

    def _try(self) -> Term | None:
        """One attempt to take the key; None when somebody holds it."""
        if self._client.get(self.key) is not None:
            return None
        nonce = secrets.token_hex(12)
        lease = Lease.grant(self._client, self.ttl, timeout=min(self._client.timeout, self.ttl / 2))
        value = json.dumps({"name": self.name, "centre": self._centre, "nonce": nonce}).encode()
        won = False
        try:
            # A lost answer is settled by reading: the nonce is ours alone.
            with contextlib.suppress(EtcdUnknown, LeaseGone):
                txn = Txn().when(absent(self.key)).put(self.key, value, lease=lease.id)
                self._client.txn(txn, timeout=max(0.1, lease.left / 2))
            pair = self._client.get(self.key)
            won = pair is not None and pair.value == value and pair.lease == lease.id and lease.alive
            return Term(self.key, pair.create, lease) if won and pair is not None else None
        finally:
            if not won:
                # Also kills a create that is still on its way: a put under a dead lease is refused.
                with contextlib.suppress(CronyError):
                    lease.revoke()


class _Contest:
    """What the watch knows about the leader key."""

    def __init__(self) -> None:
        self._changed = threading.Event()
        self._create = 0
        self._lock = threading.Lock()
        self._revision = 0
        self._term: Term | None = None

    def snapshot(self, pairs: list[KV], revision: int) -> None:
        """The key as listed."""
        self._note(pairs[0].create if pairs else 0, revision)

    def events(self, events: list[Event], revision: int) -> None:
        """The key as it changed."""
        last = events[-1]
        self._note(last.create if last.kind == "put" else 0, revision)

    def follow(self, term: Term) -> None:
        """From now on a key that is not the term's ends the term."""
        with self._lock:
            self._term = term
            create, revision = self._create, self._revision
        if revision >= term.revision and create != term.revision:
            term._lose("the leader key was taken away")

    def wait_free(self, stop: threading.Event, timeout: float) -> None:
        """Returns when the key may be free, `stop` is set, or `timeout` seconds passed."""
        left = timeout
        while left > 0 and not stop.is_set():
            if self._changed.wait(min(0.1, left)):
                self._changed.clear()
                return
            left -= 0.1

    def _note(self, create: int, revision: int) -> None:
        with self._lock:
            self._create, self._revision = create, revision
            term = self._term
        if create == 0:
            self._changed.set()
        if term is not None and revision >= term.revision and create != term.revision:
            term._lose("the leader key was taken away")


def _name(pair: KV) -> str:
    try:
        return str(json.loads(pair.value)["name"])
    except (ValueError, KeyError, TypeError):
        return "?"
