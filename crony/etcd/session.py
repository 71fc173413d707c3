"""A session is a live lease with a name: `session/<incarnation>` and what is attached to it.

The name outlives the lease. When the lease is lost or the key deleted, the session comes back under a new lease with
the same incarnation at once, and with everything that was attached, so that work held in its name stays held.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from crony.domain import ids
from crony.errors import CronyError, Forbidden, Halted, Unavailable, Unknown
from crony.etcd.client import Client
from crony.etcd.errors import EtcdUnknown, LeaseGone
from crony.etcd.keys import Keys
from crony.etcd.lease import Lease
from crony.etcd.txn import Compare, Txn, exists, lease, mod
from crony.etcd.watch import Event, Watcher
from crony.etcd.wire import KV

log = logging.getLogger("crony.etcd.session")

_CHUNK = 40


@dataclass(slots=True)
class _Attached:
    value: bytes
    leases: set[int]  # under which we put it: how we know it again


class Session:
    """One process start, alive in etcd. Thread-safe; in a forked child it is dead and does nothing."""

    def __init__(
        self, client: Client, keys: Keys, *, ttl: float, incarnation: str | None = None, value: bytes = b"{}"
    ) -> None:
        """`ttl`: seconds after which etcd forgets a silent process. `incarnation`: a fresh one unless given."""
        self.incarnation = incarnation or ids.incarnation()
        self.key = keys.session(self.incarnation)
        self.ttl = ttl
        self._client = client
        self._value = value
        self._lease: Lease | None = None
        self._attached: dict[str, _Attached] = {}
        self._listeners: list[Callable[[bool], None]] = []
        self._told = False
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._suspect = False
        self._pid = os.getpid()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"crony-session-{self.incarnation}", daemon=True)
        self._watch = Watcher(
            client,
            self.key,
            None,
            on_snapshot=self._seen,
            on_events=self._changed,
            name=f"crony-session-watch-{self.incarnation}",
        )
        self.renewed: Callable[[float], None] = lambda until: None
        """Called from the session's thread whenever the lease was renewed: certainly alive until then (monotonic)."""
        self.may_renew: Callable[[], bool] = lambda: True
        """Asked from the session's thread before each renewal. While it says no, the lease is let end."""
        self.error: CronyError | None = None
        """Why the session is not alive right now."""

    # -- for the owner ---------------------------------------------------------------------------

    def start(self, wait: float | None = None) -> bool:
        """Starts; waits for the first registration (`wait` seconds, default: one request's timeout).

        False when etcd is away: the session goes on trying. Raises `Forbidden` when etcd refuses us, `Halted`.
        """
        self._thread.start()
        self._first.wait(self._client.timeout if wait is None else wait)
        error = self.error
        if isinstance(error, (Forbidden, Halted)) and not self.alive:
            self._closing.set()
            self._wake.set()
            raise error
        return self.alive

    def close(self) -> None:
        """Ends the session: revokes its lease, which deletes its keys. Work held in its name becomes free at once."""
        if os.getpid() != self._pid:
            return
        self._closing.set()
        self._wake.set()
        self._watch.stop()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(self._client.timeout + 1)
        with self._lock:
            held, self._lease = self._lease, None
        if held is not None:
            with contextlib.suppress(Unavailable, Unknown, CronyError):
                held.revoke()

    @property
    def alive(self) -> bool:
        """Whether etcd certainly still has our lease (own monotonic deadline not passed)."""
        held = self._lease
        return held is not None and held.alive and not self._closing.is_set() and os.getpid() == self._pid

    @property
    def lease(self) -> int:
        """Id of the current lease; 0 before the first."""
        held = self._lease
        return held.id if held is not None else 0

    @property
    def left(self) -> float:
        """Seconds for which the session is certainly alive."""
        held = self._lease
        return held.left if held is not None and not self._closing.is_set() else 0.0

    def listen(self, callback: Callable[[bool], None]) -> None:
        """Calls back, from the session's thread, with False when the session is lost and True when it is back."""
        self._listeners.append(callback)

    def attach(self, key: str, value: bytes, guard: Compare | None = None) -> bool:
        """Puts `key` under the session's lease, if `guard` holds; it stays as long as the session.

        False when the guard did not hold or the session is not there. Raises `EtcdUnavailable`; never `EtcdUnknown`.
        """
        with self._lock:
            held = self._lease
            if held is None:
                return False
            compares = [exists(self.key), *([guard] if guard else [])]
            if not self._put(compares, key, value, held):
                return False
            self._attached[key] = _Attached(value, {held.id})
            return True

    def update(self, key: str, value: bytes) -> bool:
        """New value of an attached key (or of the session's own).

        False: it is not ours in etcd right now. The value is kept and put when the session comes back.
        """
        with self._lock:
            if key == self.key:
                self._value = value
            else:
                self._attached[key].value = value
            held = self._lease
            if held is None:
                return False
            done = self._put([lease(key, held.id)], key, value, held)
        if not done:
            self._check_soon()
        return done

    def detach(self, key: str) -> None:
        """Deletes an attached key, if it is still ours, and forgets it."""
        with self._lock:
            attached = self._attached.pop(key, None)
            held = self._lease
            if attached is not None and held is not None:
                self._client.txn(Txn().when(lease(key, held.id)).delete(key))

    def forget(self, *keys: str) -> None:
        """Attached keys that their owner has deleted by a transaction of its own: they do not come back."""
        with self._lock:
            for key in keys:
                self._attached.pop(key, None)

    def holds(self, key: str) -> bool:
        """Whether `key` is attached; one that somebody else took while we were gone is not any more."""
        return key in self._attached

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set() and not self._client.closed:
            pause = 0.0
            try:
                pause = self._step()
                self._say_how_long()
                failures, self.error = 0, None
            except CronyError as error:
                failures += 1
                self.error = error
                log.log(logging.WARNING if failures == 3 else logging.DEBUG, "session: %s", error)
                if isinstance(error, (Forbidden, Halted)):
                    self._first.set()
                if isinstance(error, Halted):
                    log.critical("session: %s", error)
                    self._tell()
                    return
                pause = min(1.0, 0.05 * 2 ** min(failures, 6))
            except Exception:
                failures += 1
                log.exception("session: unexpected")
                pause = 1.0
            self._tell()
            self._sleep(pause)

    def _sleep(self, pause: float) -> None:
        """Until the next step, woken when needed; the loss of the lease is told the moment it is due."""
        until = time.monotonic() + pause
        while not self._closing.is_set():
            left = until - time.monotonic()
            if left <= 0:
                return
            held = self._lease
            if self._told and held is not None and held.left < left:
                left = held.left + 0.001
            if self._wake.wait(left):
                self._wake.clear()
                return
            self._tell()

    def _say_how_long(self) -> None:
        try:
            self.renewed(time.monotonic() + self.left)
        except Exception:
            log.exception("session: a listener failed")

    def _step(self) -> float:
        """One renewal or re-establishment; seconds until the next one."""
        held = self._lease
        if not self.may_renew():
            raise Unavailable("the session is not renewed: its owner says that it must not be")
        if held is not None and held.renew():
            if self._told and not self._suspect:
                return held.interval
            pair = self._client.get(self.key, timeout=self.ttl / 4)
            if pair is not None and pair.lease == held.id:
                self._suspect = False
                return held.interval
        self._establish()
        if not self._first.is_set():
            self._first.set()
            self._watch.start()
        return self.ttl / 3

    def _establish(self) -> None:
        """Puts the session and what is attached under a live lease. Safe to repeat: it reads before it writes."""
        fresh = self._lease
        if fresh is None or not fresh.alive:
            fresh = Lease.grant(self._client, self.ttl, timeout=min(self._client.timeout, self.ttl / 2))
        with self._lock:
            patience = min(self._client.timeout, self.ttl / 4)  # renewals wait for this
            mine = self._client.get(self.key, timeout=patience)
            wanted: list[tuple[str, bytes, int]] = []
            if mine is None or mine.lease != fresh.id:
                wanted.append((self.key, self._value, mine.mod if mine else 0))
            for key, attached in list(self._attached.items()):
                pair = self._client.get(key, timeout=patience)
                if pair is not None and pair.lease not in attached.leases:
                    log.warning("session: %s was taken by somebody else meanwhile", key)
                    del self._attached[key]
                elif pair is None or pair.lease != fresh.id:
                    wanted.append((key, attached.value, pair.mod if pair else 0))
                    attached.leases.add(fresh.id)
            for start in range(0, len(wanted), _CHUNK):
                txn = Txn()
                for key, value, seen in wanted[start : start + _CHUNK]:
                    txn.when(mod(key, seen)).put(key, value, lease=fresh.id)
                if not self._client.txn(txn, timeout=patience).succeeded:
                    raise Unavailable("the session's keys changed while it was put back")
            again = self._told or self._lease is not None
            self._lease, self._suspect = fresh, False
        if wanted and again:
            log.warning("session %s is back under a new lease", self.incarnation)

    def _put(self, compares: list[Compare], key: str, value: bytes, held: Lease) -> bool:
        try:
            return self._client.txn(Txn().when(*compares).put(key, value, lease=held.id)).succeeded
        except LeaseGone:
            self._check_soon()
            return False
        except EtcdUnknown:
            pair = self._client.get(key)
            return pair is not None and pair.lease == held.id and pair.value == value

    def _tell(self) -> None:
        alive = self.alive
        if alive == self._told or self._closing.is_set():
            return
        self._told = alive
        if not alive:
            log.warning("session %s is lost: its lease may have ended", self.incarnation)
        for callback in list(self._listeners):
            try:
                callback(alive)
            except Exception:
                log.exception("session: a listener failed")

    # -- what the watch sees ---------------------------------------------------------------------

    def _check_soon(self) -> None:
        self._suspect = True
        self._wake.set()

    def _seen(self, pairs: list[KV], _revision: int) -> None:
        if not pairs or pairs[0].lease != self.lease:
            self._check_soon()

    def _changed(self, events: list[Event], _revision: int) -> None:
        last = events[-1]
        if last.kind == "delete" or last.lease != self.lease:
            self._check_soon()


_SESSIONS: dict[tuple[int, str], Session] = {}
_LOCK = threading.Lock()


def process_session(client: Client, keys: Keys, ttl: float) -> Session:
    """The session of this process in this namespace, started on first use; a forked child gets its own."""
    with _LOCK:
        place = (os.getpid(), keys.root)
        session = _SESSIONS.get(place)
        if session is None or session._closing.is_set() or session._client.closed:
            session = Session(client, keys, ttl=ttl)
            session.start()
            _SESSIONS[place] = session
        return session


def _after_fork() -> None:
    global _LOCK
    _LOCK = threading.Lock()
    _SESSIONS.clear()


os.register_at_fork(after_in_child=_after_fork)
