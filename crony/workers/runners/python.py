"""Python jobs: a Celery task of an allow-listed module, called by name in this process.

A function in the main thread of its process (pools prefork and solo) is stopped at its timeout or cancel by an
exception raised inside it. In other threads that is not possible: the attempt ends in time, and says so.
"""

from __future__ import annotations

import faulthandler
import inspect
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import current_app
from celery.app.task import Task
from celery.exceptions import WorkerShutdown, WorkerTerminate

from crony.domain.callback import kept
from crony.domain.outcome import Kind
from crony.domain.stamps import Source
from crony.inside import Part, context_is, part_is
from crony.workers.attempt import ACCEPTED, Attempt, Verdict
from crony.workers.capture import captured
from crony.workers.interrupt import INTERRUPTER, Stop, in_pool_process
from crony.workers.runners.python_context import arguments_of, context_of
from crony.workers.tracing import Told

STUBBORN = 5.0
"""A function that ignores its stop for this many seconds loses its process (prefork), or is left behind."""
COOPERATION = 1.0
"""A function in a thread that watches its context is given so many seconds to stop by itself."""
LOCKED = 5.0
"""Seconds after that until its process ends even if the function never lets another thread run (prefork)."""
_ENDS_THE_WORKER = (KeyboardInterrupt, WorkerShutdown, WorkerTerminate)


def run(attempt: Attempt) -> Verdict:
    """Call the task; its result or exception is the verdict."""
    action = attempt.envelope.action
    name = str(action.get("task", ""))
    task = find(name, attempt.process.settings.imports)
    if task is None:
        return Verdict(Kind.REFUSED, f"{name} is not a task of this node; see CRONY_IMPORTS")
    args = attempt.envelope.args or list(action.get("args") or ())
    kwargs = {**(action.get("kwargs") or {}), **attempt.envelope.params}
    return _Call(attempt, task, args, kwargs).run()


def find(name: str, imports: tuple[str, ...]) -> Task[..., Any] | None:
    """The registered task of that name, if its module may be run by name."""
    if not any(name.startswith(f"{module}.") for module in imports):
        return None
    return current_app.tasks.get(name)


class _Call:
    """One call of a task's function."""

    def __init__(self, attempt: Attempt, task: Task[..., Any], args: list[Any], kwargs: dict[str, Any]) -> None:
        self._attempt, self._task, self._args, self._kwargs = attempt, task, args, kwargs
        self._stoppable = INTERRUPTER.can_stop
        self._context = context_of(attempt)
        self._arguments = arguments_of(task.run)
        self._why: Kind | None = None
        self._over = False

    def run(self) -> Verdict:
        """Call it, with the deadline and the cancel armed."""
        attempt = self._attempt
        deadline = attempt.process.alarms.after(attempt.left, lambda: self._stop(Kind.TIMED_OUT))
        try:
            attempt.on_cancel(lambda: self._stop(Kind.CANCELLED))
            with captured(attempt.output):
                if not in_pool_process():
                    return self._judge()
                with _last_resort(attempt.left + STUBBORN + LOCKED):
                    return self._judge()
        finally:
            self._over = True
            deadline.cancel()
            attempt.on_cancel(None)

    def _judge(self) -> Verdict:
        try:
            function = self._function
            value = INTERRUPTER.call(function, self) if self._stoppable else function()
            if inspect.iscoroutine(value):
                value.close()
                return Verdict(Kind.FAILED, "it is an async function, which nobody awaits: write a plain one")
            if self._context.seen_stopped and self._why is not None:
                return self._stopped("the function saw it and returned")
            if self._attempt.deferred:
                return ACCEPTED
            return Verdict(Kind.SUCCEEDED, result=kept(value))
        except Stop:
            return self._stopped("the function was stopped")
        except BaseException as error:
            # Only in the main thread of the worker itself do these end the worker. Elsewhere the function raised them,
            # and nobody above would end its attempt.
            if isinstance(error, _ENDS_THE_WORKER) and self._stoppable and not in_pool_process():
                raise
            if self._why is not None:
                return self._stopped(f"the function was stopped and raised {type(error).__name__}")
            self._attempt.output.write(_trace(error).encode(errors="backslashreplace"), Source.STDERR)
            return Verdict(Kind.FAILED, _told(error))

    def _function(self) -> Any:
        told = self._attempt.envelope
        # Called directly, as far as Celery is concerned: `self.retry()` raises instead of publishing.
        facts = {"id": f"{told.run}:{told.attempt}", "args": self._args, "kwargs": self._kwargs}
        self._task.request_stack.push(Told(facts))
        part = Part(told.part, told.parts) if told.part is not None else None
        try:
            with part_is(part), context_is(self._context):
                args, kwargs = self._arguments.given(self._context, self._args, self._kwargs)
                return self._task.run(*args, **kwargs)
        finally:
            self._task.request_stack.pop()

    def _stopped(self, how: str) -> Verdict:
        if (self._why or Kind.TIMED_OUT) is Kind.CANCELLED:
            return Verdict(Kind.CANCELLED, f"cancelled; {how}")
        return Verdict(Kind.TIMED_OUT, f"still running after {self._attempt.envelope.timeout:g} s; {how}")

    def _stop(self, why: Kind) -> None:
        """The deadline or a cancel came: called from another thread than the function's."""
        if self._over or self._why is not None:
            return
        self._why = why
        self._context.stir()
        if not self._stoppable:
            patience = min(COOPERATION, self._attempt.patience) if self._context.is_watched else 0.0
            self._attempt.process.alarms.after(patience, lambda: None if self._over else _elsewhere(self._leave))
            return
        patience = min(STUBBORN, self._attempt.patience)
        self._attempt.process.alarms.after(patience, lambda: None if self._over else _elsewhere(self._abandon))
        INTERRUPTER.stop(self)

    def _leave(self) -> None:
        self._attempt.finish(self._stopped("the function runs in a thread, cannot be stopped, and was left behind"))

    def _abandon(self) -> None:
        if not in_pool_process():
            self._leave()
            return
        if self._attempt.was_cut:  # it must be gone before etcd is back; the parent process ends the attempt
            os.kill(os.getpid(), signal.SIGKILL)
        faulthandler.cancel_dump_traceback_later()  # the end may take as long as etcd is away
        self._attempt.finish(self._stopped("the function did not stop, so its process was killed"))
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _last_resort(seconds: float) -> Iterator[None]:
    """A function in C may keep the interpreter's lock: no signal handler, no thread of ours comes in between.

    The fault handler's thread needs no lock: it says where the function is and ends the process of the pool.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _elsewhere(call: Callable[[], None]) -> None:
    # An end may take as long as etcd is away; alarms and watches must go on.
    threading.Thread(target=call, name="crony-left-behind", daemon=True).start()


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except Exception:
        return f"{type(error).__name__}, which cannot say why"


def _trace(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and not frame.filename.endswith("interrupt.py")]
    told = [*traceback.format_list(own), *traceback.format_exception_only(error)]
    return "Traceback (most recent call last):\n" + "".join(told)
