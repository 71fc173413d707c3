"""The database layer: migrations, whole-transaction retries, and what happens when the server misbehaves."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from crony.errors import Halted, Invalid, Unavailable, Unknown
from crony.store import archive, objects, runs, skips, upgrade
from crony.store.account_models import AuditRow
from crony.store.db import Database
from crony.store.models import Base, NodeRow, ObjectRow, ObjectVersionRow
from tests.helpers.databases import outcome, shared_maria
from tests.helpers.mariadb import MariaServer
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until, within

pytest_plugins = ["tests.helpers.database_fixtures"]


def _through(url: str, proxy: Proxy) -> str:
    server = shared_maria()
    return url.replace(f":{server.port}/", f":{proxy.endpoint.rsplit(':', 1)[1]}/")


def _nodes(db: Database, *names: str) -> None:
    def put(session: Session) -> None:
        for name in names:
            session.add(
                NodeRow(
                    name=name,
                    incarnation="i",
                    hostname="h",
                    version="1",
                    capacity=1,
                    labels={},
                    kinds=[],
                    started_at=0.0,
                    seen_at=0.0,
                )
            )

    db.transaction(put)


def _capacity(db: Database, name: str) -> int:
    return db.read(lambda session: session.get_one(NodeRow, name).capacity)


def test_migrations_make_what_the_models_say(own_db: Database) -> None:
    db = own_db

    def differences(session: Session) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(session.connection()), Base.metadata))

    assert db.read(differences) == []
    assert db.revision()[0] == db.revision()[1]


def test_two_upgraders_at_once(url: str) -> None:
    databases = [Database(url) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        reached = list(pool.map(Database.upgrade, databases))
    assert len(set(reached)) == 1
    archive.write(databases[0], [outcome()])
    assert databases[2].upgrade() == reached[0]


def test_a_killed_upgrade_is_finished_by_the_next(url: str) -> None:
    db = Database(url)
    db.upgrade()
    with db.engine.begin() as connection:  # as if it had died before the last steps
        connection.execute(text("DROP TABLE audit"))
        connection.execute(text("DELETE FROM alembic_version"))
    db.upgrade()
    assert db.read(lambda session: session.query(AuditRow).count()) == 0


def test_calendars_and_pools_of_earlier_versions_are_moved_once(url: str) -> None:
    db = Database(url)
    with db.engine.connect() as connection:
        config = upgrade._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.commit()
    document = '{"name":"a","limit":3}'
    rows = [
        f"INSERT INTO pools VALUES ('a', 2, '{document}', 5000, 'ann')",
        f"INSERT INTO calendars VALUES ('a', 4, '{document}', 6000, 'bob')",
        f"INSERT INTO pool_versions VALUES ('a', 1, 's1', 'create', '{document}', 'ann', 4000)",
        f"INSERT INTO pool_versions VALUES ('a', 2, 's2', 'update', '{document}', 'ann', 5000)",
        "INSERT INTO job_pools VALUES ('a', 'j1')",
        "INSERT INTO job_calendars VALUES ('a', 'j2')",
    ]
    with db.engine.begin() as connection:
        for row in rows:
            connection.exec_driver_sql(row)
    db.upgrade()
    with db.engine.begin() as connection:  # as if it had died between the copy and the drop
        copied = "SELECT name, revision, document, updated_at, updated_by FROM objects WHERE kind = 'pool'"
        connection.execute(text(f"CREATE TABLE pools AS {copied}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0007'"))
    db.upgrade()

    def look(session: Session) -> tuple[object, ...]:
        found = [(row.kind, row.revision, row.document["limit"], row.updated_at) for row in session.scalars(
            select(ObjectRow).order_by(ObjectRow.kind))]  # fmt: skip
        actions = session.scalars(select(ObjectVersionRow.action).order_by(ObjectVersionRow.revision)).all()
        return found, list(actions), objects.users(session, "pool", "a"), objects.users(session, "calendar", "a")

    moved = [("calendar", 4, 3, 6.0), ("pool", 2, 3, 5.0)]
    assert db.read(look) == (moved, ["create", "update"], ["j1"], ["j2"])
    db.close()


def test_a_newer_schema_is_refused(own_db: Database) -> None:
    db = own_db
    db.transaction(lambda session: session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(Halted, match="another version"):
        db.upgrade()


def test_names_differ_by_case_and_accent(db: Database) -> None:
    _nodes(db, "zoe", "Zoe", "zoë", "zoe\u0301")
    assert len(runs.nodes(db)) == 4


def test_audit_rows_are_only_added(db: Database) -> None:
    from crony.store import audit

    audit.record(db, "root", "test", "user", "root", {"a": 1})
    for change in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with (
            pytest.raises(Unavailable, match="only added")
            if db.url.get_backend_name() != "sqlite"
            else pytest.raises(Exception, match="only added")
        ):
            db.transaction(lambda session, change=change: session.execute(text(change)))
    assert [entry.actor for entry in audit.list_entries(db).items] == ["root"]


def test_a_deadlock_is_retried_as_a_whole(db: Database) -> None:
    """Two transactions lock two rows in opposite order; both must end up committed, once each."""
    _nodes(db, "a", "b")
    both_hold = threading.Barrier(2)
    tries = {"ab": 0, "ba": 0}

    def work(first: str, second: str) -> None:
        def put(session: Session) -> None:
            tries[first + second] += 1
            session.execute(update(NodeRow).where(NodeRow.name == first).values(capacity=NodeRow.capacity + 1))
            if sum(tries.values()) <= 2 and not db.sqlite:
                both_hold.wait(40)
            session.execute(update(NodeRow).where(NodeRow.name == second).values(capacity=NodeRow.capacity + 1))

        db.transaction(put)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work, "a", "b"), pool.submit(work, "b", "a")]:
            future.result(20)
    assert (_capacity(db, "a"), _capacity(db, "b")) == (3, 3)
    if not db.sqlite:
        assert sum(tries.values()) == 3  # one was the victim, and ran again from its start


def test_a_held_lock_ends_in_unavailable_or_success(db: Database) -> None:
    """1205 undoes one statement only: the transaction must be run again whole once the lock is free."""
    _nodes(db, "a", "b")
    held, release = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        session.execute(update(NodeRow).where(NodeRow.name == "b").values(capacity=10))
        held.set()
        release.wait(20)

    def bump(session: Session) -> None:
        session.execute(update(NodeRow).where(NodeRow.name == "a").values(capacity=NodeRow.capacity + 1))
        session.execute(update(NodeRow).where(NodeRow.name == "b").values(capacity=NodeRow.capacity + 1))

    impatient = Database(db.url.render_as_string(hide_password=False), timeout=2)
    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(db.transaction, hold, patience=60)
        assert held.wait(60)
        with pytest.raises(Unavailable):
            impatient.transaction(bump)
        assert (_capacity(db, "a"), _capacity(db, "b")) == (1, 1)
        waiting = pool.submit(db.transaction, bump, patience=30)
        release.set()
        holder.result(20)
        waiting.result(20)
    assert (_capacity(db, "a"), _capacity(db, "b")) == (2, 11)
    impatient.close()


def test_a_connection_killed_mid_transaction_is_made_good() -> None:
    server = shared_maria()
    db = Database(server.fresh())
    db.upgrade()
    _nodes(db, "a")
    killed = []

    def bump(session: Session) -> None:
        session.execute(update(NodeRow).where(NodeRow.name == "a").values(capacity=NodeRow.capacity + 1))
        if not killed:
            killed.append(session.scalar(text("SELECT CONNECTION_ID()")))
            server.root(f"KILL {killed[0]}")

    db.transaction(bump)
    assert _capacity(db, "a") == 2


def test_a_lost_commit_answer_is_harmless_to_the_archive() -> None:
    server = shared_maria()
    plain = server.fresh()
    Database(plain).upgrade()
    with Proxy(f"http://127.0.0.1:{server.port}") as proxy:
        db = Database(_through(plain, proxy))
        db.ping()
        proxy.lose_answer(b"COMMIT")
        archive.write(db, [outcome(1), outcome(2, 0, "skipped", reason="misfire")])
        assert proxy.lost == 1
    sure = Database(plain)
    assert [run.id for run in runs.list_runs(sure).items] == [outcome(1).run]
    assert len(skips.list_skips(sure).items) == 1


def test_a_lost_commit_without_time_for_another_try_is_unknown() -> None:
    server = shared_maria()
    plain = server.fresh()
    Database(plain).upgrade()
    with Proxy(f"http://127.0.0.1:{server.port}") as proxy:
        db = Database(_through(plain, proxy))
        db.ping()
        proxy.lose_answer(b"COMMIT")
        with pytest.raises(Unknown):
            db.transaction(lambda session: session.execute(text("UPDATE nodes SET capacity = 2")), patience=0)


def test_a_server_that_misbehaves() -> None:
    """Paused, read-only, not strict, closing idle connections, stopped: bounded waits, and a sentence each."""
    with MariaServer() as server:
        db = Database(server.fresh(), timeout=2)
        db.upgrade()
        server.pause()
        try:
            for _ in range(2):  # with a pooled connection, then without
                with within(3.5), pytest.raises(Unavailable):
                    db.read(lambda session: session.execute(text("SELECT 1")))
        finally:
            server.resume()
        until(lambda: _answers(db), 10, "the database answers again")
        _nodes(db, "a")

        server.root("SET GLOBAL read_only = 1")
        with within(4), pytest.raises(Unavailable, match="read-only"):
            db.transaction(lambda session: session.execute(text("UPDATE nodes SET capacity = 5")), patience=1)
        threading.Timer(0.3, server.root, ["SET GLOBAL read_only = 0"]).start()
        db.transaction(lambda session: session.execute(text("UPDATE nodes SET capacity = 7")))
        assert _capacity(db, "a") == 7

        server.root("SET GLOBAL sql_mode = ''")
        lax = Database(db.url.render_as_string(hide_password=False))
        with pytest.raises(Unavailable, match="STRICT_TRANS_TABLES"):
            lax.ping()

        server.root("SET GLOBAL sql_mode = DEFAULT", "SET GLOBAL wait_timeout = 1")
        idle = Database(db.url.render_as_string(hide_password=False))
        idle.ping()
        until(
            lambda: (
                server.root("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'crony' AND TIME < 1")[0][
                    0
                ]
                == 0
            ),
            10,
        )
        idle.ping()  # its connection was closed by the server meanwhile

        server.stop()
        with within(3.5), pytest.raises(Unavailable):
            db.transaction(lambda session: session.execute(text("UPDATE nodes SET capacity = 9")))


def _answers(db: Database) -> bool:
    try:
        return db.ping() >= 0
    except Unavailable:
        return False


def test_a_sqlite_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "crony.db"
    path.touch(0o644)
    db = Database(f"sqlite:///{path}")
    db.upgrade()
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_sqlite_readers_do_not_wait_for_writers(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'crony.db'}")
    db.upgrade()
    writing, release = threading.Event(), threading.Event()

    def write(session: Session) -> None:
        session.execute(text("DELETE FROM nodes"))
        writing.set()
        release.wait(60)

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(db.transaction, write)
        assert writing.wait(40)
        assert runs.nodes(db) == []
        release.set()
        busy.result(40)


@pytest.mark.parametrize(
    "bad",
    ["", "nonsense", "postgresql://u@h/d", "sqlite://", "sqlite:///:memory:", "mysql+mysqldb://u@h/d", "oracle://x"],
)
def test_urls_that_cannot_work_are_refused(bad: str) -> None:
    with pytest.raises(Invalid) as refused:
        Database(bad)
    assert refused.value.hint


def test_passwords_do_not_show() -> None:
    assert "secret" not in repr(Database("mysql://crony:secret@127.0.0.1:1/crony"))
