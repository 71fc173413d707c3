"""A server process of a test: started, stopped, killed, paused, and gone when the test process is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.helpers.wait import until

_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # looked up before any fork


def die_with_parent() -> None:
    """For `preexec_fn`: the process is killed when the test process ends, however that ends."""
    if _prctl is not None:
        _prctl(1, signal.SIGKILL)


class Server(ABC):
    """One server process. A context manager: started on entry, ended and its data removed on exit."""

    _process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> Self:
        """Starts the server and waits until it answers; the same data as before after a `stop` or `kill`."""

    @abstractmethod
    def destroy(self) -> None:
        """Ends the server and removes its data."""

    @property
    @abstractmethod
    def log(self) -> Path:
        """What the server printed."""

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there (perhaps paused)."""
        return self._process is not None and self._process.poll() is None

    def _launch(self, command: Sequence[str], environ: dict[str, str] | None = None) -> None:
        assert self._process is None, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environ,
                preexec_fn=die_with_parent,
            )

    def _check_it_runs(self) -> None:
        if not self.running:
            raise RuntimeError(f"the server ended: {self.log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Ends the server cleanly (SIGTERM), keeping its data."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server with SIGKILL, keeping its data."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: the server holds its sockets and answers nothing; returns once every thread stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        until(self._stands_still, 10, "every thread of the server to stop")

    def _stands_still(self) -> bool:
        stats = [path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] in "Tt" for stat in stats)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        """Starts it."""
        try:
            return self.start()
        except BaseException:
            self.destroy()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        self.destroy()
