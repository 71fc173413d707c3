"""Python jobs: called by name from allow-listed modules only; what they print, return, raise; how they are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

import crony
from crony.domain.callback import Token
from crony.domain.outcome import Kind
from crony.workers.attempt import NotAsynchronous, Verdict
from crony.workers.calling import Callback
from crony.workers.executor import NO_CALLBACK, _Execution
from crony.workers.interrupt import INTERRUPTER
from crony.workers.process import Process
from crony.workers.runners import python
from tests.helpers import attempts
from tests.helpers.attempts import Aside
from tests.helpers.wait import until

JOBS = "tests.helpers.jobs"


@pytest.fixture(autouse=True)
def app() -> Iterator[Celery]:
    with Celery("tests", set_as_current=True) as app:
        app.loader.import_task_module(JOBS)
        app.finalize()
        with INTERRUPTER.attempt():
            yield app


@pytest.fixture
def parts(tmp_path: Path) -> Process:
    return attempts.process(tmp_path, imports=(JOBS,))


def action(task: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"kind": "python", "task": f"{JOBS}.{task}", "args": list(args), "kwargs": kwargs}


def run(parts: Process, what: dict[str, Any], /, **changes: Any) -> Verdict:
    return python.run(attempts.attempt(parts, what, **changes))


def test_a_function_hands_over_and_the_run_waits_for_somebody_else(parts: Process) -> None:
    told = attempts.attempt(parts, action("add", 1), deadline=60.0)
    with pytest.raises(NotAsynchronous, match="async"):
        told.defer()
    token = Token.new(told.held.queue, told.held.place).under(told.held.fence)
    told.callback = Callback.of(told.envelope, token, api="https://crony", now=1000.0)
    assert python.run(told) == Verdict(Kind.SUCCEEDED, result=1), "an answer at once is one"
    assert told.defer().url == "https://crony/api/v1/runs/j1.1.1700000000/attempts/1"
    assert python.run(told).accepted
    failing = attempts.attempt(parts, action("fail", "no"))
    failing.callback, failing.deferred = told.callback, True
    assert python.run(failing).kind is Kind.FAILED, "handed over and failed is failed"
    assert token.secret not in repr(told.callback)


def test_a_node_that_cannot_say_where_to_call_back_refuses(parts: Process) -> None:
    told = attempts.attempt(attempts.process(Path(parts.settings.spool_dir), api=""), action("add", 1), deadline=60.0)
    with contextlib.ExitStack() as stack:
        verdict = _Execution(told.process, told.held, "", told.envelope)._run(stack)
    assert verdict == Verdict(Kind.REFUSED, NO_CALLBACK)


def test_arguments_and_result(parts: Process) -> None:
    assert run(parts, action("add", 1, b=2)) == Verdict(Kind.SUCCEEDED, result=3)
    assert run(parts, action("add", 1, b=2), params={"b": 40}).result == 41
    assert run(parts, action("add", 1), args=[5, 6]).result == 11


def test_a_function_may_ask_for_its_context(parts: Process) -> None:
    verdict = run(parts, action("told", 1), params={"b": 2}, attempt=3, name="a/b")
    assert verdict.kind is Kind.SUCCEEDED, verdict
    facts = ["j1.1.1700000000", 3, 77, "a/b", "2023-11-14T22:13:20+00:00", {"b": 2}, False]
    assert verdict.result == {"facts": facts, "sum": 3, "left": True}
    lines = attempts.output(parts).decode().splitlines()
    assert lines[0].endswith("INFO crony.job: at work") and lines[1] == "[progress] 40 % nearly"
    assert run(parts, action("told_elsewhere", 5), attempt=2).result == [5, 2]
    assert crony.context() is None


def test_a_context_hands_over(parts: Process) -> None:
    told = attempts.attempt(parts, action("hands_over"), deadline=60.0)
    assert "`async`" in python.run(told).reason
    token = Token.new(told.held.queue, told.held.place).under(told.held.fence)
    told.callback = Callback.of(told.envelope, token, api="https://crony", now=1000.0)
    assert python.run(told).accepted


@pytest.mark.parametrize(
    ("task", "how"), [("patient", "cancel"), ("patient", "timeout"), ("watchful", "cancel"), ("watchful", "timeout")]
)
def test_a_function_in_a_thread_stops_by_its_context(parts: Process, tmp_path: Path, task: str, how: str) -> None:
    mark = tmp_path / "f"
    target = attempts.attempt(parts, action(task, str(mark)), timeout=0.5 if how == "timeout" else 60.0)
    aside = Aside(python.run, target)
    until(mark.exists, what="the function begins")
    if how == "cancel":
        target.cancel()
    verdict = aside.join(5)
    assert verdict.kind is (Kind.TIMED_OUT if how == "timeout" else Kind.CANCELLED)
    assert "left behind" not in verdict.reason and not target.finished


def test_a_function_may_ask_which_part_it_is(parts: Process) -> None:
    assert run(parts, action("which_part"), part=1, parts=3).result == [1, 3]
    assert run(parts, action("which_part")).result is None
    assert crony.part() is None


@pytest.mark.parametrize(
    ("what", "kept"),
    [
        ("none", None),
        ("list", [1, {"a": None}]),
        ("big", {"truncated": True, "bytes": 5002}),
        ("object", {"not_json": "object"}),
        ("nan", {"not_json": "dict"}),
        ("deep", {"too_deep": True}),
    ],
)
def test_results_that_can_be_kept(parts: Process, what: str, kept: Any) -> None:
    assert run(parts, action("give", what)) == Verdict(Kind.SUCCEEDED, result=kept)


@pytest.mark.parametrize("name", ["os.system", "crony.run", f"{JOBS}x.add", JOBS, f"{JOBS}.nothing", ""])
def test_anything_else_is_refused(parts: Process, name: str) -> None:
    verdict = run(parts, {"kind": "python", "task": name})
    assert verdict.kind is Kind.REFUSED
    assert "CRONY_IMPORTS" in verdict.reason


def test_an_exception_is_a_failure_with_its_trace(parts: Process) -> None:
    verdict = run(parts, action("fail", "no luck"))
    assert verdict == Verdict(Kind.FAILED, "ValueError: no luck")
    kept = attempts.output(parts).decode()
    assert kept.startswith("Traceback (most recent call last):\n") and kept.endswith("ValueError: no luck\n")
    assert "in fail" in kept and "interrupt.py" not in kept


def test_wrong_arguments_are_a_failure(parts: Process) -> None:
    assert run(parts, action("add", nothing=1)).reason.startswith("TypeError: ")


def test_an_async_function_is_a_failure(parts: Process) -> None:
    verdict = run(parts, action("forgotten"))
    assert verdict.kind is Kind.FAILED and "nobody awaits" in verdict.reason


def test_exit_is_a_failure(parts: Process) -> None:
    assert run(parts, action("leave")) == Verdict(Kind.FAILED, "SystemExit: 3")


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "WorkerShutdown"])
def test_what_ends_a_worker_is_a_failure_in_a_thread(parts: Process, name: str) -> None:
    aside = Aside(python.run, attempts.attempt(parts, action("raise_", name)))
    assert aside.join(5) == Verdict(Kind.FAILED, f"{name}: ")


def test_an_exception_that_cannot_be_told_is_named(parts: Process) -> None:
    assert run(parts, action("raise_", "Silent")) == Verdict(Kind.FAILED, "Silent, which cannot say why")


def test_celerys_own_retry_is_a_failure(parts: Process) -> None:
    assert run(parts, action("again")) == Verdict(Kind.FAILED, "KeyError: 'again'")


def test_the_request_has_an_id(parts: Process) -> None:
    assert run(parts, action("whoami"), attempt=2).result == "j1.1.1700000000:2"


def test_prints_and_logs_are_output(parts: Process, capsys: pytest.CaptureFixture[str]) -> None:
    run(parts, action("say", "hello"))
    lines = attempts.output(parts).decode().splitlines()
    assert lines[:2] == ["hello", "err hello"]
    assert lines[2].endswith("WARNING somebody: log hello")
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n"


def test_outputs_do_not_mix(parts: Process, tmp_path: Path) -> None:
    other = attempts.process(tmp_path / "other", imports=(JOBS,))
    first = Aside(python.run, attempts.attempt(parts, action("say", "first")))
    second = Aside(python.run, attempts.attempt(other, action("say", "second")))
    first.join(), second.join()
    assert b"second" not in attempts.output(parts) and b"first" not in attempts.output(other)


def test_timeout_in_the_main_thread_stops_the_function(parts: Process, tmp_path: Path) -> None:
    verdict = run(parts, action("hold", str(tmp_path / "f")), timeout=0.3)
    assert verdict.kind is Kind.TIMED_OUT
    assert "the function was stopped" in verdict.reason


def test_cancel_in_the_main_thread_stops_the_function(parts: Process, tmp_path: Path) -> None:
    mark, target = tmp_path / "f", attempts.attempt(parts, action("hold", str(tmp_path / "f")))

    def cancel() -> None:
        until(mark.exists, what="the function begins")
        target.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    verdict = python.run(target)
    thread.join()
    assert verdict.kind is Kind.CANCELLED


def test_a_stop_that_comes_late_hits_nobody(parts: Process) -> None:
    token = object()
    assert INTERRUPTER.call(lambda: 1, token) == 1
    INTERRUPTER.stop(token)
    assert [INTERRUPTER.call(lambda: 2, object()) for _ in range(100)] == [2] * 100


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_function_in_a_thread_is_left_behind(parts: Process, tmp_path: Path, how: str) -> None:
    mark, ended = tmp_path / "f", []
    limit = 0.3 if how == "timeout" else 60.0
    target = attempts.attempt(parts, action("hold", str(mark)), timeout=limit)
    target.finishes_with(ended.append)
    aside = Aside(python.run, target)
    until(mark.exists, what="the function begins")
    if how == "cancel":
        target.cancel()
    until(lambda: ended, what="the attempt ends")
    assert ended[0].kind is (Kind.TIMED_OUT if how == "timeout" else Kind.CANCELLED)
    assert "cannot be stopped" in ended[0].reason
    Path(f"{mark}.go").touch()
    assert aside.join().result == "went on"
    assert not target.finish(Verdict(Kind.SUCCEEDED)), "the first end stands"
    assert len(ended) == 1


def test_a_stubborn_function_is_ended_without_its_consent(
    parts: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python, "STUBBORN", 0.2)
    mark, ended = tmp_path / "f", []
    target = attempts.attempt(parts, action("hold", str(mark), stubborn=True), timeout=1.0)

    def finish(verdict: Verdict) -> None:
        ended.append(verdict)
        Path(f"{mark}.go").touch()

    target.finishes_with(finish)
    python.run(target)
    assert ended[0].kind is Kind.TIMED_OUT


def test_a_function_that_lets_nothing_else_run_takes_its_pool_process_along(
    parts: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python, "STUBBORN", 0.2)
    monkeypatch.setattr(python, "LOCKED", 0.2)
    monkeypatch.setattr(python, "in_pool_process", lambda: True)
    target = attempts.attempt(parts, action("lock"), timeout=1.0)
    pid = os.fork()
    if pid == 0:
        try:
            python.run(target)
        finally:
            os._exit(9)
    try:
        _, status = until(lambda: (ended := os.waitpid(pid, os.WNOHANG))[0] and ended, what="it ends")
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_a_stubborn_function_of_a_pool_process_takes_its_process_along(
    parts: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python, "STUBBORN", 0.2)
    monkeypatch.setattr(python, "in_pool_process", lambda: True)
    target = attempts.attempt(parts, action("hold", str(tmp_path / "f"), stubborn=True), timeout=1.0)
    target.finishes_with(lambda verdict: (tmp_path / "verdict").write_text(f"{verdict.kind} {verdict.reason}") and None)
    pid = os.fork()
    if pid == 0:
        try:
            python.run(target)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    told = (tmp_path / "verdict").read_text()
    assert told.startswith("timed_out ") and "its process was killed" in told
