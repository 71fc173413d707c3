"""The `shell` action: checked once, before anything is stored; what a node allows of it is the node's own affair."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from crony.domain.check import fields, integer, join, listing, raw_text, texts
from crony.domain.durations import format_duration, parse_duration
from crony.errors import Invalid

COMMAND = 32 * 1024
"""Most bytes of a command (all arguments together), a script or standard input."""

_KNOWN = (
    "kind", "command", "script", "interpreter", "env", "cwd", "stdin", "run_as", "limits", "exit_codes",
)  # fmt: skip
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ENV_REFUSED = frozenset({"BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "PS4", "GLIBC_TUNABLES", "GCONV_PATH"})
_ENV_PREFIXES = ("LD_", "DYLD_", "PYTHON", "CRONY_", "BASH_FUNC")
_INTERPRETER = re.compile(r"/[A-Za-z0-9._+/-]{1,255}")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}[$]?")
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB|TiB)")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_MOST = 1 << 50


def parse_shell(value: Any, field: str) -> dict[str, Any]:
    """The action with defaults filled in. Raises `Invalid`."""
    given = fields(value, field, _KNOWN)
    command, script = given.get("command"), given.get("script")
    if (command is None) == (script is None):
        have = "neither" if command is None else "both"
        hint = 'write command: ["date", "-u"] or script: "date -u"'
        raise Invalid(f"{field}.command", f"needs exactly one of command and script; it has {have}", hint=hint)
    action: dict[str, Any] = {"kind": "shell"}
    if command is not None:
        if isinstance(command, str):
            raise Invalid(
                f"{field}.command", "must be a list of arguments", hint=f"for shell text use `{field}.script`"
            )
        items = listing(command, f"{field}.command", 1000)
        argv = [raw_text(item, f"{field}.command[{i}]", most=COMMAND) for i, item in enumerate(items)]
        if not argv or not argv[0].strip() or argv[0].startswith("-"):
            raise Invalid(f"{field}.command", "names no program", hint='write ["program", "argument"]')
        if sum(len(item.encode()) + 1 for item in argv) > COMMAND:
            raise Invalid(f"{field}.command", f"is longer than {COMMAND} bytes", hint="put it into a file on the node")
        action["command"] = argv
        if given.get("interpreter") is not None:
            raise Invalid(f"{field}.interpreter", "goes with `script` only", hint="remove it")
    else:
        action["script"] = raw_text(script, f"{field}.script", most=COMMAND)
        if not action["script"].strip():
            raise Invalid(f"{field}.script", "is empty", hint="write at least one command")
        interpreter = given.get("interpreter", "/bin/sh")
        if not isinstance(interpreter, str) or not _INTERPRETER.fullmatch(interpreter) or ".." in interpreter:
            hint = "write one absolute path, such as /bin/bash"
            raise Invalid(f"{field}.interpreter", "is not the path of a program", hint=hint)
        action["interpreter"] = interpreter
    action["env"] = check_env(given.get("env"), f"{field}.env")
    if given.get("cwd") is not None:
        cwd = texts(given["cwd"], f"{field}.cwd", most=1024)
        if not cwd.startswith("/") or ".." in cwd.split("/"):
            raise Invalid(f"{field}.cwd", "is not an absolute path without ..", hint="write /srv/app")
        action["cwd"] = cwd
    if given.get("stdin") is not None:
        action["stdin"] = raw_text(given["stdin"], f"{field}.stdin", most=COMMAND)
    if given.get("run_as") is not None:
        action["run_as"] = _run_as(given["run_as"], f"{field}.run_as")
    if given.get("limits") is not None:
        action["limits"] = _limits(given["limits"], f"{field}.limits")
    if given.get("exit_codes") is not None:
        action["exit_codes"] = _exit_codes(given["exit_codes"], f"{field}.exit_codes")
    return action


def check_env(value: Any, field: str) -> dict[str, str]:
    """Environment of a shell job: names by shape, none that changes how programs are loaded. Raises `Invalid`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping of names to texts", hint='write {LANG: "C.UTF-8"}')
    if len(value) > 100:
        raise Invalid(field, f"has {len(value)} variables; at most 100", hint="put them into a file on the node")
    env = {}
    for name, text in value.items():
        path = join(field, name)
        if not _ENV.fullmatch(name):
            raise Invalid(path, "is not a variable name", hint="use letters, digits and _")
        if name in _ENV_REFUSED or name.startswith(_ENV_PREFIXES):
            raise Invalid(path, "may not be set by a job", hint="remove it")
        text = raw_text(text, path, most=8192)
        if "\n" in text or "\r" in text:
            raise Invalid(path, "has a line break", hint="put the text into `stdin` or a file")
        env[name] = text
    return env


