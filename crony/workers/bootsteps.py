"""What makes a Celery worker a node: one consumer bootstep, begun after the pool has forked and the broker answers."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Container
from typing import Any

from celery import bootsteps, current_app, signals
from celery.app import trace
from celery.concurrency.solo import TaskPool as Solo
from celery.exceptions import ImproperlyConfigured, WorkerShutdown
from celery.worker import state

from crony.errors import Conflict, Forbidden, Halted, Invalid
from crony.tasks.run import NAME
from crony.transport_etcd import hooks
from crony.workers import ending, executor
from crony.workers.keeper import hide
from crony.workers.letting_go import LettingGo
from crony.workers.liveness import Liveness
from crony.workers.process import Process, current
from crony.workers.request import OPEN, flushing
from crony.workers.tracing import tracer
from crony.workers.uploader import Uploader

log = logging.getLogger("crony.worker")

FLUSH = 5.0
"""How long a stopping node goes on sending output, seconds; the rest stays in its spool."""


class Node(bootsteps.StartStopStep):  # type: ignore[misc]
    """Registers the node, consumes its queue and the shared ones it takes from, and leaves in order."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self._liveness: Liveness | None = None
        self._letting_go = LettingGo()
        self._uploader: Uploader | None = None
        self._beat: Any = None
        check(c.app)

    def start(self, c: Any) -> None:
        """On each connection: the first time the node joins; then its queue is consumed."""
        if self._liveness is None:
            self._join(c)
        trace_quietly(c.app, c.hostname)
        inside = in_process(c.pool)
        for key, request in list(OPEN.items()):
            if not request.in_pool(in_process=inside):
                OPEN.pop(key)  # dropped by Celery with the connection before; its claim was released
        assert self._liveness is not None
        for queue in (self._liveness.queue, *self._liveness.shared):
            c.add_task_queue(queue, exchange="", no_declare=True)
        self._watch_loop(c)

    def stop(self, c: Any) -> None:
        """The connection was lost, or the worker stops: no loop runs for a while."""
        hooks.loop_moved = None
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if self._liveness is not None:
            self._liveness.loop.pause()

    def _watch_loop(self, c: Any) -> None:
        """Let the loop say that it moves. In the pool `solo` it runs the work itself, so nothing can be said of it."""
        assert self._liveness is not None
        if self._liveness.draining or isinstance(c.pool, Solo):
            return
        if c.hub is not None:
            self._beat = c.hub.call_repeatedly(1.0, self._liveness.loop.moved)
        else:
            hooks.loop_moved = self._liveness.loop.moved

    def close(self, c: Any) -> None:
        """The worker stops: nothing new is claimed, and what has not started goes back at once."""
        if self._liveness is None:
            return
        self._liveness.stop_claiming()
        if (semaphore := getattr(c.controller, "semaphore", None)) is not None:
            semaphore.clear()  # what waits for a slot of the pool never gets one
        for request in list(OPEN.values()):
            held = request.held
            if request.withdraw(in_process=in_process(c.pool)) and held is not None:
                self._letting_go.hand_back(held, request.sealed)

    def info(self, c: Any) -> dict[str, Any]:
        """For `celery inspect stats`."""
        live = self._liveness
        if live is None:
            return {"crony": None}
        counts = ending.COUNTERS
        return {
            "crony": {
                "node": live.name,
                "incarnation": live.incarnation,
                "alive": live.alive,
                "draining": live.draining,
                "ended": counts.ended,
                "stale": counts.stale,
            }
        }

    def _join(self, c: Any) -> None:
        process = current()
        process.under_way = lambda: executor.STARTS.under_way
        if process.settings.shell:
            hide()
        live = Liveness(process, capacity=lambda: capacity(c.pool), running=running)
        if c.hub is not None:
            live.on_stop = lambda: c.hub.call_soon(_nothing)  # a signal alone does not end the loop's waiting
        hooks.node, hooks.may_claim = live.name, live.may_claim
        celerys = hooks.in_pool
        hooks.in_pool = lambda: Either(celerys(), in_pool(c.pool))
        if not in_process(c.pool) and c.pool.flush is not None:
            c.pool.flush = flushing(c.pool.flush)
        hooks.let_go, hooks.requeued = self._letting_go.let_go, self._letting_go.requeued
        hooks.ended = ending.ENDS.asked
        try:
            ready(process)
            live.join(_patiently)
        except (Conflict, Invalid, Forbidden, Halted) as refusal:
            log.critical("%s", refusal)
            hooks.may_claim = lambda queue: False
            live.close()
            raise WorkerShutdown(refusal.exit_code) from None
        self._liveness = live
        collect_less_often()
        self._letting_go.start()
        if process.spool.keeps:
            self._uploader = Uploader(process.spool, process.settings, live.incarnation)
            self._uploader.start()
            live.states = self._uploader.states
        else:
            log.warning("CRONY_API is not set: output of runs is not kept, only their outcomes")
        signals.worker_shutting_down.connect(self._on_signal)
        signals.worker_shutdown.connect(self._leave)

    def _on_signal(self, **kwargs: Any) -> None:
        if self._liveness is not None:
            self._liveness.stop_claiming()

    def _leave(self, **kwargs: Any) -> None:
        """The pool has stopped and the connection is closed: end what was let go, send output, leave."""
        self._letting_go.stop(FLUSH)
        if self._liveness is not None:
            self._liveness.close()
        if self._uploader is not None:
            self._uploader.stop(FLUSH)


