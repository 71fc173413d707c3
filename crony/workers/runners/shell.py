"""Shell jobs: a command in its own session and process group, with an environment of its own, ended whole.

The command starts only after the guardian knows its group, so it dies with this process whatever happens. It
inherits no descriptor and none of the node's variables. Standard output and error are one stream, kept as output.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crony.clock import rfc3339
from crony.domain.outcome import Kind
from crony.domain.run import Envelope
from crony.workers import calling
from crony.workers.attempt import ACCEPTED, SUCCEEDED, Attempt, Verdict
from crony.workers.guardian import GATE

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL to the group."""
_POLL = 0.05


def run(attempt: Attempt) -> Verdict:
    """Run the command to its end, its timeout, or its cancel."""
    action = attempt.envelope.action
    scratch: str | None = None
    more: dict[str, str] = {}
    try:
        if "script" in action or attempt.callback is not None:
            scratch = tempfile.mkdtemp(prefix="crony-")
        if attempt.callback is not None and scratch is not None:
            more = calling.lay_out(attempt.callback, Path(scratch))
        if "script" in action and scratch is not None:
            script = Path(scratch) / "script"
            script.write_text(action["script"])
            argv = [*shlex.split(action.get("interpreter") or "/bin/sh"), str(script)]
        else:
            argv = [str(part) for part in action["command"]]
            if not argv:
                raise ValueError("the command is empty")
        child = _start(attempt, argv, action, more)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        return Verdict(Kind.FAILED, f"the command could not be started: {error}")
    try:
        verdict = _Running(attempt, child).wait()
        accepted = more and verdict.kind is Kind.SUCCEEDED and os.path.lexists(more["CRONY_CALLBACK_ACCEPT_FILE"])
        return ACCEPTED if accepted else verdict
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def environment(envelope: Envelope, fence: int, extra: Mapping[str, Any]) -> dict[str, str]:
    """The whole environment of a command: a few harmless facts of the machine, the job's own, and the run's.

    Parameters come as `CRONY_PARAM_<NAME>` (upper case, `_` for what is no letter or digit): text as it is, else JSON.
    """
    entry = pwd.getpwuid(os.getuid())
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": entry.pw_dir, "USER": entry.pw_name}
    env["LANG"] = os.environ.get("LANG", "C.UTF-8")
    if "TZ" in os.environ:
        env["TZ"] = os.environ["TZ"]
    env.update({str(name): str(value) for name, value in extra.items()})
    env.update(
        CRONY_RUN_ID=envelope.run,
        CRONY_JOB=envelope.job,
        CRONY_NAME=envelope.name,
        CRONY_ATTEMPT=str(envelope.attempt),
        CRONY_FENCE=str(fence),
        CRONY_FIRE_TIME=rfc3339(envelope.fire_at) or "",
    )
    if envelope.part is not None:
        env.update(CRONY_PART_INDEX=str(envelope.part), CRONY_PART_TOTAL=str(envelope.parts))
    for name, value in envelope.params.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        env["CRONY_PARAM_" + re.sub(r"[^A-Z0-9]", "_", name.upper())] = text
    return env