def _run_as(value: Any, field: str) -> dict[str, str]:
    """Whose the command shall be: `backup`, or `{user: backup, group: tape}`."""
    given = {"user": value} if isinstance(value, str) else fields(value, field, ("user", "group"))
    if given.get("user") is None:
        raise Invalid(f"{field}.user", "is missing", hint="write {user: backup}")
    named = {}
    for name in ("user", "group"):
        if given.get(name) is not None:
            if not isinstance(given[name], str) or not _ACCOUNT.fullmatch(given[name]):
                raise Invalid(f"{field}.{name}", "is not the name of an account", hint="write a name, not a number")
            named[name] = given[name]
    return named


def _limits(value: Any, field: str) -> dict[str, Any]:
    """Limits of each process of the command, in normal form."""
    given = fields(value, field, ("cpu", "memory", "files", "processes", "file_size"))
    limits: dict[str, Any] = {}
    if given.get("cpu") is not None:
        limits["cpu"] = format_duration(parse_duration(given["cpu"], f"{field}.cpu", least=1, most=30 * 86400))
    if given.get("memory") is not None:
        limits["memory"] = format_size(parse_size(given["memory"], f"{field}.memory", least=16 << 20))
    if given.get("file_size") is not None:
        limits["file_size"] = format_size(parse_size(given["file_size"], f"{field}.file_size", least=1))
    for name, least in (("files", 16), ("processes", 1)):
        if given.get(name) is not None:
            limits[name] = integer(given[name], f"{field}.{name}", least, 1 << 20)
    return limits


def limits_in_numbers(limits: Mapping[str, Any]) -> dict[str, int]:
    """Limits in normal form as numbers: seconds, bytes, pieces. Raises `Invalid`."""
    found: dict[str, int] = {}
    for name, value in _limits(limits, "limits").items():
        if name == "cpu":
            found[name] = int(parse_duration(value, name, least=1, most=30 * 86400))
        else:
            found[name] = value if isinstance(value, int) else parse_size(value, name, least=1)
    return found


def _exit_codes(value: Any, field: str) -> dict[str, list[int]]:
    """What exit codes mean beside 0: `success` as it, `final` a failure that is not tried again."""
    given = fields(value, field, ("success", "final"))
    codes: dict[str, list[int]] = {}
    for name in ("success", "final"):
        if given.get(name) is not None:
            listed = listing(given[name], f"{field}.{name}", 256)
            codes[name] = [integer(code, f"{field}.{name}[{i}]", 0, 255) for i, code in enumerate(listed)]
    if 0 in codes.get("final", ()):
        raise Invalid(f"{field}.final", "has 0 in it, which is success", hint="remove it")
    twice = set(codes.get("success", ())) & set(codes.get("final", ()))
    if twice:
        raise Invalid(f"{field}.final", f"has {min(twice)} in it, which is a success", hint="keep it in one of the two")
    return codes


def parse_size(value: Any, field: str, *, least: int) -> int:
    """Bytes written with a unit, such as `512MiB`. Raises `Invalid`."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Invalid(field, "is not a size", hint="write a whole number and a unit: 512MiB, 2GiB")
    size = int(match[1]) * _UNITS[match[2]]
    if not least <= size <= _MOST:
        raise Invalid(field, f"must be between {format_size(least)} and {format_size(_MOST)}", hint="such as 512MiB")
    return size


def format_size(size: int) -> str:
    """Bytes in the largest unit that leaves a whole number."""
    unit = next(unit for unit in reversed(_UNITS) if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}"
