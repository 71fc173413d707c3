"""One attempt while it is executed: what it is, until when, how to stop it, where its output goes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crony.domain.masking import Mask
from crony.domain.outcome import Kind
from crony.domain.run import Envelope
from crony.domain.secret import filled
from crony.errors import CronyError

if TYPE_CHECKING:
    from crony.workers.calling import Callback
    from crony.workers.output import Output
    from crony.workers.process import Process
    from crony.workers.progress import Progress


@dataclass(frozen=True, slots=True)
class Held:
    """What the transport says of a delivered message: where it lies, and the claim this process's node has on it."""

    queue: str
    place: str
    fence: int
    incarnation: str
    count: int = 1

    @property
    def delivery(self) -> tuple[str, str, str, int]:
        """Which delivery it is, whatever became of the fence: a permit changes that."""
        return self.queue, self.place, self.incarnation, self.count

    @classmethod
    def read(cls, properties: Any) -> Held | None:
        """The claim behind a message's `crony` properties; None when it was not delivered by Crony's transport."""
        try:
            return cls(
                str(properties["queue"]),
                str(properties["place"]),
                int(properties["fence"]),
                str(properties["incarnation"]),
                int(properties.get("count", 1)),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt went, as its runner saw it."""

    kind: Kind
    reason: str = ""
    """One sentence for people."""
    code: int | None = None
    """Exit code, HTTP or gRPC status."""
    result: Any = None
    retry_after: float = 0.0
    """Seconds for which the callee asks to be left alone, before a further attempt."""
    final: bool = False
    """The callee said that no attempt shall follow."""
    accepted: bool = False
    """It goes on elsewhere: its callee has accepted it and will say how it went. The rest does not count."""


SUCCEEDED = Verdict(Kind.SUCCEEDED)
NOTHING = Mask(())
ACCEPTED = Verdict(Kind.UNKNOWN, accepted=True)


class NotAsynchronous(CronyError):
    """The job has no `async` section, so nobody would wait for an answer that comes later."""


class Attempt:
    """An attempt under way. `finish` is the only way out, and only the first call counts."""

    def __init__(self, envelope: Envelope, held: Held, output: Output, process: Process) -> None:
        self.envelope, self.held, self.output, self.process = envelope, held, output, process
        self.begun = time.monotonic()
        self.deadline = self.begun + envelope.timeout
        self.cancelled = self.was_cut = False
        self.patience = math.inf
        """Most seconds that work which is being stopped may take to end by itself."""
        self.callback: Callback | None = None
        """How its callee may answer later; None: it must answer at once."""
        self.deferred = False
        self.secrets: Mapping[str, str] = {}
        """Its secrets, under what the job calls them."""
        self.mask = NOTHING
        self.progress: Progress | None = None
        """How far it is; None: it has not said anything."""
        self._lock = threading.Lock()
        self._call: Callable[[], None] | None = None
        self._finished = False
        self._finish: Callable[[Verdict], None] = lambda verdict: None

    def open(self, secrets: Mapping[str, str]) -> None:
        """It has these secrets now: its action is filled with them, and its output and its end are masked."""
        self.secrets, self.mask = secrets, Mask(secrets.values())
        self.output.mask(self.mask)
        self.envelope = replace(self.envelope, action=filled(self.envelope.action, secrets))

    @property
    def left(self) -> float:
        """Seconds until its timeout; never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def permitted(self, fence: int) -> None:
        """Its work may start now, under this fence; its time counts from here."""
        self.held = replace(self.held, fence=fence)
        self.begun = time.monotonic()
        self.deadline = self.begun + self.envelope.timeout

    def defer(self) -> Callback:
        """The function that runs will have the attempt ended from elsewhere, with what is returned here: when it
        returns, the run waits for that. Raises `NotAsynchronous`.
        """
        if self.callback is None:
            raise NotAsynchronous("This job cannot be answered later", hint="give it an `async` section")
        self.deferred = True
        return self.callback

    def cancel(self) -> None:
        """Somebody wants it stopped: the runner is told, once."""
        with self._lock:
            if self.cancelled:
                return
            self.cancelled, call = True, self._call
        if call is not None:
            call()

    def cut(self, patience: float) -> None:
        """Its node may be taken for lost: it is stopped as by a cancel, in `patience` seconds."""
        self.was_cut, self.patience = not self.cancelled, patience
        self.cancel()

    def on_cancel(self, call: Callable[[], None] | None) -> None:
        """The runner's way of hearing of a cancel; called at once if it came already. None: not interested any more."""
        with self._lock:
            self._call, now = call, self.cancelled
        if now and call is not None:
            call()

    def finishes_with(self, finish: Callable[[Verdict], None]) -> None:
        """What `finish` does with the first verdict (the executor's end transaction; may take long)."""
        self._finish = finish

    def finish(self, verdict: Verdict) -> bool:
        """End the attempt with this verdict; False when it was ended before, and nothing was done."""
        with self._lock:
            if self._finished:
                return False
            self._finished = True
        if self.mask:
            verdict = replace(verdict, reason=self.mask.text(verdict.reason), result=self.mask.value(verdict.result))
        self._finish(verdict)
        return True

    @property
    def finished(self) -> bool:
        """Whether `finish` was called."""
        return self._finished