def _start(
    attempt: Attempt, argv: list[str], action: Mapping[str, Any], more: dict[str, str]
) -> subprocess.Popen[bytes]:
    own = {**(action.get("env") or {}), **attempt.secrets}
    env = environment(attempt.envelope, attempt.held.fence, own) | more
    home = env["HOME"] if os.path.isdir(env["HOME"]) else "/"
    cwd = action.get("cwd") or home
    if not os.path.isdir(cwd):
        raise NotADirectoryError(f"{cwd} is not a directory on this node")
    stdin: Any = subprocess.DEVNULL
    with contextlib.ExitStack() as stack:
        if action.get("stdin"):
            stdin = stack.enter_context(tempfile.TemporaryFile())
            stdin.write(str(action["stdin"]).encode())
            stdin.seek(0)
        gate, opener = os.pipe()
        stack.callback(os.close, gate)
        shut = stack.enter_context(os.fdopen(opener, "wb", buffering=0))
        child = subprocess.Popen(
            ["/bin/sh", "-c", GATE, "crony", *argv],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=gate,
            bufsize=0,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        try:
            attempt.process.guardian.add(child.pid)
            shut.write(b"\n")
        except OSError:
            child.kill()
            child.wait()
            raise
    return child


class _Running:
    """A command under way."""

    def __init__(self, attempt: Attempt, child: subprocess.Popen[bytes]) -> None:
        self._attempt, self._child = attempt, child
        self._why: Kind | None = None
        self._kill_at = 0.0

    def wait(self) -> Verdict:
        """Follow the command to its end, whichever comes."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        try:
            self._attempt.on_cancel(lambda: _poke(wake))
            self._follow(woken)
            self._attempt.on_cancel(None)
            return self._verdict(self._reap())
        finally:
            self._attempt.on_cancel(None)
            os.close(woken)
            os.close(wake)

    def _follow(self, woken: int) -> None:
        """Read output until the command's own process has ended."""
        stdout = self._child.stdout
        assert stdout is not None
        ended = _pidfd(self._child.pid)
        with selectors.DefaultSelector() as ready:
            ready.register(stdout, selectors.EVENT_READ)
            ready.register(woken, selectors.EVENT_READ)
            if ended is not None:
                ready.register(ended, selectors.EVENT_READ)
            try:
                while True:
                    patience = self._patience() if ended is not None else min(_POLL, self._patience())
                    found = {key.fd for key, _ in ready.select(patience)}
                    if stdout.fileno() in found and not self._read(stdout.fileno()):
                        ready.unregister(stdout)
                    if woken in found:
                        ready.unregister(woken)
                        self._stop(Kind.CANCELLED)
                    if self._attempt.left <= 0:
                        self._stop(Kind.TIMED_OUT)
                    if self._kill_at and time.monotonic() >= self._kill_at:
                        self._signal(signal.SIGKILL)
                    if ended in found or (ended is None and self._has_ended()):
                        return
            finally:
                if ended is not None:
                    os.close(ended)

    def _patience(self) -> float:
        if self._kill_at:
            return max(0.01, self._kill_at - time.monotonic())
        return self._attempt.left

    def _read(self, fd: int) -> bool:
        data = os.read(fd, 65536)
        self._attempt.output.write(data)
        return bool(data)

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _stop(self, why: Kind) -> None:
        if self._why is None:
            self._why, self._kill_at = why, time.monotonic() + min(GRACE, self._attempt.patience)
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def _reap(self) -> int:
        """End what is left of the group, take what it had printed; the exit code, negative for a signal."""
        group = self._child.pid
        stdout = self._child.stdout
        assert stdout is not None
        if self._why is None:
            self._signal(signal.SIGKILL)  # before reaping: the number is certainly still this group's
        code = self._child.wait()
        while self._why is not None and _alive(group):
            if time.monotonic() >= self._kill_at:
                self._signal(signal.SIGKILL)
                break
            time.sleep(_POLL)
        self._attempt.process.guardian.remove(group)
        deadline = time.monotonic() + 1.0  # a process that left the group may hold the pipe for ever
        with selectors.DefaultSelector() as ready:
            ready.register(stdout, selectors.EVENT_READ)
            while ready.select(max(0.0, deadline - time.monotonic())) and self._read(stdout.fileno()):
                if time.monotonic() > deadline:
                    break
        stdout.close()
        return code

    def _verdict(self, code: int) -> Verdict:
        shown = code if code >= 0 else 128 - code
        if self._why is Kind.CANCELLED:
            return Verdict(Kind.CANCELLED, "cancelled; its processes were ended", shown)
        if self._why is Kind.TIMED_OUT:
            limit = self._attempt.envelope.timeout
            return Verdict(Kind.TIMED_OUT, f"still running after {limit:g} s; its processes were ended", shown)
        if code == 0:
            return Verdict(SUCCEEDED.kind, code=0)
        if code < 0:
            return Verdict(Kind.FAILED, f"killed by signal {signal.Signals(-code).name}", shown)
        hint = {126: " (cannot be executed)", 127: " (command not found)"}.get(code, "")
        return Verdict(Kind.FAILED, f"exit code {code}{hint}", shown)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _alive(group: int) -> bool:
    """Whether a process of the group still runs; the dead that nobody has reaped do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        listed = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    for name in listed:
        with contextlib.suppress(OSError, ValueError):
            state, _, its_group = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _poke(wake: int) -> None:
    with contextlib.suppress(OSError):
        os.write(wake, b"x")
