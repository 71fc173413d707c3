"""What a job does: http, grpc, shell or python. Checked here, once, before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from crony.domain.check import choice, fields, join, listing, raw_text, texts
from crony.domain.grpc_action import parse_grpc
from crony.domain.http_action import parse_http
from crony.errors import Invalid

KINDS = ("http", "grpc", "shell", "python")
COMMAND = 32 * 1024
"""Most bytes of a command (all arguments together), a script or standard input."""

_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ENV_REFUSED = frozenset({"BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "PS4", "GLIBC_TUNABLES", "GCONV_PATH"})
_ENV_PREFIXES = ("LD_", "DYLD_", "PYTHON", "CRONY_", "BASH_FUNC")
_TASK = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}(?:\.[A-Za-z_][A-Za-z0-9_]{0,99}){1,12}")
_INTERPRETER = re.compile(r"/[A-Za-z0-9._+/-]{1,255}")


def parse_action(value: Any, field: str = "action", *, params: Collection[str] = ()) -> dict[str, Any]:
    """The action as a plain dict with defaults filled in. `value` is plain data, `params` the names of the job's
    parameters. Raises `Invalid` naming the field.
    """
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping", hint='write {kind: shell, command: ["date"]}')
    if "kind" not in value:
        raise Invalid(f"{field}.kind", "is missing", hint=f"write one of {', '.join(KINDS)}")
    kind = choice(value["kind"], f"{field}.kind", KINDS)
    if kind == "http":
        return parse_http(value, field, params)
    if kind == "grpc":
        return parse_grpc(value, field, params)
    return {"shell": _shell, "python": _python}[kind](value, field)


def _shell(value: Any, field: str) -> dict[str, Any]:
    known = ("kind", "command", "script", "interpreter", "env", "cwd", "stdin")
    given = fields(value, field, known, ("run_as", "limits", "user", "group"))
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


def _python(value: Any, field: str) -> dict[str, Any]:
    given = fields(value, field, ("kind", "task", "args", "kwargs"))
    if "task" not in given:
        raise Invalid(f"{field}.task", "is missing", hint="write the dotted name of a Celery task")
    task = texts(given["task"], f"{field}.task", most=255)
    if not _TASK.fullmatch(task):
        raise Invalid(f"{field}.task", "is not a dotted task name", hint="write it as package.module.task")
    if task == "crony.run":
        raise Invalid(f"{field}.task", "is Crony's own task", hint="name a task of yours")
    kwargs = given.get("kwargs")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise Invalid(f"{field}.kwargs", "must be a mapping", hint="write {name: value}")
    args = given.get("args")
    return {
        "kind": "python",
        "task": task,
        "args": [] if args is None else listing(args, f"{field}.args", 100),
        "kwargs": dict(kwargs or {}),
    }
