"""Crontab files as job documents: user crontabs and `/etc/crontab` with its user column.

What a crontab means is kept: settings apply to the lines after them (`SHELL` becomes the
interpreter, `CRON_TZ` the zone, `HOME` also the working directory, every other one the job's
environment), `%` starts standard input, `\\%` is a percent sign, runs may overlap, nothing is cut off
after an hour. Comments right above a line become its description. The user column becomes `owner`
and a tag `user:<name>`: Crony runs commands as the node's user, so such a job belongs on a node of
that user. No line is lost: each one ends up as a job, a setting, or a problem with its line number.

Importing the same file again changes nothing: every job carries a tag `crontab:<hash>` of its
schedule, user and command (and a counter for lines that are there twice), whatever the comments,
settings and blanks around it. An importer looks for the tag before it creates a job.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crony.catalog.crontab_names import job_name
from crony.domain.check import texts
from crony.domain.crontext import check
from crony.domain.job import DESCRIPTION, parse
from crony.domain.shell_action import check_env
from crony.domain.zones import zone
from crony.errors import Invalid

LARGEST = 4 * 1024 * 1024
"""Most bytes of a crontab file."""
MOST_LINES = 20_000

_SETTING = re.compile(r"""\s*(["']?)([A-Za-z_][A-Za-z0-9_]*)\1\s*=\s*(.*?)\s*""", re.DOTALL)
_FIELDS = re.compile(r"-?((?:[^\s#]\S*[ \t]+){4}[^\s#]\S*)(?:[ \t]+(.*))?", re.DOTALL)
_MACRO = re.compile(r"(@\S+)(?:[ \t]+(.*))?", re.DOTALL)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?(?::[A-Za-z0-9_.-]{1,32})?")
_HEADER = re.compile(r"#\s*(m|min|minute)\s+(h|hour)\b.*\bcommand\b", re.IGNORECASE)
_PERCENT = re.compile(r"(?<!\\)%")

_USERS = frozenset(
    {
        "root", "www-data", "nobody", "postgres", "daemon", "gitlab-runner", "ubuntu", "debian", "ec2-user", "centos",
        "vagrant", "logcheck", "smmsp", "_apt", "zabbix", "nagios", "prometheus", "elasticsearch",
        "jenkins", "tomcat",
    }
)  # fmt: skip
_USERS_OR_COMMANDS = frozenset(
    {
        "backup", "git", "mail", "man", "mysql", "redis", "news", "sync", "games", "bin", "ftp", "app", "deploy",
        "admin", "list", "puppet", "ansible", "oracle", "nginx", "apache", "munin", "amavis",
    }
)  # fmt: skip
"""Users whose names are programs as well: they count beside one that is not."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that became no job: where, what it says, and why in one sentence with what to do."""

    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class CrontabResult:
    """What a crontab became. `lines[i]` is the line number of `jobs[i]`; `settings` those of NAME=value lines."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    settings: list[int] = field(default_factory=list)
    system: bool = False
    """Whether the lines were read with a user column."""


class _Line(NamedTuple):
    schedule: str
    user: str
    command: str


@dataclass(slots=True)
class _Settings:
    """The settings in force at a line. A broken one is remembered, because lines after it would run differently."""

    timezone: str
    interpreter: str = "/bin/sh"
    env: dict[str, str] = field(default_factory=dict)
    mail: str = ""
    delay: int = 0
    broken: dict[str, int] = field(default_factory=dict)


def parse_crontab(text: str, *, system: bool | None = None, default_timezone: str = "UTC") -> CrontabResult:
    """Job documents of a crontab, and what could not become one. Raises `Invalid` only for what is no crontab at all.

    `system` says whether lines carry a user column (None: guessed from the content);
    `default_timezone` is the zone of the machine the crontab comes from.
    """
    zone(default_timezone, "timezone")
    if len(text) > LARGEST or text.count("\n") > MOST_LINES:
        raise Invalid("crontab", f"is larger than {LARGEST} bytes or {MOST_LINES} lines", hint="split the file")
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if system is None:
        system = _has_users(rows)
    result = CrontabResult(system=system)
    settings, comments = _Settings(default_timezone), list[str]()
    names: set[str] = set()
    keys: Counter[str] = Counter()
    for number, row in enumerate(rows, 1):
        row = row.strip(" \t")
        if not row or row.startswith("#"):
            comments = [*comments, row] if row else []
            continue
        above, comments = comments, []
        try:
            found = _SETTING.fullmatch(row)
            if found:
                _set(settings, found[2], found[3], number)
                result.settings.append(number)
                continue
            line = _split(row, system)
            key = _key(line)
            keys[key] += 1
            document = _document(line, settings, above, _key(line, keys[key]), names)
            parse(document)
        except Invalid as error:
            result.problems.append(Problem(number, _shown(row), _why(error)))
            continue
        names.add(document["name"])
        result.jobs.append(document)
        result.lines.append(number)
    return result


def _why(error: Invalid) -> str:
    return f"{error.what}; {error.hint}" if error.hint else error.what


def _shown(row: str) -> str:
    text = "".join(char if char.isprintable() else "�" for char in row[:201])
    return text if len(text) <= 200 else text[:200] + "…"


def _split(row: str, system: bool) -> _Line:
    """Schedule, user and command of a line. Raises `Invalid`."""
    found = (_MACRO if row.startswith("@") else _FIELDS).fullmatch(row)
    if found is None:
        raise Invalid("", "the line is neither five fields and a command, nor NAME=value", hint="correct or remove it")
    schedule, rest, user = re.sub(r"[ \t]+", " ", found[1]), (found[2] or "").strip(" \t"), ""
    check(schedule, "schedule")
    if system:
        user, rest = (*rest.split(None, 1), "", "")[:2]
        if not _USER.fullmatch(user):
            raise Invalid("user", f"{_shown(user) or 'nothing'} is not a user name", hint="is this a user's crontab?")
    if not rest:
        raise Invalid("command", "is missing", hint="write the command after the schedule")
    return _Line(schedule, user, rest)


def _has_users(rows: list[str]) -> bool:
    """Whether lines carry a user column: a heading says so, or every sixth word is a user's name."""
    words = []
    for row in rows:
        row = row.strip(" \t")
        if _HEADER.match(row):
            if re.search(r"\b(user|user-name|username|who)\b", row.lower()):
                return True
            continue
        if not row or row.startswith("#") or _SETTING.fullmatch(row):
            continue
        found = (_MACRO if row.startswith("@") else _FIELDS).fullmatch(row)
        parts = (found[2] or "").split(None, 1) if found else []
        if not found:
            continue
        if not parts or parts[0] not in _USERS | _USERS_OR_COMMANDS:
            return False
        words.append(parts[0])
    return any(word in _USERS for word in words)


def _set(settings: _Settings, name: str, value: str, number: int) -> None:
    """Take a NAME=value line over. Raises `Invalid`.

    After a bad zone or shell the lines below are refused too; an environment variable that jobs may
    not set is reported, and the lines below are imported without it.
    """
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    settings.broken.pop(name, None)
    try:
        if name == "CRON_TZ":
            settings.timezone = zone(value, "CRON_TZ").name
        elif name == "SHELL":
            probe = {"name": "x", "action": {"kind": "shell", "script": "x", "interpreter": value}}
            settings.interpreter = parse(probe).action["interpreter"]
        elif name == "RANDOM_DELAY":
            settings.delay = _minutes(value)
        else:
            settings.env.pop(name, None)
            settings.env.update(_variable(name, value))
            if name == "MAILTO":
                settings.mail = value
    except Invalid:
        if name in ("CRON_TZ", "SHELL"):
            settings.broken[name] = number
        raise


def _minutes(value: str) -> int:
    """The greatest delay: cronie, too, delays all fires of a crontab by one and the same part of it."""
    if value.strip().isdecimal() and int(value) <= 1440:
        return int(value)
    raise Invalid("RANDOM_DELAY", "is not a number of minutes", hint="the jobs below are imported with exact times")


def _variable(name: str, value: str) -> dict[str, str]:
    try:
        return check_env({name: value}, "setting")
    except Invalid as error:
        raise Invalid(error.field, error.problem, hint="the jobs below are imported without it") from None


def _document(line: _Line, settings: _Settings, above: list[str], key: str, names: set[str]) -> dict[str, Any]:
    if settings.broken:
        name, number = next(iter(settings.broken.items()))
        why = f"the setting {name} on line {number}, which it depends on, could not be taken over"
        raise Invalid("", why, hint="correct that line first")
    command, stdin = _input(line.command)
    if not command.strip():
        raise Invalid("command", "is empty before its first %", hint="write \\% for a percent sign")
    action: dict[str, Any] = {"kind": "shell", "script": command, "interpreter": settings.interpreter}
    if settings.env:
        action["env"] = dict(settings.env)
    if settings.env.get("HOME", "").startswith("/"):
        action["cwd"] = settings.env["HOME"]
    if stdin is not None:
        action["stdin"] = stdin
    document: dict[str, Any] = {"name": job_name(command, key, names)}
    description = _description(above)
    if description:
        document["description"] = description
    document["tags"] = ["crontab", f"crontab:{key}"]
    if line.user:
        document["tags"].append(f"user:{line.user}")
    owner = line.user or settings.mail
    if owner and owner.isprintable() and len(owner) <= 200:
        document["owner"] = owner
    document["schedule"] = {"cron": line.schedule, "timezone": settings.timezone}
    if settings.delay:
        document["schedule"]["jitter"] = f"{settings.delay}m"
    return {**document, "overlap": "allow", "timeout": "1d", "action": action}


def _input(command: str) -> tuple[str, str | None]:
    """The command and its standard input: text after the first bare `%`, further ones being line breaks."""
    first, *rest = (part.replace("\\%", "%") for part in _PERCENT.split(command))
    if not rest:
        return first, None
    stdin = "\n".join(rest)
    return first.rstrip(" \t"), stdin if not stdin or stdin.endswith("\n") else stdin + "\n"


def _key(line: _Line, count: int = 1) -> str:
    """What stays the same when the line is imported again; `count` tells equal lines of a file apart."""
    parts = [check(line.schedule, "schedule"), line.user, line.command, *([str(count)] if count > 1 else [])]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _description(above: list[str]) -> str:
    """Comments right above a line, without headings and jobs that are commented out."""
    kept = []
    for row in above:
        body = row.lstrip("#").strip()
        if _HEADER.match(row) or not body.strip("-=*#~ "):
            continue
        found = (_MACRO if body.startswith("@") else _FIELDS).fullmatch(body)
        if found and found[2]:
            try:
                check(found[1], "schedule")
            except Invalid:
                pass
            else:
                continue
        kept.append("".join(char if char.isprintable() else " " for char in body))
    text = "\n".join(kept).encode("utf-8", "replace")[:DESCRIPTION].decode("utf-8", "ignore")
    try:
        return texts(text, "description", least=0, most=DESCRIPTION, lines=True)
    except Invalid:
        return text.encode("ascii", "ignore").decode()
