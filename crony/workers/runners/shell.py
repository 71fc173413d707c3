"""Shell jobs: a command in a session of its own, with an environment of its own, ended with all that it started.

A keeper starts it and ends it, so nothing of it outlives its time or this process, not even what left its session. It
inherits no descriptor and none of the node's variables. Standard output and error are two pipes with one reader, which
takes them in the order in which they become readable.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import selectors
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from crony.clock import rfc3339
from crony.domain.outcome import Kind
from crony.domain.run import Envelope
from crony.domain.shell_action import limits_in_numbers
from crony.domain.stamps import Source
from crony.errors import Invalid
from crony.workers import calling, shell_rules
from crony.workers.attempt import ACCEPTED, SUCCEEDED, Attempt, Verdict
from crony.workers.keeper import Command, Ended, Gone, Launch
from crony.workers.shell_rules import Account

Streams = dict[int, Source]
"""Descriptors to read from, and which stream each is."""
SCRIPT = "script"
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL to all of it."""


def run(attempt: Attempt) -> Verdict:
    """Run the command to its end, its timeout, or its cancel."""
    action, settings = attempt.envelope.action, attempt.process.settings
    with contextlib.ExitStack() as stack:
        try:
            owner = shell_rules.account(settings, action)
            shell_rules.allowed(settings, action)
            scratch, more = _scratch(attempt, owner, stack)
            if "script" in action:
                argv = [*shlex.split(action.get("interpreter") or "/bin/sh"), f"{scratch}/{SCRIPT}"]
            else:
                argv = shell_rules.program(settings, action)
            if not argv:
                raise ValueError("the command is empty")
            command, streams = _start(attempt, argv, owner, more)
        except shell_rules.NotHere as error:
            return Verdict(Kind.REFUSED, str(error))
        except Gone as error:
            return Verdict(Kind.LOST, str(error))
        except (OSError, ValueError, KeyError, TypeError, Invalid) as error:
            return Verdict(Kind.FAILED, f"the command could not be started: {error}")
        for stream in streams:
            stack.callback(os.close, stream)
        stack.callback(command.close)
        verdict = _Running(attempt, command, streams).wait()
        accepted = more and verdict.kind is Kind.SUCCEEDED and os.path.lexists(more["CRONY_CALLBACK_ACCEPT_FILE"])
        return ACCEPTED if accepted else verdict


