"""Processes of Crony for tests, forked from one that has imported everything: a start costs no second of imports.

They are processes as real as any other (own pid, environment, session, signals, log), only what `python -m` would
import first is there already. The forking process holds no thread, no connection, nothing of `crony.workers` (whose
memory is shared with forks by design) and nothing that reads settings. It ends with the test process, and what it
forked ends with it. One for each test process, begun at first use.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zoneinfo
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.server import die_with_parent

MODULES = ("crony", "celery")
"""What may be run by `-m`."""
PRELOADED = (
    "crony.cli.main", "crony.cli.job", "crony.cli.run", "crony.cli.node", "crony.cli.alert", "crony.cli.importer",
    "crony.cli.apply", "crony.cli.recover", "crony.cli.roles", "crony.beat.centre", "crony.web.app", "uvicorn",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto", "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.mysql.pymysql", "alembic.command",
    "celery.bin.celery", "celery.bin.worker", "celery.apps.worker", "celery.worker.consumer", "celery.app.trace",
    "celery.concurrency.prefork", "celery.concurrency.thread", "celery.app.control", "celery.app.events", "requests",
    "crony.transport_etcd.transport", "crony.lifecycle.end", "crony.lifecycle.register", "crony.etcd.session",
)  # fmt: skip
FOREIGN = ("LD_PRELOAD", "PYTHONTZPATH", "CRONY_TEST_BROKEN")
"""Variables that have to be there before anything is imported."""
ROOT = Path(__file__).resolve().parents[2]


class Forked:
    """What `subprocess.Popen` is for other processes."""

    def __init__(self, zygote: _Zygote, pid: int, fd: int) -> None:
        self._zygote, self.pid, self._fd = zygote, pid, fd
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs. Reaps."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, waited for. Raises `subprocess.TimeoutExpired`."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._fd, select.POLLIN)  # pidfd_open(2): readable once the process has ended
            if waiting.poll(None if timeout is None else timeout * 1000):
                self.returncode = int(self._zygote.ask({"reap": self.pid}))
                os.close(self._fd)
        return self.returncode


class _Zygote:
    """The way to the forking process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], cwd=ROOT, env=_clean(), stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        self._ours, self._lines = ours, ours.makefile("rw")
        self._lock = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        self._lines.close()
        self._ours.close()
        self._popen.kill()
        self._popen.wait()

    def ask(self, what: dict[str, Any]) -> Any:
        """One request, one answer."""
        with self._lock:
            self._lines.write(json.dumps(what) + "\n")
            self._lines.flush()
            return json.loads(self._lines.readline())

    def fork(self, command: Sequence[str], environ: Mapping[str, str], log: Path, cwd: str, **files: Path) -> Forked:
        """A new process. `files`: what it reads (`given`; else nothing), where it complains (`errors`; else `log`)."""
        wanted = {"argv": list(command[2:]), "environ": dict(environ), "log": str(log), "cwd": cwd}
        wanted |= {name: str(path) for name, path in files.items()}
        pid = int(self.ask(wanted))
        return Forked(self, pid, os.pidfd_open(pid))


_zygotes: dict[int, _Zygote] = {}
_lock = threading.Lock()


def start(
    command: Sequence[str], environ: Mapping[str, str], log: Path, cwd: str | None = None
) -> Forked | subprocess.Popen[bytes]:
    """`command` in a session of its own with that environment, its output at the end of `log`; forked where it can be,
    else started as any other program."""
    if _can_be_forked(command, environ):
        log.touch()
        return _zygote().fork(command, environ, log, cwd or os.getcwd())
    with log.open("ab") as file:
        return subprocess.Popen(
            list(command), env=dict(environ), stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=cwd,
            start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip


def run(
    command: Sequence[str], environ: Mapping[str, str], cwd: str | Path | None = None, text: str = "", wait: float = 180
) -> subprocess.CompletedProcess[str]:
    """`command` to its end, with that environment and standard input, as `subprocess.run` would tell of it. Raises
    `subprocess.TimeoutExpired` after `wait` seconds; it is dead then."""
    if not _can_be_forked(command, environ):
        return subprocess.run(
            list(command), env=dict(environ), cwd=cwd, input=text, capture_output=True, text=True, timeout=wait
        )
    with tempfile.TemporaryDirectory() as folder:
        out, errors, given = (Path(folder, name) for name in ("out", "errors", "given"))
        given.write_text(text)
        process = _zygote().fork(command, environ, out, str(cwd or os.getcwd()), errors=errors, given=given)
        try:
            code = process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(list(command), code, out.read_text(), errors.read_text())


def _zygote() -> _Zygote:
    """This test process's own, begun at first use."""
    with _lock:
        return _zygotes.get(os.getpid()) or _zygotes.setdefault(os.getpid(), _Zygote())


def _can_be_forked(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    return (
        list(command[:2]) == [sys.executable, "-m"]
        and command[2] in MODULES
        and not {"gevent", "eventlet"} & set(command)  # they patch what is imported afterwards
        and not any(
            name in environ for name in ("LD_PRELOAD", "PYTHONTZPATH", "PYTHONASYNCIODEBUG", "CRONY_TEST_BROKEN")
        )
        and hasattr(os, "pidfd_open")
    )


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CRONY_")}


# -- in the forking process --------------------------------------------------------------------


def serve(fd: int) -> dict[str, Any] | None:
    """Answer until the test process is gone (None); in a forked process, what it has to be."""
    for name in PRELOADED:
        importlib.import_module(name)
    _nothing_that_must_not_be_shared()
    gc.collect()
    gc.freeze()
    connection = socket.socket(fileno=fd)
    lines = connection.makefile("rw")
    for line in lines:
        wanted = json.loads(line)
        if "reap" in wanted:
            answer = os.waitstatus_to_exitcode(os.waitpid(wanted["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                connection.detach()
                os.close(fd)
                return dict(wanted)
        lines.write(f"{answer}\n")
        lines.flush()
    return None


def _nothing_that_must_not_be_shared() -> None:
    shared = [
        name for name in sys.modules if name.startswith(("crony.workers", "crony.celery", "grpc", "tests.helpers.jobs"))
    ]
    assert not shared, f"imported before the fork: {shared}"
    assert threading.active_count() == 1, threading.enumerate()


def become(wanted: dict[str, Any]) -> None:
    """Be that process."""
    os.setsid()
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for fd, path in ((1, wanted["log"]), (2, wanted.get("errors", wanted["log"]))):
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, fd)
        os.close(log)
    if "given" in wanted:
        given = os.open(wanted["given"], os.O_RDONLY)
        os.dup2(given, 0)
        os.close(given)
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environ"])
    time.tzset()
    zoneinfo.ZoneInfo.clear_cache()
    sys.path[0] = wanted["cwd"]
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = list(wanted["argv"])
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    to_be = serve(int(sys.argv[1]))
    if to_be is not None:
        become(to_be)
