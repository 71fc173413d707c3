"""Bringing a database to the schema of this version, one process at a time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from crony.errors import CronyError, Halted, Unavailable
from crony.store import faults
from crony.store.db import Database

log = logging.getLogger("crony.store")

PATIENCE = 120.0
"""Seconds one upgrader waits for another, and a statement may take."""


def head() -> str:
    """The schema revision that this code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise AssertionError("no migrations in the package")
    return revision


def current(db: Database) -> str | None:
    """The schema revision of the database; None when it is empty. Raises `Unavailable`."""
    return db.read(lambda session: MigrationContext.configure(session.connection()).get_current_revision())


def to_head(db: Database) -> str:
    """Upgrade and return the revision reached.

    Two processes at once: the second waits and finds nothing to do. Raises `Halted` when the
    database is of a newer Crony, `Unavailable` when it cannot be reached or upgraded.
    """
    before = current(db)
    if before == head():
        return before
    own = Database(db.url.render_as_string(hide_password=False), timeout=PATIENCE, pool=1)
    try:
        with own.engine.connect() as connection, _alone(connection, own.sqlite):
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except CommandError as error:
        raise Halted(
            "The database is of another version of Crony",
            why=str(error),
            hint="run the newer version, or restore a backup",
        ) from error
    except SQLAlchemyError as error:
        why = faults.sentence(error)
        raise Unavailable("The database cannot be upgraded now", why=why, hint=faults.advice(error)) from error
    finally:
        own.close()
    reached = current(db)
    if reached is None or reached != head():
        raise CronyError("The upgrade did not reach its end", why=f"the schema is {reached}, needed is {head()}")
    _check_tables(db)
    log.info("database upgraded from %s to %s", before or "nothing", reached)
    return reached


def _check_tables(db: Database) -> None:
    """A server may silently use another engine or character set than the one asked for. Raises `Unavailable`."""
    if db.sqlite:
        return
    query = text(
        "SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE() "
        "AND table_name IN ('jobs', 'runs', 'attempts', 'output_chunks') "
        "AND (engine <> 'InnoDB' OR table_collation <> 'utf8mb4_bin')"
    )
    wrong = db.read(lambda session: session.execute(query).all())
    if wrong:
        table, engine, collation = wrong[0]
        raise Unavailable(
            "The database made our tables differently than we asked",
            why=f"{table} has engine {engine} and collation {collation}, needed are InnoDB and utf8mb4_bin",
            hint="allow InnoDB and utf8mb4 on the server, drop the tables and upgrade again",
        )


@contextmanager
def _alone(connection: Connection, sqlite: bool) -> Iterator[None]:
    """Nobody else upgrades meanwhile: a server lock on MySQL; on SQLite the write transaction itself."""
    if sqlite:
        connection.exec_driver_sql("SELECT 1")  # begins: BEGIN IMMEDIATE
        yield
        return
    database = connection.execute(text("SELECT DATABASE()")).scalar_one()
    name = "crony-" + hashlib.sha256(str(database).encode()).hexdigest()[:32]
    if (
        connection.execute(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": PATIENCE / 4}).scalar_one()
        != 1
    ):
        raise Unavailable("Another process is still upgrading the database", hint="wait for it, then start again")
    try:
        connection.commit()
        yield
    finally:
        if not connection.invalidated:
            connection.rollback()
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})
            connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "crony.store:migrations")
    config.set_main_option("path_separator", "os")
    return config
