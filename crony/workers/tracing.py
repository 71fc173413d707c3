"""How Celery traces a run: as any task, without what `crony.run` has no use for.

A run has no result to store, no retry of Celery's, no callbacks (its chain is the leader's); its outcome is in etcd
when its function returns. What others rely on stays: the current task and its request, Celery's signals, its loader.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from time import monotonic
from typing import Any

from celery import signals, states
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Context, Task

log = logging.getLogger("crony.worker")

HOOKS = ("__call__", "before_start", "on_success", "after_return")
"""What a task may do beside its function. One that does is left to Celery."""


class Told(Context):  # type: ignore[misc]
    """The request of a task. Which of its headers are not Celery's is worked out when somebody asks, not each time."""

    def __init__(self, given: Mapping[str, Any], **facts: Any) -> None:
        """As of Celery."""
        known = self.__dict__
        known.update(given, **facts)
        if known.get("headers", self) is None:
            del known["headers"]
        limits = known.get("timelimit")
        if isinstance(limits, list | tuple) and len(limits) >= 2:
            self.time_limit, self.soft_time_limit = limits[0], limits[1]

    @cached_property
    def headers(self) -> dict[str, Any] | None:
        """As of Celery: None when there are none."""
        return self._get_custom_headers(self.__dict__)  # type: ignore[no-any-return]


def tracer(app: Any, task: Any, hostname: str) -> Callable[..., trace.trace_ok_t]:
    """What stands for Celery's tracer of `task`, which stores nothing and answers None."""
    if any(getattr(type(task), name) is not getattr(Task, name) for name in HOOKS):
        return trace.build_tracer(task.name, task, app.loader, hostname, app=app)  # type: ignore[no-any-return]
    function, loader = task.run, app.loader
    begun, requests = _task_stack, task.request_stack

    def run(uuid: str, args: Any, kwargs: Any, request: Any = None) -> trace.trace_ok_t:
        started, state, problem, answer = monotonic(), states.SUCCESS, None, None
        context = Told(request or {}, args=args, kwargs=kwargs, called_directly=False)
        begun.push(task)
        requests.push(context)
        try:
            if signals.task_prerun.receivers:
                signals.task_prerun.send(sender=task, task_id=uuid, task=task, args=args, kwargs=kwargs)
            loader.on_task_init(uuid, task)
            try:
                function(*args, **kwargs)
            except Exception as error:
                state, problem = states.FAILURE, trace.TraceInfo(states.FAILURE, error)
                answer = problem.handle_error_state(task, context, eager=False, call_errbacks=False)
            else:
                if signals.task_success.receivers:
                    signals.task_success.send(sender=task, result=None, runtime=monotonic() - started)
        finally:
            try:
                if signals.task_postrun.receivers:
                    retval = problem.retval if problem is not None else None
                    signals.task_postrun.send(
                        sender=task, task_id=uuid, task=task, args=args, kwargs=kwargs, retval=retval, state=state
                    )
            finally:
                begun.pop()
                requests.pop()
                _clean_up(loader)
        return trace.trace_ok_t(answer, problem, monotonic() - started, "None")

    return run


def _clean_up(loader: Any) -> None:
    try:
        loader.on_process_cleanup()
    except Exception:
        log.exception("the loader's clean-up failed after a run", exc_info=sys.exc_info())


__all__ = ["HOOKS", "Told", "tracer"]
