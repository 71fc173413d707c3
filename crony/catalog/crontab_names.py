"""Names of jobs from what their commands do, and a command that does nothing."""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from typing import Any

_WRAPPERS = frozenset(
    {
        "sudo", "nice", "ionice", "chronic", "nohup", "exec", "time", "env", "timeout", "setsid", "stdbuf", "bash",
        "sh", "dash", "zsh", "python", "python3", "php", "perl", "ruby", "node", "java", "cronic", "systemd-cat",
        "command", "if", "then", "!",
    }
)  # fmt: skip
_PREPARING = frozenset({"cd", "test", "[", "[[", "source", ".", "umask", "export", "set", "sleep", "true", ":"})
_PARTS = re.compile(r"&&|\|\||[;|&\n]")
_SUFFIXES = (".sh", ".py", ".pl", ".php", ".rb", ".js", ".bash")


def job_name(command: str, key: str, names: set[str]) -> str:
    """A name from what the command does: `/opt/app/bin/close-day.sh --all` is `crontab/close-day`."""
    slug = _slug(command)
    name = f"crontab/{slug}"
    return name if name not in names else f"crontab/{slug}-{key[:6]}"


def _slug(command: str) -> str:
    """The program that does the work, and its first argument when that is a plain word."""
    chosen = next((found for part in _PARTS.split(command) if (found := _program(part.split()))), "")
    folded = unicodedata.normalize("NFKD", chosen).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9._-]+", "-", folded)[:60].strip("-._") or "command"


def _program(words: list[str]) -> str:
    """Program and argument of one simple command; empty when it only prepares the next one."""
    rest = [word.strip("\"'(){}`$") for word in words]
    while rest:
        word = rest.pop(0)
        base = word.rstrip("/").rsplit("/", 1)[-1].lower()
        if word in ("-u", "-g"):
            rest = rest[1:]
        elif base in _PREPARING:
            return ""
        elif base == "flock":
            rest = [later for later in rest if not later.startswith("-")][1:]
        elif base in _WRAPPERS or re.match(r"[^a-z]|\w+=", base):
            continue
        else:
            for suffix in _SUFFIXES:
                base = base.removesuffix(suffix)
            plain = rest and re.fullmatch(r"[a-z][a-z0-9_:-]{1,30}", rest[0])
            return f"{base}-{rest[0]}" if plain else base
    return ""


def harmless(document: dict[str, Any]) -> dict[str, Any]:
    """The same job with a command that only says what it would do: for trying a schedule out.

    Name, schedule and everything else stay; environment, working directory and input of the old
    action go. The new command prints, and sleeps for up to two seconds.
    """
    action = document.get("action") or {}
    what = action.get("script") or " ".join(map(shlex.quote, action.get("command", []))) or action.get("url") or ""
    what = str(what or action.get("task") or document.get("name", ""))
    line = "".join(char if char.isprintable() else " " for char in what.split("\n", 1)[0])[:200]
    digest = hashlib.sha256(str(document.get("name", "")).encode("utf-8", "replace")).digest()
    script = f"echo {shlex.quote('would run: ' + line)}\ndate -u\nsleep {digest[0] % 20 / 10}\necho done"
    return {**document, "action": {"kind": "shell", "script": script, "interpreter": "/bin/sh"}}
