"""The `shell` action: a command line or a script, whose it runs as, and within which limits."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from crony.errors import Invalid
from crony.web.job_fields.reading import given, lines, numbers, pairs, whole

DEFAULTS = {
    "shell_mode": "command", "command": "", "script": "", "interpreter": "/bin/sh", "env": "", "cwd": "", "stdin": "",
    "run_user": "", "run_group": "", "limit_cpu": "", "limit_memory": "", "limit_files": "", "limit_processes": "",
    "limit_file_size": "", "exit_success": "", "exit_final": "",
}  # fmt: skip
PATHS = (
    (r"action\.command.*", "command"),
    (r"action\.run_as\.(user|group)", r"run_\1"),
    (r"action\.limits\.(\w+)", r"limit_\1"),
    (r"action\.exit_codes\.(success|final)\b.*", r"exit_\1"),
    (r"action\.(script|interpreter|cwd|stdin|env)\b.*", r"\1"),
)
_LIMITS = ("cpu", "memory", "files", "processes", "file_size")


def document(values: Mapping[str, str]) -> dict[str, Any]:
    """The action. Raises `Invalid`."""
    made: dict[str, Any] = {"kind": "shell"}
    if values["shell_mode"] == "script":
        made |= {"script": values["script"], "interpreter": values["interpreter"].strip()}
    else:
        try:
            made["command"] = shlex.split(values["command"])
        except ValueError:
            raise Invalid("command", "has a quote that is not closed", hint="close it, or escape it with \\") from None
        if not made["command"]:
            raise Invalid("command", "is empty", hint="such as: /usr/bin/backup --full")
    if values["env"].strip():
        made["env"] = pairs(values, "env", "=", "\n", strip=False)
    made |= given(values, ("cwd",))
    if values["stdin"]:
        made["stdin"] = values["stdin"]
    account = given(values, ("user", "group"), "run_")
    limits: dict[str, Any] = given(values, _LIMITS, "limit_")
    limits |= {name: whole(values, f"limit_{name}") for name in ("files", "processes") if name in limits}
    codes = {name: numbers(values, f"exit_{name}") for name in given(values, ("success", "final"), "exit_")}
    sections = {"run_as": account, "limits": limits, "exit_codes": codes}
    return made | {name: section for name, section in sections.items() if section}


def fields(action: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an action."""
    found = {name: str(action[name]) for name in ("script", "interpreter", "cwd", "stdin") if name in action}
    found |= {f"run_{name}": text for name, text in action.get("run_as", {}).items()}
    found |= {f"limit_{name}": str(most) for name, most in action.get("limits", {}).items()}
    for name, codes in action.get("exit_codes", {}).items():
        found[f"exit_{name}"] = ", ".join(str(code) for code in codes)
    return found | {
        "shell_mode": "script" if "script" in action else "command",
        "command": shlex.join(action.get("command", ())),
        "env": lines(action["env"], "="),
    }
