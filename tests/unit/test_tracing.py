"""Crony's tracer of a run does what others rely on in Celery's: request, signals, failure, nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from celery import Celery, current_task, signals
from celery._state import _task_stack
from celery.app.task import Context

from crony.workers.tracing import Told, tracer

REQUEST: dict[str, Any] = {
    "id": "r1:1", "task": "t", "lang": "py", "root_id": "r1:1", "headers": None, "timelimit": [70.0, 30.0],
    "delivery_info": {"routing_key": "q"}, "properties": {"crony": {"fence": 3}}, "traceparent": "00-1-2-01",
    "hostname": "n1", "is_eager": False,
}  # fmt: skip


@pytest.fixture
def app() -> Celery:
    return Celery("traced", set_as_current=False)


@contextmanager
def heard() -> Iterator[list[tuple[str, Any]]]:
    told: list[tuple[str, Any]] = []
    with ExitStack() as stack:
        for name in ("task_prerun", "task_success", "task_failure", "task_postrun"):
            signal = getattr(signals, name)

            def receive(name: str = name, **kwargs: Any) -> None:
                told.append((name, kwargs.get("state") or kwargs.get("task_id")))

            signal.connect(receive, weak=False, dispatch_uid=f"test-{name}")
            stack.callback(signal.disconnect, receive, dispatch_uid=f"test-{name}")
        yield told


def test_request_is_celerys() -> None:
    ours, theirs = Told(REQUEST, args=[1], called_directly=False), Context(REQUEST, args=[1], called_directly=False)
    assert ours.headers == theirs.headers == {"traceparent": "00-1-2-01"}
    for name in vars(theirs):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert (ours.time_limit, ours.soft_time_limit) == (70.0, 30.0)
    assert Told({"id": "x"}).headers is Context({"id": "x"}).headers is None
    assert Told({"headers": {"a": 1}}).headers == {"a": 1}


def test_run_is_current_and_leaves_nothing(app: Celery) -> None:
    seen: list[Any] = []

    @app.task(name="t", shared=False, bind=True)
    def work(self: Any, what: str) -> None:
        seen.append((what, self.request.id, self.request.properties["crony"]["fence"], current_task.name))

    app.finalize()
    task = app.tasks["t"]
    with heard() as told:
        found = tracer(app, task, "n1")("r1:1", ["x"], {}, dict(REQUEST))
    assert seen == [("x", "r1:1", 3, "t")]
    assert (found.info, found.retval, found.retstr) == (None, None, "None") and found.runtime >= 0
    assert told == [("task_prerun", "r1:1"), ("task_success", None), ("task_postrun", "SUCCESS")]
    assert _task_stack.top is None and task.request_stack.top is None


def test_failure_is_celerys_failure(app: Celery) -> None:
    @app.task(name="t", shared=False)
    def work() -> None:
        raise ValueError("broken")

    app.finalize()
    with heard() as told:
        found = tracer(app, app.tasks["t"], "n1")("r1:1", [], {}, dict(REQUEST))
    assert found.info.state == "FAILURE" and "broken" in str(found.retval.exception)
    assert [name for name, _ in told] == ["task_prerun", "task_failure", "task_postrun"]
    assert told[-1][1] == "FAILURE" and _task_stack.top is None and app.tasks["t"].request_stack.top is None


def test_what_ends_the_worker_passes(app: Celery) -> None:
    @app.task(name="t", shared=False)
    def work() -> None:
        raise SystemExit(3)

    app.finalize()
    with pytest.raises(SystemExit):
        tracer(app, app.tasks["t"], "n1")("r1:1", [], {}, dict(REQUEST))
    assert _task_stack.top is None and app.tasks["t"].request_stack.top is None


def test_task_with_hooks_is_left_to_celery(app: Celery) -> None:
    called: list[str] = []

    @app.task(name="t", shared=False, after_return=lambda self, *args: called.append("after"))
    def work() -> None:
        called.append("work")

    app.finalize()
    tracer(app, app.tasks["t"], "n1")("r1:1", [], {}, dict(REQUEST))
    assert called == ["work", "after"]
