"""What a Python job is told about its run: a parameter of type `crony.Context`, `crony.context()`, `crony.part()`.

@crony.job(name="reports/daily", schedule={"cron": "0 6 * * *"}, params={"region": "cn"})
def daily(ctx: crony.Context, region: str) -> dict:
    ctx.log.info("report of %s for %s", ctx.fire_time, region)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crony.errors import CronyError, NotFound


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a run that is carried out in parts."""

    index: int
    """From 0."""
    total: int


_part: ContextVar[Part | None] = ContextVar("crony_part", default=None)


def part() -> Part | None:
    """Which part of its run the function that is running is; None: it is a whole run, or none of Crony's."""
    return _part.get()


@contextmanager
def part_is(which: Part | None) -> Iterator[None]:
    """In the body `part()` says so."""
    token = _part.set(which)
    try:
        yield
    finally:
        _part.reset(token)


class Stopped(CronyError):
    """The run shall stop: it was cancelled, or its time is up. Let it pass."""


@dataclass(frozen=True)
class Deferred:
    """The right to answer for an attempt later, from wherever: give it to `crony_sdk.Completion.from_headers`."""

    headers: Mapping[str, str] = field(repr=False)
    """Facts of the attempt, address and token, named as in a call over HTTP. Secret: they let anybody answer."""
    deadline: datetime
    heartbeat: float | None
    """Seconds for which the answer may be silent; None: for any time."""


@dataclass(frozen=True)
class Context:
    """One attempt under way, for the function that performs it. May be used from any thread of it."""

    run: str
    """Id of the run: the same for all its attempts, an idempotency key for whatever is called."""
    attempt: int
    """From 1."""
    fence: int
    """Rises from attempt to attempt: what is written elsewhere can refuse a lower one."""
    job: str
    """Name of the job."""
    fire_time: datetime | None
    """The instant that its schedule asked for, UTC; of a backfill the instant it makes up for. None: run by hand."""
    logical_time: datetime
    """`fire_time`, and for a run by hand the instant it was asked for."""
    params: Mapping[str, Any]
    """The parameters of the run. The function gets them as keyword arguments, too."""
    part: Part | None
    """Which part of its run it is; None: all of it."""
    log: logging.Logger
    """What is logged here (or anywhere else in the run) becomes its output."""
    _left: Callable[[], float] = field(repr=False)
    _stopped: Callable[[], bool] = field(repr=False)
    _write: Callable[[str], None] = field(repr=False)
    _defer: Callable[[], Deferred] = field(repr=False)
    _secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    _tell: Callable[[float | None, str | None], None] = field(default=lambda percent, message: None, repr=False)
    _stirred: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def left(self) -> float:
        """Seconds until its timeout; never negative."""
        return self._left()

    @property
    def cancelled(self) -> bool:
        """Whether it shall stop: it was cancelled, its time is up, or somebody else has ended it."""
        return self._stopped()

    def check(self) -> None:
        """Raises `Stopped` when it shall stop. Call it in loops: a function in a thread cannot be stopped otherwise."""
        if self.cancelled:
            raise Stopped(f"run {self.run} shall stop")

    def sleep(self, seconds: float) -> None:
        """Sleep so long, but not beyond a stop: that raises `Stopped`."""
        self._stirred.wait(min(max(0.0, seconds), self.left))
        self.check()

    def progress(self, percent: float | None = None, message: str = "") -> None:
        """Say how far it is: shown with the run while it is under way, the newest word, and a line of the output.

        What is not given stays as it was. Say it at any rate: it is written every two seconds at most, and
        never waited for. Of an answer that comes later the SDK tells the platform. Raises `ValueError` for a percentage
        that is no number.
        """
        self._tell(percent, message or None)
        shown = "" if percent is None else f"{min(100.0, max(0.0, float(percent))):.0f} %"
        self._write(f"[progress] {' '.join(part for part in (shown, message) if part)}")

    def secret(self, name: str) -> str:
        """A secret of its job, by what the job calls it. Raises `NotFound`."""
        if name not in self._secrets:
            raise NotFound(f"This job has no secret {name}", hint="name it in the field `secrets` of the job")
        return self._secrets[name]

    def defer(self) -> Deferred:
        """When the function returns, its run goes on elsewhere, until it is answered with what is given here.

        Raises `CronyError` when the job has no `async` section: nobody would wait.
        """
        return self._defer()


_context: ContextVar[Context | None] = ContextVar("crony_context", default=None)


def context() -> Context | None:
    """The context of the run that the calling function is part of; None: it is not part of one."""
    return _context.get()


@contextmanager
def context_is(which: Context) -> Iterator[None]:
    """In the body `context()` says so."""
    token = _context.set(which)
    try:
        yield
    finally:
        _context.reset(token)


def secret(name: str) -> str:
    """A secret of the job whose function is running, by what the job calls it. Raises `NotFound`."""
    found = context()
    if found is None:
        raise NotFound(f"There is no secret {name} here", why="no job is running in this context")
    return found.secret(name)
