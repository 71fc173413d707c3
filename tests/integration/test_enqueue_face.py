"""`crony.enqueue` and `crony.Run`: straight into etcd, from threads, forked children and tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

import crony
from crony import face
from crony.domain import ids
from crony.domain.livejob import LiveJob
from crony.domain.outcome import Outcome
from crony.domain.run import Request
from crony.domain.signing import Sealer, new_key
from crony.errors import Conflict, Invalid, NotFound, TimedOut, Unavailable
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.lifecycle.publish import publish
from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.service import Asked, service
from tests.helpers.wait import until

JOBS = "tests.helpers.jobs"


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch, etcd: EtcdServer, keys: Keys) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("CRONY_") and not name.startswith("CRONY_TEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", etcd.endpoint)
    monkeypatch.setenv("CRONY_NAMESPACE", keys.namespace)
    monkeypatch.setenv("CRONY_IMPORTS", JOBS)
    monkeypatch.setattr(face, "_made", None)
    yield
    if face._made is not None:
        face._made.client.close()


@pytest.fixture
def job(client: Client, keys: Keys) -> str:
    """A published job `report/daily`; its id."""
    document = {"name": "report/daily", "action": {"kind": "shell", "command": ["true"]}}
    live = LiveJob(ids.job_id(), "report/daily", 3, 1, document=document)
    publish(client, keys, Sealer(new_key()[0]), live)
    return live.id


def asked(client: Client, keys: Keys) -> list[Request]:
    return [Request.read(kv.value) for kv in client.list(keys.run_in("")).kvs]


def end(client: Client, keys: Keys, run: str, kind: str = "succeeded", **more: Any) -> None:
    """What the leader and a node make of a request: it is gone, an outcome is there."""
    facts: dict[str, Any] = {
        "run": run, "job": "j", "name": "n", "generation": 1, "revision": 1, "attempt": 1, "kind": kind,
        "final": True, "trigger": "enqueue", "ended_at": 1.0, **more,
    }  # fmt: skip
    client.put(keys.out(run, facts["attempt"]), Outcome(**facts).encode())
    client.delete_prefix(keys.run_in(""))


def test_a_job_by_name(client: Client, keys: Keys, job: str) -> None:
    run = crony.enqueue("report/daily", region="eu")
    (request,) = asked(client, keys)
    assert (request.kind, request.run, request.job, request.generation) == ("run", run.id, job, 3)
    assert (request.name, request.params, request.args, request.trigger) == (
        "report/daily", {"region": "eu"}, [], "enqueue",
    )  # fmt: skip
    assert run.created and run.state == "requested"


def test_every_option(client: Client, keys: Keys, job: str) -> None:
    before = time.time()
    crony.enqueue(
        "report/daily",
        params={"priority": "mine"},
        delay=timedelta(minutes=5),
        priority=7,
        labels={"zone": "a"},
        timeout="20m",
        retries=2,
        chain=False,
    )
    (request,) = asked(client, keys)
    assert request.params == {"priority": "mine"} and request.no_chain
    assert (request.priority, request.labels, request.timeout, request.retries) == (7, {"zone": "a"}, 1200.0, 2)
    assert before + 298 < request.not_before_at < time.time() + 302


def test_at(client: Client, keys: Keys, job: str) -> None:
    crony.enqueue("report/daily", at="2030-01-01T08:00:00+08:00")
    crony.enqueue("report/daily", at=datetime(2030, 1, 1, tzinfo=UTC))
    assert {request.not_before_at for request in asked(client, keys)} == {1893456000.0}


def test_a_task(client: Client, keys: Keys) -> None:
    from tests.helpers import jobs

    with Celery("tests", set_as_current=True):
        crony.enqueue(jobs.add, 1, b=2)
        crony.enqueue(f"task:{JOBS}.add", 1)
    first, second = sorted(asked(client, keys), key=lambda request: len(request.params), reverse=True)
    assert (first.job, first.name, first.args, first.params) == (
        ids.task_job_id(f"{JOBS}.add"), f"task:{JOBS}.add", [1], {"b": 2},
    )  # fmt: skip
    assert second.job == first.job


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: crony.enqueue("report/daily", 1), "args"),
        (lambda: crony.enqueue("report/daily", x=object()), "params"),
        (lambda: crony.enqueue("report/daily", x=1, params={"x": 2}), "params.x"),
        (lambda: crony.enqueue("report/daily", priority=10), "priority"),
        (lambda: crony.enqueue("report/daily", priority=True), "priority"),
        (lambda: crony.enqueue("report/daily", chain="no"), "chain"),
        (lambda: crony.enqueue("report/daily", retries=-1), "retries"),
        (lambda: crony.enqueue("report/daily", timeout=0), "timeout"),
        (lambda: crony.enqueue("report/daily", delay=-1), "delay"),
        (lambda: crony.enqueue("report/daily", delay=1, at="2030-01-01T00:00:00Z"), "at"),
        (lambda: crony.enqueue("report/daily", at="2030-01-01T00:00:00"), "at"),
        (lambda: crony.enqueue("report/daily", at=5), "at"),
        (lambda: crony.enqueue("report/daily", on_conflict="error"), "on_conflict"),
        (lambda: crony.enqueue("task:os.system", "true"), "job"),
        (lambda: crony.enqueue(print), "job"),
    ],
)
def test_what_is_refused(job: str, client: Client, keys: Keys, call: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        call()
    assert refused.value.field == field
    assert asked(client, keys) == []


def test_unknown_jobs_get_a_suggestion(job: str) -> None:
    with pytest.raises(NotFound, match="did you mean 'report/daily'"):
        crony.enqueue("report/dayly")
    with pytest.raises(NotFound, match="crony job list"):
        crony.enqueue("something else entirely")


def test_idempotency(client: Client, keys: Keys, job: str) -> None:
    first = crony.enqueue("report/daily", idempotency_key="2026-01")
    second = crony.enqueue("report/daily", idempotency_key="2026-01")
    assert first == second and first.created and not second.created
    assert len(asked(client, keys)) == 1
    with pytest.raises(Conflict):
        crony.enqueue("report/daily", idempotency_key="2026-01", on_conflict="error")


def test_wait_and_result(client: Client, keys: Keys, job: str) -> None:
    run = crony.enqueue("report/daily")
    with pytest.raises(TimedOut):
        run.wait(0.2)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(run.result(20)))
    waiting.start()
    end(client, keys, run.id, attempt=1, kind="failed", final=False)
    end(client, keys, run.id, attempt=2, result={"rows": 3})
    waiting.join(20)
    assert found == [{"rows": 3}]
    assert run.state == "ended" and run.wait(1) == "succeeded"


def test_a_bad_end_is_raised(client: Client, keys: Keys, job: str) -> None:
    run = crony.enqueue("report/daily")
    end(client, keys, run.id, kind="failed", reason="exit code 3")
    assert run.wait("10s") == "failed"
    with pytest.raises(face.RunFailed, match="exit code 3") as failed:
        run.result(10)
    assert failed.value.outcome == "failed"


def test_what_the_archive_has_is_asked_of_the_web(client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    run = crony.Run(ids.fresh_run_id("j1", 1))
    monkeypatch.setattr(face, "ARRIVAL", 0.1)
    with pytest.raises(NotFound, match="CRONY_API"):
        run.wait(10)

    def answer(request: Asked) -> tuple[int, dict[str, str], bytes]:
        assert request.headers["authorization"] == "Bearer t"
        if run.id not in request.path:
            return 404, {}, b"{}"
        return 200, {}, json.dumps({"state": "ended", "outcome": "succeeded", "result": 5, "reason": None}).encode()

    with service(answer) as web:
        monkeypatch.setenv("CRONY_API", web.url)
        monkeypatch.setenv("CRONY_TOKEN", "t")
        monkeypatch.setattr(face, "_made", None)
        assert (run.state, run.result(10)) == ("ended", 5)
        with pytest.raises(NotFound):
            crony.Run(ids.fresh_run_id("j2", 1)).wait(10)


def test_cancel(client: Client, keys: Keys, job: str) -> None:
    run = crony.enqueue("report/daily")
    run.cancel("not needed")
    cancel = next(request for request in asked(client, keys) if request.kind == "cancel")
    assert (cancel.run, cancel.job, cancel.reason) == (run.id, job, "not needed")


def test_etcd_away(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("CRONY_ETCD_ENDPOINTS", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("CRONY_ETCD_TIMEOUT", "0.5")
    with pytest.raises(Unavailable):
        crony.enqueue("report/daily")


def test_a_forked_child_has_its_own_connection(client: Client, keys: Keys, job: str) -> None:
    crony.enqueue("report/daily")
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                crony.enqueue("report/daily", child=os.getpid())
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    crony.enqueue("report/daily")
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    until(lambda: len(asked(client, keys)) == 5, what="all of them arrive")


def test_importing_is_light() -> None:
    heavy = "[m for m in ('celery', 'kombu', 'requests', 'sqlalchemy', 'grpc') if m in sys.modules]"
    script = f"import sys, crony; print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
    script = (
        "import sys, crony; crony.enqueue; print([m for m in ('sqlalchemy', 'fastapi', 'grpc') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
