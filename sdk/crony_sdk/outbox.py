"""Brings reports to the platform: in order per attempt, over outages and restarts, until it has them or refuses them.

Who reports tries at once, in its own thread; what could not be delivered is left to one background thread.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from crony_sdk import contract, forks
from crony_sdk.contract import Standing
from crony_sdk.errors import CronyError, Unavailable, Undelivered
from crony_sdk.spool import Directory, Memory, Report, Store, is_end
from crony_sdk.wire import Wire

log = logging.getLogger("crony_sdk")

LOOK = 3.0
"""Seconds between looks at what other processes left in the directory."""
FIRST_PAUSE, LONGEST_PAUSE = 0.3, 5.0
KEEP = 3 * 86400.0
"""Seconds after which a report that nobody took is given up."""
TEXT_FIRST = 10.0
"""Seconds that an end waits for the text before it, when only the text cannot be delivered."""
LIMIT = 64 * 1024 * 1024
"""Bytes in the spool above which further log text is dropped; a completion never is."""


@dataclass
class _Hold:
    until: float = 0.0
    failures: int = 0


class Outbox:
    """Sends reports from a store."""

    def __init__(
        self,
        store: Store,
        wire: Wire | None = None,
        *,
        keep: float = KEEP,
        limit: int = LIMIT,
        pauses: tuple[float, float] = (FIRST_PAUSE, LONGEST_PAUSE),
        text_first: float = TEXT_FIRST,
    ) -> None:
        self.store, self.wire = store, wire or Wire()
        self._keep, self._limit, self._pauses = keep, limit, pauses
        self._text_first = text_first
        self.after_fork()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        """Threads, and who waited for what, stayed with the parent."""
        self._state = threading.Condition()
        self._busy: set[str] = set()
        self._holds: dict[str, _Hold] = {}
        self._answers: dict[str, Standing | CronyError | None] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def durable(self) -> bool:
        """Whether a report survives this process."""
        return self.store.durable

    def start(self) -> None:
        """Look after what an earlier process left, from now on."""
        with self._state:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._look_after, name="crony-outbox", daemon=True)
                self._thread.start()

    def close(self, timeout: float = 5.0) -> bool:
        """Deliver what can be delivered within `timeout` seconds, then let go of the store; whether nothing is left."""
        done = self.flush(timeout)
        with self._state:  # a thread that is just being made is started by then
            self._closing, thread = True, self._thread
        self._wake.set()
        if thread is not None:
            thread.join()
        _opened.forget(self)
        self.store.close()
        return done

    def flush(self, timeout: float) -> bool:
        """Wait until nothing of ours is left; false when something still is after `timeout` seconds."""
        until = time.monotonic() + timeout
        try:
            while self.store.backlog():
                if time.monotonic() >= until:
                    return False
                self.start()
                self._wake.set()
                time.sleep(0.02)
        except OSError as error:
            log.error("the spool cannot be read: %s", error.strerror)
            return False
        return True

    def send(self, report: Report, patience: float) -> Standing:
        """Keep a report, and deliver it within `patience` seconds.

        A durable one that takes longer is `delivered=False` and goes on by itself; one that is not raises
        `Undelivered`. Raises `Refused` when the platform does not want it.
        """
        until = time.monotonic() + patience
        try:
            name = self.store.put(report)
        except OSError as error:
            log.error("%s cannot be spooled, trying without: %s", report.about, error.strerror)
            return self._unkept(report, until)
        with self._state:
            self._answers[name] = None
        try:
            while True:
                self._deliver(report.lane, until, timeout=max(1.0, until - time.monotonic()))
                found = self._answers[name]
                if isinstance(found, CronyError):
                    raise found
                if found is not None:
                    return found
                if self.store.read(name) is None:  # another process saw to it
                    return Standing()
                left = until - time.monotonic()
                if left <= 0 or (self.durable and self._pause(report.lane) > 0):
                    break
                time.sleep(max(0.0, min(self._pause(report.lane), left)))
        finally:
            with self._state:
                del self._answers[name]
        if self.durable:
            log.warning("%s waits in the spool: Crony cannot be reached", report.about)
            self.start()
            self._wake.set()
            return Standing(delivered=False)
        self.store.remove(name)
        raise Undelivered(f"{report.about} could not be delivered within {patience:g} s, and no spool keeps it")

    def later(self, report: Report) -> bool:
        """Keep a report and deliver it in the background; false when there is no room for it."""
        try:
            if self.store.size() >= self._limit:
                return False
            self.store.put(report)
        except OSError as error:
            log.error("%s cannot be spooled and is dropped: %s", report.about, error.strerror)
            return False
        self.start()
        self._wake.set()
        return True

    def post(self, report: Report, timeout: float | None = None) -> Standing:
        """One try, kept nowhere. Raises `Unavailable` or `Refused`."""
        headers = {contract.TRACEPARENT: report.traceparent} if report.traceparent else None
        url = f"{report.callback}:{report.verb}"
        answer = self.wire.request("POST", url, token=report.token, body=report.body, headers=headers, timeout=timeout)
        return Standing.from_json(answer.json())

    # -- a lane ----------------------------------------------------------------------------------

    def _deliver(self, lane: str, until: float, names: list[str] | None = None, timeout: float | None = None) -> None:
        """Send a lane's reports in order, until none is left or one cannot be delivered now."""
        if self._pause(lane) > 0 or not self._enter(lane, until):
            return
        try:
            with self.store.sole(lane) as mine:
                left = list(self.store.pending(lane) if names is None else names) if mine else []
                while left and self._try(left[0], timeout):
                    del left[0]
                ends = [name for name in left if is_end(name)]
                if ends and left[0] not in ends and self._overdue(ends[0]) and self._try(ends[0], timeout):
                    log.warning("an attempt has ended before %d pieces of its text could be delivered", len(left) - 1)
        finally:
            self._leave(lane)

    def _overdue(self, name: str) -> bool:
        """Whether an end has waited so long for the text before it that it should wait no more: the platform takes
        ends when it cannot take text."""
        report = self.store.read(name)
        return report is not None and time.time() - report.written > self._text_first

    def _try(self, name: str, timeout: float | None) -> bool:
        """Send one report; false when the lane has to wait."""
        report = self.store.read(name)
        if report is None:
            return True
        try:
            answer: Standing | CronyError = self.post(report, timeout)
        except Unavailable as error:
            self._hold_off(report, error)
            if time.time() - report.written < self._keep:
                return False
            answer = error
        except CronyError as error:
            answer = error
        else:
            self._go_on(report.lane)
        self.store.remove(name)
        with self._state:
            awaited = name in self._answers
            if awaited:
                self._answers[name] = answer
        if isinstance(answer, CronyError) and not awaited:
            log.error("%s is given up: %s", report.about, answer)
        return True

    def _enter(self, lane: str, until: float) -> bool:
        with self._state:
            while lane in self._busy:
                if not self._state.wait(max(0.0, until - time.monotonic())):
                    return False
            self._busy.add(lane)
            return True

    def _leave(self, lane: str) -> None:
        with self._state:
            self._busy.discard(lane)
            self._state.notify_all()

    # -- pauses ----------------------------------------------------------------------------------

    def _pause(self, lane: str) -> float:
        """Seconds for which this lane had better not be tried: its own pause, or that of the web it goes to."""
        with self._state:
            holds = (self._holds.get(lane), self._holds.get(lane[:8]))
            return max((hold.until - time.monotonic() for hold in holds if hold), default=0.0)

    def _hold_off(self, report: Report, error: Unavailable) -> None:
        # Too many calls, a mistake in Crony, a database that text needs: no reason to hold other attempts.
        own = error.status in (429, 500) or (error.status is not None and not report.ends)
        with self._state:
            hold = self._holds.setdefault(report.lane if own else report.lane[:8], _Hold())
            if hold.until > time.monotonic() and error.retry_after is None:
                return  # another thread has just said so
            first, longest = self._pauses
            pause = min(first * 2.0 ** min(hold.failures, 16), longest) * random.uniform(0.6, 1.0)
            if error.retry_after is not None:
                pause = max(pause, min(error.retry_after, 60.0))
            hold.failures += 1
            hold.until = time.monotonic() + pause
            begins = hold.failures == 1
        log.log(logging.WARNING if begins else logging.DEBUG, "%s waits %.1f s: %s", report.about, pause, error)

    def _go_on(self, lane: str) -> None:
        with self._state:
            self._holds.pop(lane, None)
            self._holds.pop(lane[:8], None)

    # -- the background --------------------------------------------------------------------------

    def _look_after(self) -> None:
        while not self._closing:
            pause = LOOK if self.durable else 60.0
            try:
                backlog = list(self.store.backlog().items())
                random.shuffle(backlog)  # one that fails again and again must not keep the same others waiting
                for lane, names in backlog:
                    self._deliver(lane, time.monotonic(), names)
                pause = min(pause, self._next_try())
            except OSError as error:
                log.error("the spool cannot be read: %s", error.strerror)
            except Exception:
                log.exception("the outbox goes on after an error that should not be")
            self._wake.wait(pause)
            self._wake.clear()

    def _next_try(self) -> float:
        """Seconds until the first pause ends; those that ended long ago are forgotten."""
        now = time.monotonic()
        with self._state:
            self._holds = {where: hold for where, hold in self._holds.items() if hold.until > now - 60}
            return min((hold.until - now for hold in self._holds.values() if hold.until > now), default=60.0)

    def _unkept(self, report: Report, until: float) -> Standing:
        while True:
            try:
                return self.post(report)
            except Unavailable as error:
                self._hold_off(report, error)
                pause = max(0.0, self._pause(report.lane))
                if time.monotonic() + pause >= until:
                    raise Undelivered(f"{report.about} could not be delivered or kept: {error}") from None
                time.sleep(pause)


class _Opened:
    """The outboxes of this process, by directory."""

    def __init__(self) -> None:
        self.by_path: dict[str, Outbox] = {}
        self.passing = Outbox(Memory())
        self.after_fork()
        forks.renew_after_fork(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()

    def forget(self, outbox: Outbox) -> None:
        with self.lock:
            self.by_path = {path: box for path, box in self.by_path.items() if box is not outbox}


_opened = _Opened()


def open_outbox(spool: str | os.PathLike[str] | Outbox | None = None, *, wire: Wire | None = None) -> Outbox:
    """The outbox of a directory, the same for all who ask in this process; without one, an outbox in memory.

    `CRONY_SDK_SPOOL` names the directory for those who do not. `wire` says how to reach Crony: a CA, proxies, timeouts;
    who asks first decides.
    """
    if isinstance(spool, Outbox):
        return spool
    spool = spool or os.environ.get("CRONY_SDK_SPOOL")
    if not spool:
        return _opened.passing if wire is None else Outbox(Memory(), wire)
    path = str(Path(spool).resolve())
    with _opened.lock:
        if path not in _opened.by_path:
            _opened.by_path[path] = Outbox(Directory(path), wire)
        return _opened.by_path[path]
