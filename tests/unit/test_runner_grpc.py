"""gRPC jobs against real servers: foreign ones by reflection, what is sent, and what each way to end means."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crony.domain.outcome import Kind
from crony.workers.attempt import Verdict
from crony.workers.process import Process
from crony.workers.rpc import lines
from crony.workers.runners import grpc
from tests.helpers import attempts
from tests.helpers.attempts import Aside
from tests.helpers.authority import Authority
from tests.helpers.etcd import free_ports
from tests.helpers.grpc_server import GrpcServer, grpc_server
from tests.helpers.wait import until

CLOSE = "ledger.v1.Ledger/Close"


@pytest.fixture
def parts(tmp_path: Path) -> Process:
    return attempts.process(tmp_path, call_secrets=("a-secret-of-32-characters-or-more",))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    with grpc_server(tmp_path_factory.mktemp("ledger")) as there:
        yield there


def action(there: GrpcServer | str, name: str = "", **more: object) -> dict:
    address = there if isinstance(there, str) else there.address
    return {"kind": "grpc", "address": address, "method": CLOSE, "request": {"name": name}, "tls": None, **more}


def run(parts: Process, told: dict, **changes: object) -> Verdict:
    return grpc.run(attempts.attempt(parts, told, **changes))


def test_any_method_of_a_service_that_tells_of_itself(parts: Process, ledger: GrpcServer) -> None:
    told = action(ledger, "x", request={"at": "2026-11-29T01:02:03Z"}, metadata={"x-mine": "1"})
    verdict = run(parts, told, params={"name": "monday"}, attempt=2)
    result = {"name": "closed monday", "at": "2026-11-29T01:02:03Z", "row_count": "3"}
    assert verdict == Verdict(Kind.SUCCEEDED, code=0, result=result)
    asked = ledger.asked()[-1]
    assert asked["request"] == {"name": "monday", "at": "2026-11-29T01:02:03Z"}
    facts = asked["metadata"]
    assert (facts["x-mine"], facts["x-crony-run"], facts["x-crony-attempt"]) == ("1", "j1.1.1700000000", "2")
    assert facts["x-crony-fence"] == "77" and facts["idempotency-key"] == "j1.1.1700000000"
    assert facts["x-crony-signature"].startswith("v1=") and "x-crony-token" not in facts
    kept = attempts.output(parts)
    assert b"gRPC OK" in kept and b'"closed monday"' in kept


@pytest.mark.parametrize(
    ("method", "request_", "why"),
    [
        ("ledger.v1.Ledger/Open", {}, "it has Close, Watch"),
        ("ledger.v1.Ledger/Watch", {}, "is a stream"),
        ("other.Service/Do", {}, "does not know other.Service"),
        (CLOSE, {"nam": "x"}, 'no field named "nam"'),
        (CLOSE, {"name": [1]}, "ledger.v1.Day"),
    ],
)
def test_what_does_not_fit_is_not_sent(
    parts: Process, ledger: GrpcServer, method: str, request_: dict, why: str
) -> None:
    before = len(ledger.asked())
    verdict = run(parts, action(ledger, method=method, request=request_))
    assert verdict.kind is Kind.FAILED and why in verdict.reason, verdict
    assert verdict.reason.startswith("the call was not sent: ") and len(ledger.asked()) == before


@pytest.mark.parametrize(
    ("name", "kind", "code", "why"),
    [
        ("abort:NOT_FOUND", Kind.FAILED, 5, "the service answered NOT_FOUND: on purpose"),
        ("abort:CANCELLED", Kind.FAILED, 1, "the service answered CANCELLED"),
        ("abort:UNAVAILABLE", Kind.UNKNOWN, 14, "lost after sending"),
        ("abort:DEADLINE_EXCEEDED", Kind.TIMED_OUT, 4, "may have done it"),
        ("raise", Kind.FAILED, 2, "no luck"),
        (f"big:{lines.MESSAGE_LIMIT + 1}", Kind.UNKNOWN, 8, "larger than max"),
    ],
)
def test_status_decides(parts: Process, ledger: GrpcServer, name: str, kind: Kind, code: int, why: str) -> None:
    verdict = run(parts, action(ledger, name))
    assert (verdict.kind, verdict.code) == (kind, code) and why in verdict.reason, verdict


def test_nobody_there_is_not_sent(parts: Process) -> None:
    (port,) = free_ports(1)
    for address in (f"127.0.0.1:{port}", "no.such.host.invalid:1"):
        verdict = run(parts, action(address))
        assert verdict.kind is Kind.FAILED and "not sent" in verdict.reason, verdict


def test_killed_lost_and_back(parts: Process, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with grpc_server(tmp_path / "one", port=port) as there:
        assert run(parts, action(there)).kind is Kind.SUCCEEDED
        verdict = run(parts, action(there, "die"))
        assert verdict.kind is Kind.UNKNOWN and "after sending" in verdict.reason, "it had the call"
    verdict = run(parts, action(there, "gone"))
    assert verdict.kind is Kind.FAILED and "not sent" in verdict.reason, "nobody had it"
    with grpc_server(tmp_path / "two", port=port) as there:
        assert run(parts, action(there)).kind is Kind.SUCCEEDED, "at once, whatever pause gRPC would make"


def test_the_deadline_is_for_all_of_it(parts: Process, ledger: GrpcServer, tmp_path: Path) -> None:
    verdict = run(parts, action(ledger, "sleep:30"), timeout=0.5)
    assert verdict.kind is Kind.TIMED_OUT and "may have done it" in verdict.reason
    until(lambda: ledger.asked()[-1]["event"] == "cancelled", what="the service hears of it")
    with grpc_server(tmp_path) as silent:
        silent.signal(signal.SIGSTOP)
        verdict = run(parts, action(silent), timeout=0.5)
        assert verdict.kind is Kind.TIMED_OUT and "was not sent" in verdict.reason


def test_cancel(parts: Process, ledger: GrpcServer) -> None:
    target = attempts.attempt(parts, action(ledger, "sleep:31"))
    aside = Aside(grpc.run, target)
    until(lambda: ledger.asked()[-1]["request"].get("name") == "sleep:31", what="the call arrives")
    began = time.monotonic()
    target.cancel()
    assert aside.join().kind is Kind.CANCELLED
    assert time.monotonic() - began < 2.0
    until(lambda: ledger.asked()[-1]["event"] == "cancelled", what="the service hears of it")


def test_reflection_of_either_version_or_none_and_health(parts: Process, tmp_path: Path) -> None:
    with grpc_server(tmp_path / "v1", reflection="v1", health="SERVING") as there:
        assert run(parts, action(there)).kind is Kind.SUCCEEDED
    with grpc_server(tmp_path / "none", reflection="", health="NOT_SERVING") as there:
        verdict = run(parts, action(there))
        assert (verdict.kind, verdict.code) == (Kind.FAILED, None) and "says NOT_SERVING" in verdict.reason
    with grpc_server(tmp_path / "bare", reflection="") as there:
        assert "no server reflection" in run(parts, action(there)).reason
        assert there.asked() == []


def test_tls(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(Path(tempfile.mkdtemp(dir=tmp_path)))
    cert, key = authority.issue("ledger")
    mine, my_key = authority.issue("node")
    (tmp_path / "mine.pem").write_bytes(Path(mine).read_bytes() + Path(my_key).read_bytes())
    (tmp_path / "stranger.pem").write_bytes(Path(stranger.ca).read_bytes())
    parts = attempts.process(tmp_path, tls_dir=str(tmp_path))
    full = {"ca": "ca.pem", "client_cert": "mine.pem"}
    with grpc_server(tmp_path / "there", cert=cert, key=key, ca=authority.ca) as there:
        for tls in (full, {**full, "server_name": "localhost"}):
            assert run(parts, action(there, tls=tls)).kind is Kind.SUCCEEDED, tls
        bad = (
            None, {}, {"ca": "ca.pem"}, {**full, "ca": "stranger.pem"}, {**full, "ca": "none.pem"},
            {**full, "server_name": "other.internal"},
        )  # fmt: skip
        for tls in bad:
            verdict = run(parts, action(there, tls=tls))
            assert verdict.kind is Kind.FAILED and "not sent" in verdict.reason, (tls, verdict)
        assert len(there.asked()) == 2


def test_an_address_inside_is_called_only_where_the_node_allows_it(tmp_path: Path, ledger: GrpcServer) -> None:
    closed = attempts.process(tmp_path, http_allow=())
    before = len(ledger.asked())
    for address in (ledger.address, f"localhost:{ledger.address.partition(':')[2]}", "[::ffff:127.0.0.1]:1"):
        verdict = run(closed, action(address))
        assert verdict.kind is Kind.FAILED and "CRONY_HTTP_ALLOW" in verdict.reason, verdict
    assert len(ledger.asked()) == before


def test_a_name_with_addresses_of_both_families(parts: Process, ledger: GrpcServer) -> None:
    verdict = run(parts, action(f"localhost:{ledger.address.partition(':')[2]}"))
    assert verdict.kind is Kind.SUCCEEDED, verdict


def test_facts_of_the_run_in_request_and_metadata(parts: Process, ledger: GrpcServer) -> None:
    told = action(ledger, request={"name": "{{params.day}} of {{run.id}}"}, metadata={"x-who": "{{job.name}}"})
    assert run(parts, told, params={"day": "monday", "row_count": 7}).kind is Kind.SUCCEEDED
    asked = ledger.asked()[-1]
    assert asked["request"] == {"name": "monday of j1.1.1700000000", "row_count": "7"}
    assert asked["metadata"]["x-who"] == "tests/job"


def test_the_environment_has_no_say(parts: Process, ledger: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert run(parts, action(ledger)).kind is Kind.SUCCEEDED


def test_a_process_forked_from_one_that_uses_grpc_says_so_instead_of_hanging(
    parts: Process, ledger: GrpcServer
) -> None:
    assert run(parts, action(ledger)).kind is Kind.SUCCEEDED
    told = attempts.attempt(parts, action(ledger))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, grpc.run(told).reason.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as told_by_child:
        assert b"forked from one that used it" in told_by_child.read()


def test_programs_are_started_unharmed_beside_it(parts: Process, ledger: GrpcServer) -> None:
    for _ in range(40):
        assert run(parts, action(ledger)).kind is Kind.SUCCEEDED
        assert subprocess.run(["true"], preexec_fn=lambda: None).returncode == 0
