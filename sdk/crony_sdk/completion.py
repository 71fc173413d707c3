"""One attempt that is answered later: alive, how far, what there is to read, and once how it went."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from crony_sdk import contract, forks
from crony_sdk.contract import Call, Standing
from crony_sdk.errors import Cancelled, Conflict, Failed, Invalid, NotACall, Refused, TooLarge, Unavailable
from crony_sdk.outbox import Outbox, open_outbox
from crony_sdk.pulse import PULSE
from crony_sdk.spool import Report
from crony_sdk.wire import encode

log = logging.getLogger("crony_sdk")

PATIENCE, PATIENCE_WITHOUT_SPOOL = 5.0, 60.0
PROGRESS_EVERY = 0.5
"""Seconds between two progress calls; of what comes in between the last one is sent."""
TEXT_EVERY, TEXT_HELD = 0.5, 32 * 1024
"""Seconds, and bytes, for which log text is collected."""
UNASKED_HEARTBEAT = 30.0
"""Seconds between two calls when the job asks for no heartbeat: how soon a cancel is known."""


class Completion:
    """Reports about one attempt. Safe to use from several threads, and in a forked child.

    As a context manager it sends heartbeats in the background, completes when the block ends, and fails when it
    raises (the exception goes on). `cancelled` turns true when the platform wants the work to stop.
    """

    def __init__(self, call: Call, *, spool: str | os.PathLike[str] | Outbox | None = None, numbered: bool = False):
        """`spool` is a directory that only we may read; without one (and without `CRONY_SDK_SPOOL`) a report that the
        platform does not take in time raises `Undelivered`. `numbered`: nobody else logs for this attempt, so that
        text that is sent again is known as such. Raises `NotACall` for a call that wants its answer at once.
        """
        if not call.asynchronous:
            raise NotACall("this call has no callback: give the job `async: {deadline: …}` to answer it later")
        self.call = call
        self._outbox = open_outbox(spool)
        self._numbered, self._logged = numbered, 0
        self._stopped = False
        self._final: tuple[str, bytes] | None = None
        self._standing: Standing | None = None
        self.over = False
        """Whether the platform has said that the attempt has ended: there is nothing left to report."""
        self.after_fork()
        forks.renew_after_fork(self)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], **options: Any) -> Completion:
        """For the call with these headers. Check its signature first: they say where the result goes."""
        return cls(Call.from_headers(headers), **options)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Completion:
        """For the shell job that this process is part of."""
        return cls(Call.from_environ(environ), **options)

    @classmethod
    def from_grpc(cls, context: Any, **options: Any) -> Completion:
        """For the gRPC call of this servicer context."""
        return cls(Call.from_grpc(context), **options)

    def after_fork(self) -> None:
        """Heartbeats and unsent text stay with the parent; a child that goes on reporting calls `start`."""
        self._lock = threading.RLock()
        self._stop = threading.Event()
        if self._stopped:
            self._stop.set()
        self._beating = False
        self._progress: dict[str, Any] | None = None
        self._progress_at = -PROGRESS_EVERY
        self._progress_due = False
        self._text: list[tuple[str, str]] = []
        self._text_size = 0

    # -- how it stands ---------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether the work should stop: somebody cancelled the run, or the attempt has ended without us."""
        return self._stopped

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Sleep, but not longer than until a cancel; whether there was one."""
        return self._stop.wait(timeout)

    def check(self) -> None:
        """Raises `Cancelled` when the work should stop."""
        if self._stopped:
            raise Cancelled(f"run {self.call.run}, attempt {self.call.attempt} should stop")

    def cancel(self) -> None:
        """Make `cancelled` true from our side, because the service stops or a later attempt is here."""
        self._stopped = True
        self._stop.set()

    # -- accepting -------------------------------------------------------------------------------

    def accept(self) -> None:
        """In a shell job: say that the work has been handed over; then exit with 0. Over HTTP, answer 202 instead."""
        if not self.call.accept_file:
            raise Invalid("accept", "is for shell jobs; an HTTP call is accepted by answering 202")
        with open(self.call.accept_file, "wb"):
            pass

    # -- while it runs ---------------------------------------------------------------------------

    def start(self) -> Completion:
        """Send heartbeats in the background until the report, until the attempt has ended, or until `stop`."""
        with self._lock:
            if not self._beating and self._final is None:
                self._beating = True
                PULSE.add(self._beat, 0.0)
        return self

    def stop(self) -> None:
        """No more heartbeats."""
        with self._lock:
            self._beating = False
        self._flush_text()

    def heartbeat(self) -> Standing | None:
        """Say that we are alive; how the attempt stands, or None when the platform cannot be asked just now."""
        return self._tell("heartbeat", {})

    def progress(self, percent: float | None = None, message: str | None = None) -> None:
        """How far it is: 0 to 100, and a few words. Cheap: sent at most twice a second, the last one wins."""
        if percent is not None and not (isinstance(percent, (int, float)) and 0 <= percent <= 100):
            raise Invalid("percent", "must be a number from 0 to 100")
        fields = {"percent": percent, "message": None if message is None else _clean(message)[: contract.REASON_LIMIT]}
        with self._lock:
            given = {name: value for name, value in fields.items() if value is not None}
            self._progress = {**(self._progress or {}), **given}
            wait = self._progress_at + PROGRESS_EVERY - time.monotonic()
            if wait > 0:
                if not self._progress_due:
                    self._progress_due = True
                    PULSE.add(self._send_progress, wait)
                return
        self._send_progress()

    def log(self, text: str, stream: str = "stdout") -> None:
        """Append text to the attempt's output, as it is: bring your own line ends. Arrives in order, before the end."""
        if stream not in ("stdout", "stderr"):
            raise Invalid("stream", "must be stdout or stderr")
        with self._lock:
            if self._final is not None or not text:
                return
            collect = self._beating or self._numbered
            if collect and not self._text:
                PULSE.add(self._flush_text, TEXT_EVERY)
            self._text.append((stream, _clean(text)))
            self._text_size += len(text)
            hold = collect and self._text_size < TEXT_HELD
        if not hold:
            self._flush_text()

    # -- the end ---------------------------------------------------------------------------------

    def complete(self, result: Any = None, *, patience: float | None = None) -> Standing:
        """The attempt has succeeded. Saying the same again is harmless.

        With a spool the report is safe when this returns, and `delivered` says whether the platform has it already.
        Raises `Conflict` when the attempt has ended otherwise, `TooLarge`, `Invalid` for what is no JSON, and without
        a spool `Undelivered` after `patience` seconds.
        """
        return self._end("complete", {"result": result}, patience)

    def fail(
        self, reason: str, *, code: int | None = None, final: bool = False, patience: float | None = None
    ) -> Standing:
        """The attempt has failed; `final` asks for no further one. Otherwise as `complete`."""
        if code is not None and not (isinstance(code, int) and -(2**31) <= code < 2**31):
            raise Invalid("code", "must be a whole number of 32 bits")
        reason = _clean(reason).strip()[: contract.REASON_LIMIT] or "no reason was given"
        return self._end("fail", {"reason": reason, "code": code, "final": bool(final)}, patience)

    def fail_with(self, error: BaseException) -> Standing:
        """The attempt has failed with this exception: a `Failed` as it says, any other with its class and text."""
        if isinstance(error, Failed):
            return self.fail(error.reason, code=error.code, final=error.final)
        if isinstance(error, Cancelled):
            return self.fail("stopped after a cancel")
        return self.fail(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def __enter__(self) -> Completion:
        """Starts the heartbeats."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reports what the block has not."""
        try:
            if self._final is not None or (self.over and error is not None):
                return
            if error is None:
                self.complete()
            else:
                try:
                    self.fail_with(error)
                except (Refused, Unavailable) as trouble:  # the block's own exception matters more
                    log.warning("the failure of %s could not be reported: %s", self.call.run, trouble)
        finally:
            self.stop()

    # -- inside ----------------------------------------------------------------------------------

    def _beat(self) -> float | None:
        """One heartbeat of the background; seconds until the next one, None for no more."""
        if not self._beating or self._final is not None:
            return None
        answer = self._tell("heartbeat", {})
        if answer is not None and answer.state == "ended":
            return None
        every = (self.call.heartbeat or 3 * UNASKED_HEARTBEAT) / 3
        return every if answer is not None else min(every, 2.0)

    def _send_progress(self) -> None:
        with self._lock:
            fields, self._progress, self._progress_due = self._progress, None, False
            self._progress_at = time.monotonic()
            if fields is None or self._final is not None:
                return
        self._tell("progress", fields)

    def _flush_text(self) -> None:
        with self._lock:  # held until it is in the outbox: text keeps its order
            held, self._text, self._text_size = self._text, [], 0
            for stream, text in _pieces(held):
                body: dict[str, Any] = {"text": text, "stream": stream}
                if self._numbered:
                    body["offset"] = self._logged
                if self._outbox.later(self._report("log", body)):
                    self._logged += len(text.encode())
                else:
                    log.warning("log text of %s is dropped: the spool is full", self.call.run)

    def _tell(self, verb: str, body: dict[str, Any]) -> Standing | None:
        """A call that may be lost."""
        patience = min(self._outbox.wire.timeout, max(2.0, (self.call.heartbeat or 30.0) / 3))
        try:
            answer = self._outbox.post(self._report(verb, body), timeout=patience)
        except Unavailable as error:
            log.debug("%s of %s was lost: %s", verb, self.call.run, error)
            return None
        except Refused as error:  # the token is no longer good, or nobody knows the run: the work is in vain
            log.warning("%s of %s is refused, it should stop: %s", verb, self.call.run, error)
            answer = Standing("ended", None, cancel=True)
        self.over |= answer.state == "ended"
        if answer.cancel or self.over:
            self.cancel()
        return answer

    def _end(self, verb: str, body: dict[str, Any], patience: float | None) -> Standing:
        content = encode(body, "result")
        if len(content) > contract.BODY_LIMIT:
            raise TooLarge(
                f"the result has {len(content)} bytes as JSON, {contract.BODY_LIMIT} are taken: report where it lies",
                status=413,
            )
        with self._lock:
            if self._final is None:
                self._flush_text()
                self._final = (verb, content)
            elif self._final != (verb, content):
                raise Conflict(f"run {self.call.run}, attempt {self.call.attempt} has been reported otherwise already")
            elif self._standing is not None:
                return self._standing
        if patience is None:
            patience = PATIENCE if self._outbox.durable else PATIENCE_WITHOUT_SPOOL
        try:
            standing = self._outbox.send(self._report(verb, body), patience)
        except Unavailable:
            with self._lock:
                self._final = None  # it may be said again, or something else
            raise
        except Refused:
            self._beating, self.over = False, True
            self.cancel()
            raise
        with self._lock:
            self._standing, self._beating = standing, False
        return standing

    def _report(self, verb: str, body: dict[str, Any]) -> Report:
        return Report(self.call.callback, self.call.token, verb, body, self.call.traceparent)


def _pieces(held: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Text of one stream that follows each other in one piece, none longer than the platform takes."""
    joined: list[tuple[str, str]] = []
    for stream, text in held:
        if joined and joined[-1][0] == stream:
            joined[-1] = (stream, joined[-1][1] + text)
        else:
            joined.append((stream, text))
    step = contract.TEXT_LIMIT // 4  # characters have up to four bytes
    return [(stream, text[at : at + step]) for stream, text in joined for at in range(0, len(text), step)]


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
