"""Commands of this process, started and ended by a keeper beside it (`keeper_main`): none outlives it, none escapes."""

from __future__ import annotations

import array
import contextlib
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from crony.workers import keeper_main

log = logging.getLogger("crony.worker")

PR_SET_DUMPABLE = 4
PATIENCE = 20.0
"""Seconds for which the keeper may take to start a command."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command to start: all that it gets."""

    argv: Sequence[str]
    env: dict[str, str] = field(repr=False)
    cwd: str
    limits: dict[str, int] = field(default_factory=dict)
    """Of each of its processes, by name (`keeper_main.LIMITS`)."""
    uid: int | None = None
    """Whose it shall be; None: this process's own user's."""
    gid: int | None = None
    groups: Sequence[int] = ()
    spare: str = ""
    """If this file is there when the command has ended well, what has left its session may go on by itself."""

    def told(self) -> bytes:
        """As the keeper reads it. Raises ValueError for what no program can be given."""
        if any("\0" in text for text in (*self.argv, *self.env, *self.env.values(), self.cwd)):
            raise ValueError("there is a NUL character in its arguments or environment")
        facts = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(facts).encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int | None
    """As of `waitpid`; None: nobody knows."""
    left: int = 0
    """Processes of it that could not be killed."""


class Command:
    """A command under way; `control` becomes readable with its end."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self.control, self.pid = control, pid
        self._heard = b""

    def terminate(self) -> None:
        """SIGTERM to all of it."""
        with contextlib.suppress(OSError):
            self.control.send(b"t")

    def kill(self) -> None:
        """SIGKILL to all of it."""
        with contextlib.suppress(OSError):
            self.control.send(b"k")

    def ended(self) -> Ended | None:
        """How it ended, when `control` is readable; None: it has not yet."""
        try:
            piece = self.control.recv(4096)
        except OSError:
            piece = b""
        self._heard += piece
        if b"\n" in self._heard:
            told = json.loads(self._heard.partition(b"\n")[0])
            return Ended(told["status"], int(told.get("left", 0)))
        if piece:
            return None
        with contextlib.suppress(OSError):  # its minder was killed: at least its own group goes
            os.killpg(self.pid, 9)
        return Ended(None)

    def close(self) -> None:
        """Whatever is left of it ends now."""
        self.control.close()


class Gone(OSError):
    """Nobody can say whether the command began."""


class Keeper:
    """The one of this process; started with the first command, and again should it die."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._way: socket.socket | None = None
        self._ours: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        os.register_at_fork(after_in_child=_forget(self))

    def start(self, launch: Launch, stdin: int, stdout: int, stderr: int) -> Command:
        """Start a command with these descriptors (they stay the caller's). Raises OSError in words for people, `Gone`
        when it may have begun all the same."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._ours.add(ours)
                self._ask(launch.told(), [theirs.fileno(), stdin, stdout, stderr])
            ours.settimeout(PATIENCE)
            told = json.loads(_line(ours))
            if "error" in told:
                raise OSError(told["error"])
            ours.settimeout(None)
            return Command(ours, int(told["pid"]))
        except BaseException:
            ours.close()
            raise

    def _ask(self, told: bytes, descriptors: list[int]) -> None:
        with self._lock:
            for again in (True, False):
                if self._way is None or self._child is None or self._child.poll() is not None:
                    self._begin()
                assert self._way is not None
                try:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
                    self._way.sendmsg([struct.pack("!I", len(told))], [rights])
                    self._way.sendall(told)
                    return
                except OSError:
                    self._way.close()
                    self._way = None
                    if not again:
                        raise

    def _begin(self) -> None:
        hide()
        if self._child is not None:
            log.warning("the keeper of this node's commands ended (%s); starting it again", self._child.poll())
            if self._way is not None:
                self._way.close()
        self._way, theirs = socket.socketpair()
        self._way.settimeout(PATIENCE)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper_main.__file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def close(self) -> None:
        """End the keeper; commands under way end with those who hold them."""
        with self._lock:
            if self._way is not None:
                self._way.close()
            if self._child is not None:
                self._child.wait()
            self._way = self._child = None

    def forget(self) -> None:
        """In a fork of ours: it must not hold the sockets open, for their end is the signal."""
        for each in [*self._ours, self._way]:
            if each is not None:
                each.close()
        self._way = self._child = None


def hide() -> None:
    """Other processes of our user, commands among them, cannot read this one's environment and memory any more."""
    with contextlib.suppress(OSError):
        keeper_main.prctl(PR_SET_DUMPABLE, 0)


def _forget(keeper: Keeper) -> Any:
    found = weakref.ref(keeper)

    def forget() -> None:
        if (here := found()) is not None:
            here.forget()

    return forget


def _line(way: socket.socket) -> bytes:
    """The first line, and no byte more: the next one may be there already."""
    while True:
        seen = way.recv(4096, socket.MSG_PEEK)
        if not seen:
            raise Gone("the process that minded the command was killed, perhaps after it began")
        line, end, _ = seen.partition(b"\n")
        if end:
            return way.recv(len(line) + 1)
        if len(seen) == 4096:
            raise OSError("its keeper says too much")
        time.sleep(0.001)
