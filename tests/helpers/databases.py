"""The databases that store tests run on: SQLite, a real MariaDB, and any MySQL named by `CRONY_TEST_MYSQL_URL`.

Their fixtures are in `database_fixtures`.
"""

from __future__ import annotations

import atexit
import os
import secrets
import tempfile
from functools import lru_cache
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from crony.domain.outcome import Outcome
from crony.store.db import Database
from crony.store.models import Base
from tests.helpers.mariadb import MariaServer

MYSQL = os.environ.get("CRONY_TEST_MYSQL_URL", "")
KINDS = ["sqlite", "mariadb", *(["mysql"] if MYSQL else [])]
JOB = "j1m81s8xkj3qm4nka4921"


@lru_cache(maxsize=1)
def shared_maria() -> MariaServer:
    """One MariaDB for the whole test process. Do not stop it."""
    server = MariaServer()
    atexit.register(server.destroy)
    return server.start()


def mysql_url() -> str:
    """The URL of a new database on the server named by `CRONY_TEST_MYSQL_URL`, whose user may create them."""
    name = "crony_" + secrets.token_hex(5)
    engine = create_engine(make_url(MYSQL)._replace(database=None))
    with engine.begin() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(MYSQL).set(database=name).render_as_string(hide_password=False)


def url_of(kind: str, folder: Path) -> str:
    """The URL of a new, empty database."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'crony.db'}"
    return shared_maria().fresh() if kind == "mariadb" else mysql_url()


@lru_cache(maxsize=1)
def upgraded_file() -> bytes:
    """An upgraded, empty SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/crony.db")
        database.upgrade()
        database.transaction(lambda session: session.connection().exec_driver_sql("DELETE FROM nodes"))
        database.close()  # the last connection takes the WAL into the file
        return (Path(folder) / "crony.db").read_bytes()


@lru_cache(maxsize=4)
def _upgraded(kind: str) -> str:
    url = url_of(kind, Path())
    database = Database(url, timeout=30)
    database.upgrade()
    database.close()
    return url


def emptied(kind: str, folder: Path) -> str:
    """The URL of an upgraded database without rows; on a server it is the same one for all tests, emptied."""
    if kind == "sqlite":
        (folder / "crony.db").write_bytes(upgraded_file())
        return f"sqlite:///{folder / 'crony.db'}"
    engine = create_engine(_upgraded(kind))
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            how = "TRUNCATE TABLE" if table.name == "audit" else "DELETE FROM"  # a trigger guards its rows
            connection.exec_driver_sql(f"{how} {table.name}")
    engine.dispose()
    return _upgraded(kind)


def outcome(
    run: str | int = 1, attempt: int = 1, kind: str = "succeeded", final: bool = True, **facts: object
) -> Outcome:
    """An outcome with plausible facts; a number as `run` is the fire's second (and sorts by it)."""
    at = float(run) if isinstance(run, int) else 1000.0
    known: dict[str, object] = {
        "run": f"{JOB}.1.{run}" if isinstance(run, int) else run,
        "job": JOB,
        "name": "billing/close-day",
        "generation": 1,
        "revision": 1,
        "attempt": attempt,
        "kind": kind,
        "final": final,
        "trigger": "schedule",
        "fire_at": at,
        "requested_at": at,
        "started_at": at + 0.5,
        "ended_at": at + 2.25,
        "node": "node-1",
    }
    return Outcome(**{**known, **facts})  # type: ignore[arg-type]
