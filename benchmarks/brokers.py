"""The three brokers that are compared: private servers on free ports, each with the CPU time it has used so far."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.etcd import EtcdServer, free_ports
from tests.helpers.wait import until

_TICKS = os.sysconf("SC_CLK_TCK")
_RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_RAFT = ("--snapshot-count", "10000")


@dataclass
class Broker:
    """A running broker: how Celery reaches it, and the processes that serve it."""

    name: str
    url: str
    server: str
    """Version of the server."""
    pids: list[int] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What `benchmarks.transport_app` needs to know."""
        return {"BENCH_BROKER": self.url, "BENCH_SERVER_PIDS": " ".join(map(str, self.pids))}


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def missing() -> dict[str, str]:
    """Brokers that cannot be measured here, and why."""
    found = {}
    if shutil.which("redis-server") is None:
        found["Redis"] = "apt-get install redis-server"
    if not _RABBIT.exists() or shutil.which("epmd") is None:
        found["RabbitMQ"] = "apt-get install rabbitmq-server"
    return found


@contextmanager
def etcd() -> Iterator[Broker]:
    """etcd as Debian ships it and our compose file starts it, its data on disk."""
    with EtcdServer(args=_RAFT) as server:
        yield Broker(
            "etcd",
            f"etcd3://127.0.0.1:{server.port}/bench",
            server.version.splitlines()[0].rpartition(" ")[2],
            [server.pid],
        )


@contextmanager
def redis() -> Iterator[Broker]:
    """Redis in memory only: no snapshots, no log."""
    (port,) = free_ports(1)
    program = shutil.which("redis-server") or "redis-server"
    with tempfile.TemporaryDirectory(prefix="crony-redis-") as folder:
        process = subprocess.Popen(
            [program, "--port", str(port), "--save", "", "--bind", "127.0.0.1", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            _await_port(port)
            yield Broker("Redis", f"redis://127.0.0.1:{port}/0", _said([program, "--version"], 2), [process.pid])
        finally:
            process.kill()
            process.wait()


@contextmanager
def rabbitmq() -> Iterator[Broker]:
    """RabbitMQ with a node name, a database and an epmd of its own."""
    port, distribution, mapper = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="crony-rabbit-") as name:
        folder = Path(name)
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{port}\n")
        environment = os.environ | {
            "HOME": name,
            "ERL_EPMD_PORT": str(mapper),
            "RABBITMQ_NODENAME": f"bench{port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }
        (folder / "log").mkdir()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": name}
        daemon = subprocess.Popen(["epmd", "-port", str(mapper)], **quiet)  # type: ignore[call-overload]
        server = subprocess.Popen([str(_RABBIT)], **quiet)  # type: ignore[call-overload]
        try:
            until(lambda: (folder / "pid").exists(), 60, "RabbitMQ to start")
            _await_port(port, 90)
            pid = int((folder / "pid").read_text())
            yield Broker("RabbitMQ", f"amqp://guest:guest@127.0.0.1:{port}//", _rabbit_version(), [pid])
        finally:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
            for process in (server, daemon):
                process.kill()
                process.wait()


ALL = {"etcd": etcd, "Redis": redis, "RabbitMQ": rabbitmq}


def _await_port(port: int, seconds: float = 20) -> None:
    def open_() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    until(open_, seconds, f"port {port}")


def _said(command: list[str], word: int) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[word].removeprefix("v=")


def _rabbit_version() -> str:
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
    return found[-1].name.partition("-")[2] if found else "?"
