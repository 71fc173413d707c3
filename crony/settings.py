"""One frozen settings object, read once from `CRONY_*` variables (and `CRONY_*_FILE` for secrets).

Unknown `CRONY_` variables are refused with a suggestion, because a misspelt setting is a setting
that lies. No module reads the environment but this one.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from crony.errors import Invalid

_FOREIGN = frozenset({"CRONY_RUN_ID", "CRONY_JOB", "CRONY_ATTEMPT", "CRONY_FIRE_TIME", "CRONY_NAME", "CRONY_FENCE"})
_FOREIGN_PREFIXES = ("CRONY_PARAM_", "CRONY_TEST_", "CRONY_CALLBACK", "CRONY_PART_")
"""Facts and parameters of a run that a job's own environment carries; not settings."""


QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""What a shared queue may be called."""


def _text(value: str) -> str:
    return value


def _items(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _flag(value: str) -> bool:
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("write on or off")


def _labels(value: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in _items(value):
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ValueError("write key=value, separated by commas")
        pairs.append((key, text))
    return tuple(sorted(pairs))


def _networks(value: str) -> tuple[str, ...]:
    for item in _items(value):
        if item not in ("loopback", "private"):
            try:
                ip_network(item)
            except ValueError:
                raise ValueError(f"{item!r} is neither loopback, private nor a network such as 10.1.0.0/16") from None
    return _items(value)


def _programs(value: str) -> tuple[str, ...]:
    for item in _items(value):
        if item != "scripts" and not item.startswith("/"):
            raise ValueError(f"{item!r} is neither an absolute path, such as /opt/jobs/*, nor the word scripts")
    return _items(value)


def _setting(parse: Callable[[str], Any], default: Any, about: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "about": about, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a process of Crony can be told. Each field is `CRONY_<NAME>`; secrets also `CRONY_<NAME>_FILE`."""

    namespace: str = _setting(_text, "default", "key prefix `/crony/<namespace>/`; one etcd can hold several")
    etcd_endpoints: tuple[str, ...] = _setting(_items, ("http://127.0.0.1:2379",), "etcd members, with commas")
    etcd_user: str = _setting(_text, "", "etcd user")
    etcd_password: str = _setting(_text, "", "etcd password", secret=True)
    etcd_ca: str = _setting(_text, "", "file with the CA certificate of etcd")
    etcd_cert: str = _setting(_text, "", "file with our client certificate")
    etcd_key: str = _setting(_text, "", "file with the key of our client certificate")
    etcd_timeout: float = _setting(float, 4.0, "deadline of one etcd request, seconds")
    etcd_quota: int = _setting(int, 0, "etcd's quota, MiB, where it does not tell (before 3.6); 0: its default, 2048")
    database_url: str = _setting(_text, "", "SQLAlchemy URL: sqlite:///… or mysql+pymysql://…", secret=True)
    api: str = _setting(_text, "", "address of the web API, such as http://127.0.0.1:8400")
    api_public: str = _setting(_text, "", "address at which services reach the web API; default CRONY_API")
    console: str = _setting(_text, "", "address of the web console, for links in alerts; default CRONY_API_PUBLIC")
    call_secrets: tuple[str, ...] = _setting(
        _items, (), "secrets of 32 characters or more, with commas: calls to services are signed with the first",
        secret=True,
    )  # fmt: skip
    secret_key: tuple[str, ...] = _setting(
        _items, (), "keys of secrets at rest, base64, with commas: the first encrypts, all decrypt",
        secret=True,
    )  # fmt: skip
    token: str = _setting(_text, "", "API token of this client or node", secret=True)
    web_host: str = _setting(_text, "127.0.0.1", "address the web listens on")
    web_port: int = _setting(int, 8400, "port the web listens on")
    signing_key: str = _setting(_text, "", "Ed25519 private key (base64) of this web or centre", secret=True)
    web_keys: tuple[str, ...] = _setting(_items, (), "public keys of webs, base64: who may define jobs")
    centre_keys: tuple[str, ...] = _setting(_items, (), "public keys of centres, base64: who may dispatch")
    imports: tuple[str, ...] = _setting(_items, (), "modules whose Celery tasks may be run by name")
    centre: str = _setting(_text, "", "name of this centre; default host and pid")
    leader_ttl: float = _setting(float, 5.0, "lease of the leading centre, seconds")
    shards: int = _setting(int, 0, "number of shards, where nobody has set one yet; 0: no wish (one shard)")
    node: str = _setting(_text, "", "stable name of this node; default the host name")
    node_ttl: float = _setting(float, 10.0, "lease of a node, seconds")
    node_weight: int = _setting(int, 100, "share of work this node asks for (0-1000)")
    node_labels: tuple[tuple[str, str], ...] = _setting(_labels, (), "labels of this node: key=value,…")
    node_queues: tuple[str, ...] = _setting(
        _items, ("any",), "shared queues this node takes from, with commas; empty: none"
    )
    node_stuck: float = _setting(
        float, 30.0, "seconds without a move of a node's loop after which it lets its lease end; 0: never"
    )
    grace: float = _setting(float, 5.0, "how long a lost node may come back and keep its started work, seconds")
    shell: bool = _setting(_flag, False, "this node runs shell jobs")
    http_allow: tuple[str, ...] = _setting(
        _networks, (), "addresses inside that jobs of this node may call: loopback, private, networks; default none"
    )
    tls_dir: str = _setting(_text, "", "folder with CA files and client certificates that jobs may name")
    shell_allow: tuple[str, ...] = _setting(
        _programs, (), "programs that shell jobs may start: paths with * and **, the word scripts; empty: all"
    )
    shell_users: tuple[str, ...] = _setting(
        _items, (), "users that commands of a root node may run as; without `run_as` the first one"
    )
    spool_dir: str = _setting(_text, "", "where a node keeps output until the web has it")
    spool_limit: int = _setting(int, 256 * 1024 * 1024, "most bytes of output kept on a node")
    output_limit: int = _setting(
        int, 10 * 1024 * 1024, "most bytes of output kept of one attempt; of what is over it, the end is kept"
    )
    state_dir: str = _setting(_text, "", "where a centre keeps what must outlive it (highest revision seen)")
    log_level: str = _setting(_text, "info", "debug, info, warning or error")
    log_format: str = _setting(_text, "auto", "text, json, or auto: text at a terminal, else json")
    retention_days: int = _setting(int, 30, "days that runs and output are kept in the database")

    def __post_init__(self) -> None:
        """Cross-field rules. Raises `Invalid` naming the variable."""
        if not 1 <= self.leader_ttl <= 60:
            raise Invalid("CRONY_LEADER_TTL", "must be between 1 and 60 seconds")
        if self.etcd_quota < 0:
            raise Invalid("CRONY_ETCD_QUOTA", "must be MiB, as of etcd's --quota-backend-bytes, or 0")
        if not 0 <= self.shards <= 64:
            raise Invalid("CRONY_SHARDS", "must be between 1 and 64, or 0 for no wish")
        if not 2 <= self.node_ttl <= 120:
            raise Invalid("CRONY_NODE_TTL", "must be between 2 and 120 seconds")
        if self.node_stuck != 0 and not 5 <= self.node_stuck <= 3600:
            raise Invalid("CRONY_NODE_STUCK", "must be between 5 and 3600 seconds, or 0 for never")
        if not 0 <= self.grace < 2 * self.node_ttl:
            raise Invalid("CRONY_GRACE", "must be at least 0 and less than twice CRONY_NODE_TTL")
        if not 0 <= self.node_weight <= 1000:
            raise Invalid("CRONY_NODE_WEIGHT", "must be between 0 and 1000")
        if self.node.startswith("@"):
            raise Invalid("CRONY_NODE", "begins with @, which marks shared queues", hint="choose another name")
        for name in self.node_queues:
            if not QUEUE_NAME.fullmatch(name):
                hint = "use letters, digits, _ and -, at most 63, with commas between names"
                raise Invalid("CRONY_NODE_QUEUES", f"{name!r} is not the name of a queue", hint=hint)
        if not self.etcd_endpoints or len(set(self.etcd_endpoints)) != len(self.etcd_endpoints):
            raise Invalid("CRONY_ETCD_ENDPOINTS", "must name each etcd member once")
        if any(len(secret) < 32 for secret in self.call_secrets):
            raise Invalid("CRONY_CALL_SECRETS", "has a secret shorter than 32 characters", hint="openssl rand -hex 32")

    @property
    def callback_api(self) -> str:
        """Address at which services reach the web API, without a slash at its end; empty: nobody said."""
        return (self.api_public or self.api).rstrip("/")

    @property
    def console_address(self) -> str:
        """Address of the console for people, without a slash at its end; empty: nobody said."""
        return (self.console or self.callback_api).rstrip("/")

    @property
    def node_name(self) -> str:
        """Stable name of this node."""
        return self.node or socket.gethostname()

    @property
    def centre_name(self) -> str:
        """Name of this centre."""
        return self.centre or f"{socket.gethostname()}-{os.getpid()}"

    @property
    def lasting_centre_name(self) -> str:
        """As `centre_name`, but without a name of its own a centre that is begun anew on its host is no other one."""
        return self.centre or socket.gethostname()