def trace_quietly(app: Any, hostname: str) -> None:
    """Celery says of each task that it succeeded. Of a run its outcome says more, so it is said at level debug only,
    by Celery's own tracer."""
    if trace.logger.isEnabledFor(logging.DEBUG):
        return
    task = app.tasks[NAME]
    task.__trace__ = tracer(app, task, hostname)


def collect_less_often() -> None:
    """What is loaded stays, and runs leave little that only the collector finds: it need not look all the time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _in_child(**kwargs: Any) -> None:
    """A child of the pool makes its tracers anew."""
    collect_less_often()
    if NAME in current_app.tasks:
        trace_quietly(current_app, trace.gethostname())


def check(app: Any) -> None:
    """Refuse to start with a task or pool whose options would lose runs. Raises `ImproperlyConfigured`."""
    task = app.tasks.get(NAME)
    if task is None:
        raise ImproperlyConfigured(f"the task {NAME} is not registered; a node cannot run anything without it")
    wanted = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True, "max_retries": 0}
    wrong = [name for name, value in wanted.items() if getattr(task, name) != value]
    if wrong:
        raise ImproperlyConfigured(
            f"{', '.join(wrong)} of {NAME} was changed by the configuration (task_annotations?); leave it alone"
        )


def ready(process: Process) -> None:
    """What a node cannot do without: keys of centres to trust, a spool of its own. Raises `Invalid`."""
    if not process.settings.centre_keys:
        raise Invalid(
            "CRONY_CENTRE_KEYS",
            "is empty, so no run could be verified and none would be executed",
            hint="give the public keys of the scheduling centres",
        )
    _ = process.verifier, process.spool


def capacity(pool: Any) -> int:
    """How many attempts a pool runs at a time."""
    return max(1, int(getattr(pool, "num_processes", 0) or getattr(pool, "limit", 0) or 1))


class Either:
    """What is in one of two containers."""

    def __init__(self, left: Container[str], right: Container[str]) -> None:
        self._both = left, right

    def __contains__(self, tag: object) -> bool:
        return any(tag in part for part in self._both)


def in_process(pool: Any) -> bool:
    """Whether a pool executes in this very process (threads, solo)."""
    return not getattr(pool, "uses_semaphore", False)


def in_pool(pool: Any) -> set[str]:
    """Delivery tags of the runs that the pool has, begun or not."""
    inside = in_process(pool)
    return {request.message.delivery_tag for request in list(OPEN.values()) if request.in_pool(in_process=inside)}


def running() -> int:
    """How many attempts are in the pool."""
    for _ in range(3):
        try:
            return sum(1 for request in tuple(state.active_requests) if request.name == NAME)
        except RuntimeError:  # the worker's loop changed the set meanwhile
            continue
    return len(state.active_requests)


def _nothing() -> None:
    """To wake the worker's loop."""


def _patiently(seconds: float) -> None:
    state.maybe_shutdown()
    time.sleep(seconds)
