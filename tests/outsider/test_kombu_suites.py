"""Kombu's own tests, unmodified, with the transport on etcd in the dock.

They run in processes of their own, several at a time, because most of what they do is to wait.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest

from tests.helpers.etcd import EtcdServer
from tests.outsider.archives import unpacked_tests

HERE = Path(__file__).parent
MIXINS = (
    ("test_basic",),
    ("test_failover",),
    ("test_ttl",),
    ("test_exchanges", "test_priority", "test_message", "test_eventloop"),
)
"""The seven classes, in groups that take about as long as each other."""

UNIT_FILES = ("t/unit/test_simple.py", "t/unit/test_pidbox.py", "t/unit/transport/test_memory.py")
CANNOT_PASS = {
    "test_queue_for": "looks into the memory channel's dict of queues",
    "test_drain_events_unregistered_queue": "replaces the `cycle` of Kombu's virtual transport by one of its own",
    "test_reply__collect": "wants an auto-delete queue to outlive its last consumer. RabbitMQ and Redis delete it too: "
    "a late reply that stays would be taken for an answer to the next question, and push a real one out",
}
PATIENCE = 100.0


@dataclass
class Verdict:
    """What a run of somebody else's tests came to."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    said: str = ""

    def __add__(self, more: Verdict) -> Verdict:
        return Verdict(
            self.passed | more.passed, self.failed | more.failed, self.other | more.other, self.said + more.said
        )

    def __str__(self) -> str:
        counts = f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.other)} neither"
        return f"{counts}\nfailed: {sorted(self.failed)}\nneither: {sorted(self.other)}\n{self.said[-6000:]}"


@pytest.fixture(scope="module")
def kombu_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with Kombu's `t`."""
    return unpacked_tests("kombu", tmp_path_factory.mktemp("kombu"))


class Judge:
    """Runs parts of the suites against a server."""

    def __init__(self, server: EtcdServer, tests: Path, folder: Path) -> None:
        self._port = urlsplit(server.endpoint).port
        self._tests, self._folder = tests, folder

    def run(self, *arguments: str, timeout: float = 60.0) -> Verdict:
        """One pytest process in a namespace of its own; `timeout`: of each test, seconds."""
        report = self._folder / f"{secrets.token_hex(4)}.xml"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("CRONY_", "PYTEST_"))}
        environment |= {
            "JUDGE_URL": f"etcd3://127.0.0.1:{self._port}/judge{secrets.token_hex(4)}",
            "JUDGE_DEAD_URL": "etcd3://127.0.0.1:1/judge",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(str(path) for path in (self._tests, HERE / "judge", HERE.parents[1])),
        }
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-c", os.devnull]
        command += ["-p", "no:cacheprovider", "-p", "pytest_timeout", f"--timeout={timeout:g}"]
        command += ["-o", "python_classes=test_*", f"--junitxml={report}", *arguments]
        done = subprocess.run(
            command, cwd=self._tests, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert report.exists(), f"pytest did not run:\n{done.stdout}{done.stderr}"
        return _read(report, done.stdout)


@pytest.fixture
def judge(etcd: EtcdServer, kombu_tests: Path, tmp_path: Path) -> Judge:
    return Judge(etcd, kombu_tests, tmp_path)


def _read(report: Path, said: str) -> Verdict:
    verdict = Verdict(said=said)
    for case in ElementTree.parse(report).iter("testcase"):
        ends = {child.tag for child in case} & {"failure", "error", "skipped"}
        kind = verdict.passed if not ends else verdict.failed if "skipped" not in ends else verdict.other
        kind.add(f"{case.get('classname')}.{case.get('name')}")
    return verdict


@pytest.mark.slow
def test_all_integration_mixins_pass(judge: Judge) -> None:
    """47 of 47. (RabbitMQ's transport passes all by construction, Redis' 42.)"""
    mixins, here = HERE / "judge" / "mixins.py", HERE / "judge"

    def run(classes: tuple[str, ...]) -> Verdict:
        named = [f"{mixins}::{name}" for name in classes]
        return judge.run(f"--rootdir={here}", f"--confcutdir={here}", *named)

    with ThreadPoolExecutor(len(MIXINS)) as pool:
        verdict = sum(pool.map(run, MIXINS), Verdict())
    print(verdict)
    assert not verdict.failed | verdict.other, str(verdict)
    assert len(verdict.passed) == 47, str(verdict)


@pytest.mark.slow
def test_unit_tests_of_the_memory_transport_pass_on_etcd(judge: Judge) -> None:
    """66 of 69, and the others for known reasons. (Redis' transport passes 64.)"""
    with ThreadPoolExecutor(len(UNIT_FILES)) as pool:
        each = pool.map(lambda file: judge.run("-p", "hijack", "--rootdir=.", file, timeout=15.0), UNIT_FILES)
        verdict = sum(each, Verdict())
    print(verdict)
    assert {name.rpartition(".")[2] for name in verdict.failed} == set(CANNOT_PASS), str(verdict)
    assert not verdict.other, str(verdict)
    assert len(verdict.passed) == 66, str(verdict)