def _scratch(attempt: Attempt, owner: Account, stack: contextlib.ExitStack) -> tuple[str, dict[str, str]]:
    """A folder of the command's own, with script and callback, where it needs one; the variables that tell of it."""
    script = attempt.envelope.action.get("script")
    if script is None and attempt.callback is None:
        return "", {}
    folder = tempfile.mkdtemp(prefix="crony-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    more = calling.lay_out(attempt.callback, Path(folder)) if attempt.callback is not None else {}
    if script is not None:
        Path(folder, SCRIPT).write_text(script, encoding="utf-8")
    if owner.other:
        for path in (*Path(folder).iterdir(), Path(folder)):
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    return folder, more


def environment(envelope: Envelope, fence: int, extra: Mapping[str, Any], owner: Account) -> dict[str, str]:
    """The whole environment of a command: a few harmless facts of the machine, the job's own, and the run's.

    Parameters come as `CRONY_PARAM_<NAME>` (upper case, `_` for what is no letter or digit): text as it is, else JSON.
    """
    env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": owner.home, "USER": owner.name}
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


def _start(attempt: Attempt, argv: list[str], owner: Account, more: dict[str, str]) -> tuple[Command, Streams]:
    """The command, begun, and where what it prints can be read."""
    action = attempt.envelope.action
    own = {**(action.get("env") or {}), **attempt.secrets}
    env = environment(attempt.envelope, attempt.held.fence, own, owner) | more
    cwd = action.get("cwd") or (owner.home if os.path.isdir(owner.home) else "/")
    if not os.path.isdir(cwd):
        raise NotADirectoryError(f"{cwd} is not a directory on this node")
    limits = {"core": 0, **limits_in_numbers(action.get("limits") or {})}
    launch = Launch(argv, env, cwd, limits, spare=more.get("CRONY_CALLBACK_ACCEPT_FILE", ""))
    if owner.other:
        launch = replace(launch, uid=owner.uid, gid=owner.gid, groups=owner.groups)
    with contextlib.ExitStack() as stack:
        stdin: IO[bytes]
        if action.get("stdin"):
            stdin = stack.enter_context(tempfile.TemporaryFile())
            stdin.write(str(action["stdin"]).encode())
            stdin.seek(0)
        else:
            stdin = stack.enter_context(open(os.devnull, "rb"))
        with contextlib.ExitStack() as ours:
            streams: Streams = {}
            written = []
            for source in (Source.STDOUT, Source.STDERR):
                read, write = os.pipe()
                stack.callback(os.close, write)
                ours.callback(os.close, read)
                streams[read] = source
                written.append(write)
            command = attempt.process.keeper.start(launch, stdin.fileno(), *written)
            ours.pop_all()
            return command, streams


class _Running:
    """A command under way."""

    def __init__(self, attempt: Attempt, command: Command, streams: Streams) -> None:
        self._attempt, self._command, self._streams = attempt, command, streams
        self._why: Kind | None = None
        self._kill_at = 0.0

    def wait(self) -> Verdict:
        """Follow the command to its end, whichever comes."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        try:
            self._attempt.on_cancel(lambda: _poke(wake))
            ended = self._follow(woken)
            self._attempt.on_cancel(None)
            self._drain()
            return self._verdict(ended)
        finally:
            self._attempt.on_cancel(None)
            os.close(woken)
            os.close(wake)

    def _follow(self, woken: int) -> Ended:
        """Read output until the command has ended, and all that it started."""
        control = self._command.control
        with selectors.DefaultSelector() as ready:
            for stream in self._streams:
                ready.register(stream, selectors.EVENT_READ)
            ready.register(woken, selectors.EVENT_READ)
            ready.register(control, selectors.EVENT_READ)
            while True:
                found = [key.fd for key, _ in ready.select(self._patience())]
                for stream in found:
                    if stream in self._streams and not self._read(stream):
                        ready.unregister(stream)
                if control.fileno() in found and (ended := self._command.ended()) is not None:
                    return ended
                if woken in found:
                    ready.unregister(woken)
                    self._stop(Kind.CANCELLED)
                if self._attempt.left <= 0:
                    self._stop(Kind.TIMED_OUT)
                if self._kill_at and time.monotonic() >= self._kill_at:
                    self._command.kill()
                    self._kill_at = math.inf

    def _patience(self) -> float | None:
        if not self._kill_at:
            return self._attempt.left
        return None if math.isinf(self._kill_at) else max(0.01, self._kill_at - time.monotonic())

    def _read(self, stream: int) -> bool:
        data = os.read(stream, 65536)
        self._attempt.output.write(data, self._streams[stream])
        return bool(data)

    def _stop(self, why: Kind) -> None:
        if self._why is None:
            self._why, self._kill_at = why, time.monotonic() + min(GRACE, self._attempt.patience)
            self._command.terminate()

    def _drain(self) -> None:
        """Take what had been printed; who could not be killed may hold the pipe for ever."""
        deadline = time.monotonic() + 1.0
        with selectors.DefaultSelector() as ready:
            for stream in self._streams:
                ready.register(stream, selectors.EVENT_READ)
            while ready.get_map() and time.monotonic() <= deadline:
                for key, _ in ready.select(max(0.0, deadline - time.monotonic())):
                    if not self._read(key.fd):
                        ready.unregister(key.fd)

    def _verdict(self, ended: Ended) -> Verdict:
        if ended.left:
            self._attempt.output.text(f"[crony: {ended.left} processes of it could not be ended]")
        if ended.status is None:
            return Verdict(Kind.LOST, "the process that minded the command was killed, and it with it")
        code = os.waitstatus_to_exitcode(ended.status)
        shown = code if code >= 0 else 128 - code
        if self._why is Kind.CANCELLED:
            return Verdict(Kind.CANCELLED, "cancelled; its processes were ended", shown)
        if self._why is Kind.TIMED_OUT:
            limit = self._attempt.envelope.timeout
            return Verdict(Kind.TIMED_OUT, f"still running after {limit:g} s; its processes were ended", shown)
        action = self._attempt.envelope.action
        codes = action.get("exit_codes") or {}
        if code == 0 or code in codes.get("success", ()):
            return Verdict(SUCCEEDED.kind, code=code)
        if code < 0:
            return Verdict(Kind.FAILED, f"killed by signal {_signal_name(-code, action.get('limits') or {})}", shown)
        hint = {126: " (cannot be executed)", 127: " (command not found)"}.get(code, "")
        if code in codes.get("final", ()):
            return Verdict(Kind.FAILED, f"exit code {code}, after which the job is not tried again", shown, final=True)
        beyond = _beyond(code - 128, action.get("limits") or {})  # of a program that its shell started
        return Verdict(Kind.FAILED, f"exit code {code}{hint}{beyond}", shown)


def _signal_name(number: int, limits: Mapping[str, Any]) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return f"{name}{_beyond(number, limits)}"


def _beyond(number: int, limits: Mapping[str, Any]) -> str:
    """Which limit a signal tells of; nothing when it tells of none."""
    limit = "cpu" if number == signal.SIGXCPU else "file_size" if number == signal.SIGXFSZ else ""
    return f": more than its limit of {limit}, {limits[limit]}" if limit in limits else ""


def _poke(wake: int) -> None:
    with contextlib.suppress(OSError):
        os.write(wake, b"x")