def variables() -> list[tuple[str, str, Any, bool]]:
    """(variable, what it is about, default, secret) of each setting, for the reference page."""
    return [(f"CRONY_{f.name.upper()}", f.metadata["about"], f.default, f.metadata["secret"]) for f in fields(Settings)]


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from `environ` (default: the process's), `overrides` winning. Raises `Invalid` naming the variable."""
    environ = os.environ if environ is None else environ
    known = {f"CRONY_{f.name.upper()}": f for f in fields(Settings)}
    values: dict[str, Any] = {}
    for variable, raw in environ.items():
        if not variable.startswith("CRONY_") or variable in _FOREIGN or variable.startswith(_FOREIGN_PREFIXES):
            continue
        setting, text = known.get(variable), raw
        if setting is None and variable.endswith("_FILE"):
            setting = known.get(variable.removesuffix("_FILE"))
            if setting is not None and variable.removesuffix("_FILE") in environ:
                raise Invalid(variable, "is set beside the variable itself", hint="keep one of the two")
            if setting is not None:
                text = _read(variable, raw)
        if setting is None:
            near = difflib.get_close_matches(variable, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see `crony config`"
            raise Invalid(variable, "is not a setting", hint=hint)
        try:
            values[setting.name] = setting.metadata["parse"](text)
        except ValueError as error:
            raise Invalid(variable, f"cannot be read: {error}") from None
    values.update(overrides)
    return Settings(**values)


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(variable, f"cannot be read: {error}") from None
