"""A real MariaDB (or MySQL) server on a free port with a private data directory, that ends with the test process."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import pymysql

from tests.helpers import folders
from tests.helpers.etcd import free_ports
from tests.helpers.server import Server

USER, PASSWORD = "crony", "crony-test"


def _program(name: str) -> str:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
    found = shutil.which(name, path=path)
    if found is None:
        raise RuntimeError(f"{name} is not installed: apt-get install mariadb-server-core (`make test` does it)")
    return found


class MariaServer(Server):
    """One server process. A context manager: installed and started on entry, ended and removed on exit."""

    def __init__(self, *args: str) -> None:
        """`args`: further flags of the server."""
        self.args = args
        self.port = free_ports(1)[0]
        self.dir = Path(tempfile.mkdtemp(prefix="crony-maria-", dir=folders.quick()))
        self._installed = False

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.dir / "log"

    def install(self) -> None:
        """Makes the data directory (about two seconds)."""
        subprocess.run(
            [
                _program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self.dir / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *self._user(),
            ],
            check=True,
            capture_output=True,
        )
        self._installed = True

    def start(self) -> Self:
        """Starts the server and waits until it answers; the same data as before after a `stop` or `kill`."""
        if not self._installed:
            self.install()
        command = [
            _program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.dir / 'data'}",
            f"--socket={self.dir / 'sock'}",
            f"--pid-file={self.dir / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--character-set-server=latin1",  # a server with old habits: nothing may depend on its defaults
            *self._user(),
            *self.args,
        ]
        self._launch(command)
        self._wait()
        return self

    def _wait(self, timeout: float = 90.0) -> None:
        deadline = time.monotonic() + timeout
        while True:
            self._check_it_runs()
            try:
                if self._listens():  # PyMySQL leaves its socket open when there is nobody
                    self.root("SELECT 1")
                    break
            except pymysql.err.OperationalError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"mariadbd does not answer: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        self.root(f"CREATE USER IF NOT EXISTS {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
        self.root(f"GRANT ALL ON `crony\\_%`.* TO {USER}@'127.0.0.1'")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.dir / "sock")) == 0

    def root(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements as root; the rows of the last one."""
        connection = pymysql.connect(
            unix_socket=str(self.dir / "sock"), user="root", autocommit=True, connect_timeout=2
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = "crony_" + secrets.token_hex(5)
        self.root(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def kill_connections(self) -> int:
        """Ends every connection of our user (KILL); how many."""
        rows = self.root(f"SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{USER}'")
        for (ident,) in rows:
            with contextlib.suppress(pymysql.err.Error):
                self.root(f"KILL {ident}")
        return len(rows)

    def destroy(self) -> None:
        """Ends the server and removes its data."""
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _user(self) -> list[str]:
        return ["--user=root"] if os.getuid() == 0 else []
