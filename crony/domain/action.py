"""What a job does: http, shell or python. Checked here, once, before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

from crony.domain.check import choice, fields, flag, integer, join, listing, raw_text, texts
from crony.errors import Invalid

KINDS = ("http", "shell", "python")
COMMAND = 32 * 1024
"""Most bytes of a command (all arguments together), a script, a body or standard input."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,20}")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_OURS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
        "proxy-connection",
    }
)  # fmt: skip
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ENV_REFUSED = frozenset({"BASH_ENV", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "PS4", "GLIBC_TUNABLES", "GCONV_PATH"})
_ENV_PREFIXES = ("LD_", "DYLD_", "PYTHON", "CRONY_", "BASH_FUNC")
_TASK = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}(?:\.[A-Za-z_][A-Za-z0-9_]{0,99}){1,12}")
_INTERPRETER = re.compile(r"/[A-Za-z0-9._+/-]{1,255}")


def parse_action(value: Any, field: str = "action") -> dict[str, Any]:
    """The action as a plain dict with defaults filled in. `value` is plain data. Raises `Invalid` naming the field."""
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping", hint='write {kind: shell, command: ["date"]}')
    if "kind" not in value:
        raise Invalid(f"{field}.kind", "is missing", hint=f"write one of {', '.join(KINDS)}")
    kind = choice(value["kind"], f"{field}.kind", KINDS, ("grpc",))
    return {"http": _http, "shell": _shell, "python": _python}[kind](value, field)


def _http(value: Any, field: str) -> dict[str, Any]:
    known = ("kind", "method", "url", "headers", "body", "json", "expect_status", "verify_tls")
    given = fields(value, field, known, ("expect_body", "service"))
    body, json_body = given.get("body"), given.get("json")
    if body is not None and json_body is not None:
        raise Invalid(f"{field}.json", "cannot stand beside `body`", hint="keep one of the two")
    if "url" not in given:
        raise Invalid(f"{field}.url", "is missing", hint="write https://host/path")
    method = given.get("method") or ("GET" if body is None and json_body is None else "POST")
    method = choice(method.upper() if isinstance(method, str) else method, f"{field}.method", _METHODS)
    action: dict[str, Any] = {"kind": "http", "method": method, "url": check_url(given["url"], f"{field}.url")}
    action["headers"] = _headers(given.get("headers"), f"{field}.headers")
    if body is not None:
        action["body"] = raw_text(body, f"{field}.body", most=COMMAND)
    if json_body is not None:
        action["json"] = json_body
    action["expect_status"] = None
    if given.get("expect_status") is not None:
        expected = listing(given["expect_status"], f"{field}.expect_status", 50)
        if not expected:
            raise Invalid(f"{field}.expect_status", "is empty", hint="leave it out for any 2xx, or write [200, 204]")
        action["expect_status"] = [
            integer(item, f"{field}.expect_status[{i}]", 100, 599) for i, item in enumerate(expected)
        ]
    action["verify_tls"] = flag(given.get("verify_tls", True), f"{field}.verify_tls")
    return action


def check_url(value: Any, field: str) -> str:
    """An http(s) URL that means one thing to every parser. Raises `Invalid` naming `field`."""
    url = texts(value, field, most=4096)
    if not url.isascii() or " " in url or "\\" in url:
        raise Invalid(
            field, "has a blank, backslash or non-ASCII character", hint="percent-encode it (hosts: punycode)"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Invalid(field, "is not a URL", hint="write https://host:port/path") from None
    if parts.scheme not in ("http", "https"):
        raise Invalid(field, "must start with http:// or https://", hint="write https://host/path")
    if "@" in parts.netloc:
        raise Invalid(field, "carries a user or password", hint="use a header, such as Authorization")
    if "#" in url:
        raise Invalid(field, "has a fragment (#), which servers never see", hint="remove it or write %23")
    if port is not None and not 1 <= port <= 65535:
        raise Invalid(field, "has a port outside 1-65535", hint="write https://host:port/path")
    _check_host(parts, field)
    return url


def _check_host(parts: SplitResult, field: str) -> None:
    host = parts.hostname or ""
    if parts.netloc.endswith(":") or not host:
        raise Invalid(field, "has no host or an empty port", hint="write https://host:port/path")
    if "[" in parts.netloc:
        try:
            address: IPv4Address | IPv6Address = IPv6Address(host)
        except ValueError:
            raise Invalid(field, "has a bad IPv6 address", hint="write http://[2001:db8::1]:80/") from None
    else:
        if not _HOST.fullmatch(host):
            raise Invalid(field, "has a host name that is not one", hint="use letters, digits, - and single dots")
        if not _NUMERIC.fullmatch(host.rsplit(".", 1)[-1]):
            return
        try:
            address = ip_address(host)
        except ValueError:
            raise Invalid(field, "has a number for a host", hint="write the address as 192.0.2.1") from None
    if isinstance(address, IPv6Address):
        nat64 = address.packed[:4] == b"\x00\x64\xff\x9b"
        if address.ipv4_mapped or address.sixtofour or address.teredo or nat64 or address.scope_id:
            raise Invalid(field, "hides another address inside an IPv6 one", hint="write the address itself")
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise Invalid(field, f"points at {address}, which no job may call", hint="use the address of the service")


def _headers(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping of header names to texts", hint="write {Accept: application/json}")
    if len(value) > 50:
        raise Invalid(field, f"has {len(value)} headers; at most 50", hint="shorten it")
    seen: set[str] = set()
    headers = {}
    for name, text in value.items():
        path = join(field, name)
        if not _TOKEN.fullmatch(name):
            raise Invalid(path, "is not a header name", hint="use letters, digits and -")
        if name.lower() in _OURS or name.lower().startswith("x-crony-"):
            raise Invalid(path, "is set by Crony itself", hint="remove it")
        if name.lower() in seen:
            raise Invalid(path, "is given twice, in different case", hint="keep one of them")
        seen.add(name.lower())
        text = texts(text, path, least=0, most=8192)
        if not text.isascii() or text != text.strip():
            raise Invalid(path, "has a non-ASCII character or blanks around it", hint="encode or trim it")
        headers[name] = text
    return headers


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
