"""One database: engine, pool, migrations, and transactions that are retried as a whole.

SQLite: WAL, BEGIN IMMEDIATE for writes, file mode 0600. MySQL and MariaDB: READ COMMITTED, strict
SQL mode demanded, every network wait bounded. A write given to `Database.transaction` may run more
than once, also after a commit whose answer was lost: it must find its own earlier work by a
natural key and be content.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from crony.clock import SYSTEM
from crony.errors import CronyError, Invalid, Unavailable, Unknown
from crony.store import faults

T = TypeVar("T")
log = logging.getLogger("crony.store")

VARIABLE = "CRONY_DATABASE_URL"


class Database:
    """The catalogue and archive behind one SQLAlchemy URL. Threads share it; connections are made when needed.

    `timeout` (seconds) bounds what a caller waits when the database is away: network waits are cut
    at half of it, and no try starts after it. `pool` is how many connections are kept.
    """

    def __init__(self, url: str, *, timeout: float = 4.0, pool: int = 5) -> None:
        self.timeout = timeout
        self.url = _parse(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._engine(timeout, pool)
        self._reader = self.engine.execution_options(crony_read=True)

    def __repr__(self) -> str:
        return f"Database({self.url.render_as_string(hide_password=True)})"

    # -- work ------------------------------------------------------------------------------

    def transaction(self, work: Callable[[Session], T], *, patience: float | None = None) -> T:
        """What `work(session)` returns, committed.

        `work` is run again from the start after a deadlock, a lock time-out or a lost connection, so
        it must be idempotent. Raises `Unavailable` when the database is away (nothing was changed),
        `Unknown` when a commit was sent and its answer lost; data errors of the database as they are.
        """
        return self._attempts(self.engine, work, patience)

    def read(self, work: Callable[[Session], T], *, patience: float | None = None) -> T:
        """What `work(session)` returns, which must only read; on SQLite it never waits for writers."""
        return self._attempts(self._reader, work, patience)

    def ping(self) -> float:
        """Seconds one round trip took. Raises `Unavailable`."""
        begun = SYSTEM.monotonic()
        self.read(lambda session: session.execute(text("SELECT 1")).scalar_one(), patience=0)
        return SYSTEM.monotonic() - begun

    def upgrade(self) -> str:
        """Bring the schema to this version's and return its revision; safe when several processes start at once."""
        from crony.store import upgrade  # Alembic is needed at start only

        return upgrade.to_head(self)

    def revision(self) -> tuple[str | None, str]:
        """(schema revision of the database, revision this code needs)."""
        from crony.store import upgrade

        return upgrade.current(self), upgrade.head()

    def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        self.engine.dispose()

    def _attempts(self, engine: Engine, work: Callable[[Session], T], patience: float | None) -> T:
        deadline = SYSTEM.monotonic() + (self.timeout if patience is None else patience)
        maybe = False
        for tried in count(1):
            committing = False
            try:
                with Session(engine, expire_on_commit=False) as session:
                    result = work(session)
                    session.flush()
                    committing = True
                    session.commit()
                    return result
            except SQLAlchemyError as error:
                if faults.about_data(error):
                    raise
                passing = faults.passing(error)
                maybe = maybe or (committing and faults.lost(error))
                if not passing and not isinstance(error, DBAPIError) and not faults.away(error):
                    raise
                pause = min(0.02 * 2**tried, 0.4) * random.uniform(0.5, 1.5)
                if not passing or SYSTEM.monotonic() + pause >= deadline:
                    raise self._given_up(error, maybe) from error
                log.info("transaction is tried again (%d): %s", tried, faults.sentence(error))
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _given_up(self, error: SQLAlchemyError, maybe: bool) -> CronyError:
        why = faults.sentence(error)
        if maybe:
            return Unknown(
                "The database did not confirm the change", why=why, hint="look whether it is there, then repeat"
            )
        return Unavailable("The database cannot be used now", why=why, hint=faults.advice(error))

    # -- engines ---------------------------------------------------------------------------

    def _engine(self, timeout: float, pool: int) -> Engine:
        return self._sqlite(timeout, pool) if self.sqlite else self._mysql(timeout, pool)

    def _sqlite(self, timeout: float, pool: int) -> Engine:
        _private(Path(str(self.url.database)))
        engine = create_engine(self.url, connect_args={"timeout": timeout}, pool_size=pool, max_overflow=pool * 3)

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # transactions are begun below, not guessed by the driver
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
                connection.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def begun(connection: Any) -> None:
            reading = connection.get_execution_options().get("crony_read")
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

        return engine

    def _mysql(self, timeout: float, pool: int) -> Engine:
        wait = timeout / 2
        engine = create_engine(
            self.url,
            isolation_level="READ COMMITTED",
            pool_size=pool,
            max_overflow=pool,
            pool_timeout=timeout,
            pool_pre_ping=True,
            pool_recycle=240,
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": max(1, round(wait)),
                "read_timeout": wait,
                "write_timeout": wait,
                "init_command": f"SET SESSION innodb_lock_wait_timeout = {max(1, int(wait) - 1)}",
            },
        )

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _record: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@SESSION.sql_mode, @@character_set_connection")
                mode, charset = cursor.fetchone()
            if "STRICT_TRANS_TABLES" not in mode and "STRICT_ALL_TABLES" not in mode:
                raise Unavailable(
                    "The database would cut values silently",
                    why="its sql_mode is not strict",
                    hint="add STRICT_TRANS_TABLES to sql_mode of the server",
                )
            if charset != "utf8mb4":
                raise Unavailable(
                    "The database connection cannot carry all text", why=f"its character set is {charset}"
                )

        return engine


def _parse(url: str) -> URL:
    """The URL, with our driver filled in. Raises `Invalid` for what cannot work."""
    if not url:
        raise Invalid(
            VARIABLE, "is not set", hint="sqlite:////path/crony.db or mysql+pymysql://user:password@host/crony"
        )
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if parsed.drivername in ("mysql", "mariadb", "mariadb+pymysql"):
            parsed = parsed.set(drivername="mysql+pymysql")
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise Invalid(VARIABLE, "is not a database URL we know", hint="sqlite:///… or mysql+pymysql://…") from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "mysql+pymysql"):
        raise Invalid(VARIABLE, f"{parsed.drivername} is not supported", hint="use sqlite:///… or mysql+pymysql://…")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise Invalid(
            VARIABLE, "a database in memory is lost with its process", hint="name a file: sqlite:////path/crony.db"
        )
    return parsed


def _private(path: Path) -> None:
    """The database file exists and is ours alone; SQLite gives its WAL files the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise Unavailable(f"The database file {path} cannot be opened", why=error.strerror or str(error)) from None
