"""The command and environment of each role that `crony dev` starts: each gets the settings it needs, and no others."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from crony.dev.folder import Folder
from crony.dev.identity import Identity
from crony.settings import Settings

NODE = "dev"
"""Name of the node."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `crony dev` was told."""

    data_dir: Path
    port: int
    demo: bool = False
    exit_after: float | None = None
    pool: str = "threads"
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are found this time."""

    endpoint: str
    """Of etcd."""
    database_url: str
    host: str
    port: int
    address: str
    """Of the web, as people and nodes reach it."""


def commands(
    folder: Folder, identity: Identity, place: Place, settings: Settings, options: Options
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Role -> (command, environment), in the order of their start. Only web and centre know database and keys."""
    common = _common(identity, place, settings)
    crony = [sys.executable, "-m", "crony"]
    worker = [sys.executable, "-m", "celery", "-A", "crony", "worker", "--pool", options.pool]
    worker += ["--concurrency", str(options.concurrency), "--hostname", f"{NODE}@%h"]
    worker += ["--loglevel", settings.log_level, "--without-mingle", "--without-gossip"]
    web = {
        **common,
        "CRONY_SIGNING_KEY_FILE": identity.web_key_file,
        "CRONY_DATABASE_URL": place.database_url,
        "CRONY_WEB_HOST": place.host,
        "CRONY_WEB_PORT": str(place.port),
    }
    centre = {
        **common,
        "CRONY_SIGNING_KEY_FILE": identity.centre_key_file,
        "CRONY_DATABASE_URL": place.database_url,
        "CRONY_STATE_DIR": str(folder.make("state")),
        "CRONY_RETENTION_DAYS": str(settings.retention_days),
        "CRONY_SHARDS": str(settings.shards),
    }
    node = {
        **common,
        "CRONY_NODE": NODE,
        "CRONY_API": place.address,
        "CRONY_TOKEN_FILE": identity.node_token_file,
        "CRONY_SHELL": "on",
        "CRONY_HTTP_ALLOW": ",".join(dict.fromkeys(("loopback", *settings.http_allow))),
        "PATH": search_path(),
        "CRONY_SPOOL_DIR": str(folder.make("spool")),
        "CRONY_NODE_LABELS": ",".join(f"{key}={value}" for key, value in settings.node_labels),
    }
    return {"web": ([*crony, "web"], web), "centre": ([*crony, "beat"], centre), "node": (worker, node)}


def _common(identity: Identity, place: Place, settings: Settings) -> dict[str, str]:
    ours = {
        "CRONY_NAMESPACE": settings.namespace,
        "CRONY_ETCD_ENDPOINTS": place.endpoint,
        "CRONY_WEB_KEYS": identity.web_public,
        "CRONY_CENTRE_KEYS": identity.centre_public,
        "CRONY_SECRET_KEY_FILE": identity.secret_key_file,
        "CRONY_LOG_LEVEL": settings.log_level,
        "CRONY_LOG_FORMAT": "text",
        "CRONY_IMPORTS": ",".join(settings.imports),
        "PYTHONUNBUFFERED": "1",
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("CRONY_")} | ours


def search_path() -> str:
    """Our `PATH` and, last, where our own commands lie: `crony accept` in a script needs no activated environment."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
