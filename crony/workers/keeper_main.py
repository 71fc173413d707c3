"""The keeper's own program: starts commands for a node and lets nothing of them outlive their time.

Runs alone (`python -I -S keeper_main.py <descriptor>`), with the standard library and an empty environment. For each
command it forks a minder that adopts whatever the command leaves behind (a child subreaper), so that no double fork
and no new session gets away; the minder ends when everything below it has ended. When the node's process is gone, the
minder's socket is at its end, and it kills all of it.

A request is a length (4 bytes) and JSON, with four descriptors: the minder's socket, standard input, output, error.
The minder takes `t` (SIGTERM to all of it) and `k` (SIGKILL), and answers in lines of JSON: `{"pid"}` or `{"error"}`,
then `{"status"}` (as of `waitpid`, when nothing is left) with `left`, the number of processes that would not die.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SWEEP = 5.0
"""Seconds for which what is left of a command is killed again and again; then somebody is told of it."""
LIMITS = {
    "cpu": resource.RLIMIT_CPU,
    "memory": resource.RLIMIT_AS,
    "files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "file_size": resource.RLIMIT_FSIZE,
    "core": resource.RLIMIT_CORE,
}

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """As of the system; raises OSError."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def main(descriptor: int) -> None:
    """Serve requests until the node's process is gone."""
    gc.disable()  # a process that lives as long as one command has nothing to collect
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # minders are nobody's to wait for
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its node, not before
    asked = socket.socket(fileno=descriptor)
    while True:
        taken = receive(asked)
        if taken is None:
            return
        told, descriptors = taken
        try:
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=os.dup(descriptors[0])) as control:
                say(control, error=f"no process can be made: {error.strerror}")
            pid = -1
        if pid == 0:
            code = 1
            try:
                asked.close()
                Minder(socket.socket(fileno=descriptors[0]), descriptors[1:], told).run()
                code = 0
            finally:
                os._exit(code)
        for each in descriptors:
            os.close(each)


def receive(asked: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request and its descriptors; None at the end."""
    data, ancillary, _, _ = asked.recvmsg(4, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    data += exactly(asked, 4 - len(data))
    if len(data) < 4:
        return None
    size = struct.unpack("!I", data)[0]
    content = exactly(asked, size)
    return (json.loads(content), list(descriptors)) if len(content) == size and len(descriptors) == 4 else None


def exactly(asked: socket.socket, size: int) -> bytes:
    """So many bytes; fewer only at the end."""
    data = b""
    while len(data) < size and (piece := asked.recv(size - len(data))):
        data += piece
    return data


def say(control: socket.socket, **facts: Any) -> None:
    """A line to the node's process, if it is still there."""
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(facts).encode() + b"\n")


class Minder:
    """The process above one command."""

    def __init__(self, control: socket.socket, streams: list[int], told: dict[str, Any]) -> None:
        self._control, self._streams, self._told = control, streams, told
        self._status: int | None = None
        self._stopping = self._killing = self._alone = False

    def run(self) -> None:
        """Start the command, follow it to its end, leave nothing."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        problem, telling = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._become(telling)
        os.close(telling)
        for each in self._streams:
            os.close(each)
        told = b""
        while piece := os.read(problem, 4096):
            told += piece
        os.close(problem)
        if told:
            os.waitpid(self._pid, 0)
            say(self._control, error=told.decode(errors="replace"))
            return
        say(self._control, pid=self._pid)
        self._follow(woken)
        say(self._control, status=self._status, left=0 if self._let_go() else self._sweep())

    def _follow(self, woken: int) -> None:
        """Until the command has ended and, when it was told to stop, all that it started."""
        watched = select.poll()
        watched.register(woken, select.POLLIN)
        watched.register(self._control, select.POLLIN)
        while not self._reap() and not (self._status is not None and not self._stopping):
            if self._killing:
                if self._status is not None:
                    return  # the rest is swept away
                self._signal(signal.SIGKILL)
            for descriptor, _ in watched.poll(20 if self._killing else None):
                if descriptor == woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(woken, 4096)
                elif not self._ordered():
                    watched.unregister(self._control)

    def _ordered(self) -> bool:
        """Do what the node's process says; False when it is gone."""
        try:
            orders = self._control.recv(64)
        except OSError:
            orders = b""
        if not orders or b"k" in orders:
            self._stopping = self._killing = True
        elif b"t" in orders and not self._stopping:
            self._stopping = True
            self._signal(signal.SIGTERM)
        return bool(orders)

    def _reap(self) -> bool:
        """Take in who has ended; True when there is nobody left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._pid:
                self._status = status

    def _signal(self, number: int) -> None:
        if self._status is None:
            with contextlib.suppress(OSError):
                os.killpg(self._pid, number)
        for pid, group in below(os.getpid()):
            if group != self._pid or self._status is not None:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)

    def _let_go(self) -> bool:
        """Whether what has left the command's session goes on by itself: it has handed its work over."""
        spare = self._told["spare"]
        if not spare or self._stopping or self._status != 0 or not os.path.lexists(spare):
            return False
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        return True

    def _sweep(self) -> int:
        """Kill what is left; how many would not die."""
        deadline = time.monotonic() + SWEEP
        while not self._reap():
            self._signal(signal.SIGKILL)
            if time.monotonic() > deadline:
                return len(below(os.getpid()))
            time.sleep(0.002)
        return 0

    def _become(self, telling: int) -> NoReturn:
        """In the child: be the command, or say why not."""
        told = self._told
        try:
            minder = os.getppid()
            signal.set_wakeup_fd(-1)
            for number in (
                signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ
            ):  # fmt: skip
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            for place, stream in enumerate(self._streams):
                os.dup2(stream, place)
            os.umask(0o022)
            for name, most in told["limits"].items():
                limit(name, most)
            if told.get("uid") is not None:
                os.setgroups(told["groups"])
                os.setgid(told["gid"])
                os.setuid(told["uid"])
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # of this process only, should its minder be killed
            if os.getppid() != minder:
                os._exit(1)
            os.chdir(told["cwd"])
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            os.write(telling, f"{where}{error.strerror}".encode())
            os._exit(1)
        except BaseException as error:
            os.write(telling, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        execute(told["argv"], told["env"])


def limit(name: str, most: int) -> None:
    """Set a limit; what this process was given by its own may be less. Beyond the CPU's, SIGXCPU comes first."""
    _, hard = resource.getrlimit(LIMITS[name])
    free = hard == resource.RLIM_INFINITY
    value = most if free else min(most, hard)
    resource.setrlimit(LIMITS[name], (value, value + 1 if name == "cpu" and (free or value < hard) else value))


def execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Be this program, as a shell would start it: 127 when it is not there, 126 when it cannot be executed."""
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        if error.errno == errno.ENOEXEC:  # text without a first line that names its interpreter
            with contextlib.suppress(OSError):
                os.execve("/bin/sh", ["/bin/sh", *argv], env)
        os.write(2, f"crony: {argv[0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError | NotADirectoryError) else 126)


def below(top: int) -> list[tuple[int, int]]:
    """(process, its group) of everybody below a process that has not ended."""
    parents: dict[int, tuple[int, int, bool]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:  # without it only the command's own group can be ended
        return []
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent, group = file.read().rpartition(b")")[2].split()[:3]
                parents[int(name)] = (int(parent), int(group), state in (b"Z", b"X"))
    found, generation = [], {top}
    while generation:
        generation = {pid for pid, (parent, _, _) in parents.items() if parent in generation}
        found += [(pid, parents[pid][1]) for pid in generation if not parents[pid][2]]
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
