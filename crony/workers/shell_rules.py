"""What this node allows of shell jobs: which programs, as whom. Its settings say so; no centre can override them."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crony.domain.shell_action import check_env
from crony.errors import CronyError, Invalid
from crony.settings import Settings

SCRIPTS = "scripts"


class NotHere(CronyError):
    """This node does not do that; another one may."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose a command is."""

    name: str
    home: str
    uid: int
    gid: int
    groups: Sequence[int] = ()
    other: bool = False
    """Somebody else than this process's user."""


def account(settings: Settings, action: Mapping[str, Any]) -> Account:
    """Whose the command shall be. Raises `NotHere`."""
    wanted, users = action.get("run_as") or {}, settings.shell_users
    own = pwd.getpwuid(os.geteuid())
    name = str(wanted.get("user") or (users[0] if users else own.pw_name))
    if name == own.pw_name and not wanted.get("group") and not (users and own.pw_uid == 0 and name not in users):
        return Account(own.pw_name, own.pw_dir, own.pw_uid, own.pw_gid)
    if own.pw_uid != 0:
        raise NotHere(f"this node runs as {own.pw_name}, so it cannot run commands as {name}; only root can")
    if name not in users:
        raise NotHere(f"this node runs no commands as {name}; its CRONY_SHELL_USERS names whom it allows")
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise NotHere(f"there is no user {name} on this node") from None
    groups = os.getgrouplist(name, found.pw_gid)
    gid = found.pw_gid
    if wanted.get("group"):
        try:
            gid = grp.getgrnam(str(wanted["group"])).gr_gid
        except KeyError:
            raise NotHere(f"there is no group {wanted['group']} on this node") from None
        if gid not in groups:
            raise NotHere(f"{name} is not in the group {wanted['group']} on this node")
    return Account(name, found.pw_dir, found.pw_uid, gid, groups, other=True)


def allowed(settings: Settings, action: Mapping[str, Any]) -> None:
    """Whether the node's list allows a script. Raises `NotHere`."""
    if settings.shell_allow and SCRIPTS not in settings.shell_allow and "script" in action:
        raise NotHere("this node runs no scripts; its CRONY_SHELL_ALLOW names the programs it starts")


def program(settings: Settings, action: Mapping[str, Any]) -> list[str]:
    """The command, its program as an absolute path where the node has a list. Raises `NotHere`."""
    argv = [str(part) for part in action["command"]]
    if not settings.shell_allow:
        return argv
    try:
        check_env(action.get("env"), "env")
    except Invalid as error:
        raise NotHere(f"this node starts no command with such an environment: {error}") from None
    if "PATH" in (action.get("env") or {}):
        raise NotHere("this node, which has a list of programs, lets no job set PATH")
    found = shutil.which(argv[0]) if argv and ("/" not in argv[0] or argv[0].startswith("/")) else None
    if found is None:
        raise NotHere(f"{argv[0] if argv else 'nothing'} is no program on this node")
    real = os.path.realpath(found)
    if not any(re.fullmatch(_pattern(each), real) for each in settings.shell_allow if each != SCRIPTS):
        raise NotHere(f"{real} is not among the programs that CRONY_SHELL_ALLOW of this node names")
    return [found, *argv[1:]]


def _pattern(glob: str) -> str:
    """`*` and `?` stay within a folder, `**` does not."""
    pieces = re.split(r"(\*\*|\*|\?)", glob)
    return "".join({"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece)) for piece in pieces)
