"""Child processes of `crony dev`: each in a session of its own, on a leash, its output in a file."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
CALM = 60.0
"""Seconds a child must live for its restarts to start from the shortest pause again."""
LONGEST_PAUSE = 30.0


@dataclass
class Child:
    """One role. Start and stop it from the main thread only: on Linux the leash is tied to the thread that forks."""

    role: str
    command: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    retry_at: float = field(default=0.0)
    """When to start it again (monotonic); 0: it runs, or was never started."""

    def start(self) -> None:
        """Start it; Ctrl-C at the terminal does not reach it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab", opener=_private) as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *self.command],
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started, self.retry_at = time.monotonic(), 0.0

    @property
    def pid(self) -> int:
        """Its process id (0: never started)."""
        return self.popen.pid if self.popen else 0

    @property
    def running(self) -> bool:
        """Whether it has been started and has not exited."""
        return self.popen is not None and self.popen.poll() is None

    def ended(self) -> str:
        """How it ended, in words."""
        code = self.popen.poll() if self.popen else None
        if code is None:
            return "has not ended"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def plan_restart(self) -> float:
        """After a death: when to try again. Returns the pause in seconds (0.5, doubling up to 30)."""
        if time.monotonic() - self.started > CALM:
            self.failures = 0
        pause: float = min(0.5 * 2**self.failures, LONGEST_PAUSE)
        self.failures += 1
        self.retry_at = time.monotonic() + pause
        return pause

    def ask(self) -> None:
        """Ask it to end (SIGTERM); it may take its time."""
        if self.running:
            assert self.popen
            self.popen.terminate()

    def stop(self, until: float) -> bool:
        """Ask it to end, wait until the monotonic moment `until`, then kill its group. False: it had to be killed."""
        self.ask()
        clean = self.wait(until)
        self.kill()
        return clean

    def wait(self, until: float) -> bool:
        """Wait until the monotonic moment `until` for its end; whether it has ended."""
        if self.popen is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(max(0.0, until - time.monotonic()))
        return not self.running

    def kill(self) -> None:
        """End whatever is left of its group, at once."""
        if self.popen is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def tail(self, lines: int = 6) -> list[str]:
        """The last lines of its log."""
        with suppress(OSError):
            return self.log.read_text(errors="replace").splitlines()[-lines:]
        return []


class Bell:
    """Wakes the main thread: signals ring it (`signal.set_wakeup_fd`), and so may any thread.

    Not a `threading.Event`: a handler that sets one while its own thread holds its lock stands still for ever.
    """

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def ring(self) -> None:
        """Wake whoever waits, now or next."""
        with suppress(BlockingIOError):
            os.write(self.writer, b"!")

    def wait(self, timeout: float) -> None:
        """Wait for a ring, `timeout` seconds at most."""
        if select.select([self._reader], [], [], timeout)[0]:
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)


def birth(pid: int) -> int | None:
    """When a process started, in the system's ticks since boot; None: there is none. Tells reused pids apart."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state == "Z" else int(rest[18])


def end_leftover(pid: int, born: int, patience: float = 5.0) -> bool:
    """End a process (and its group) that an earlier `crony dev` left; False: it is gone, or another one by now."""
    if birth(pid) != born:
        return False
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, patience)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        until = time.monotonic() + wait
        while birth(pid) == born and time.monotonic() < until:
            time.sleep(0.02)
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
