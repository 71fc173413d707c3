"""What a real pool of processes still knows of a run after the connection was lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency.asynpool import AsynPool
from celery.worker.request import Request
from kombu.asynchronous import Hub, set_event_loop

from crony.domain.outcome import Kind
from crony.workers.request import OPEN, RunRequest, flushing
from tests.helpers.wait import until


class Pool:
    """One child, stopped before it is given anything, so that it accepts nothing; and the loop that feeds it."""

    def __init__(self) -> None:
        self.hub = Hub()
        set_event_loop(self.hub)
        self.pool = AsynPool(1, threads=False)
        self.pool.register_with_event_loop(self.hub)
        (self.child,) = (process.pid for process in self.pool._pool)
        self.turns = self.hub.create_loop()
        self.hub.call_repeatedly(0.05, lambda: None)
        self.until(lambda: self.pool._fileno_to_inq, "the child is up")
        os.kill(self.child, signal.SIGSTOP)
        self.failed: list[Any] = []
        self.jobs: list[Any] = []

    def until(self, predicate: Callable[[], Any], what: str) -> None:
        until(lambda: predicate() or (next(self.turns), predicate())[1], what=what)

    def give(self) -> RunRequest:
        """A request as Celery makes it when it hands a task to the pool."""
        request = object.__new__(RunRequest)
        job = self.pool.apply_async(time.monotonic, error_callback=self.failed.append)
        request._apply_result = ref(job)
        OPEN[id(request)] = request
        return request

    def close(self) -> None:
        os.kill(self.child, signal.SIGKILL)
        self.pool.terminate()
        self.pool.join()
        self.hub.close()
        set_event_loop(None)


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    try:
        yield made
    finally:
        OPEN.clear()
        made.close()


def test_what_no_child_was_given_is_not_in_the_pool_after_a_lost_connection(pool: Pool) -> None:
    written, waiting = pool.give(), pool.give()
    pool.until(lambda: written._pooled._write_to is not None, "the first is written")
    assert waiting._pooled._write_to is None
    assert written.in_pool(in_process=False) and waiting.in_pool(in_process=False)
    flushing(pool.pool.flush)()
    assert written.in_pool(in_process=False) and not waiting.in_pool(in_process=False)
    assert not written._pooled._accepted


def test_the_pool_tells_of_a_run_in_a_childs_pipe_after_a_lost_connection(pool: Pool) -> None:
    written = pool.give()
    pool.until(lambda: written._pooled._write_to is not None, "it is written")
    flushing(pool.pool.flush)()
    os.kill(pool.child, signal.SIGCONT)
    job = written._pooled
    pool.until(lambda: job._accepted and job.ready(), "it is accepted and its end is told")


@pytest.mark.parametrize(
    ("code", "after", "kind"), [(1, 71.0, Kind.TIMED_OUT), (1, 30.0, Kind.LOST), (-9, 71.0, Kind.LOST)]
)
def test_a_process_that_ended_itself_after_the_timeout(
    monkeypatch: pytest.MonkeyPatch, code: int, after: float, kind: Kind
) -> None:
    noted: list[Kind] = []
    monkeypatch.setattr(RunRequest, "_note", lambda self, kind, reason: noted.append(kind))
    monkeypatch.setattr(Request, "on_failure", lambda *args, **options: None)
    request = object.__new__(RunRequest)
    request.time_limits = [21660.0, 60.0]
    job = SimpleNamespace(_time_accepted=time.monotonic() - after, _write_to=SimpleNamespace(exitcode=code))
    request._apply_result = lambda: job
    try:
        raise WorkerLostError("it exited")
    except WorkerLostError:
        request.on_failure(ExceptionInfo())
    assert noted == [kind]


def test_in_the_worker_itself_all_is_in_the_pool() -> None:
    assert object.__new__(RunRequest).in_pool(in_process=True)
    assert not object.__new__(RunRequest).in_pool(in_process=False)
