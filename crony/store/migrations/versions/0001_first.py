"""The first schema: catalogue, archive, output, accounts, audit."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError

revision = "0001"
down_revision = None

LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
LONG_BYTES = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


def _table(name: str, *items: sa.schema.SchemaItem) -> None:
    """The table and its indexes, each unless it is there: on MySQL a killed upgrade leaves the steps it made."""
    columns = [item for item in items if not isinstance(item, sa.Index)]
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(name):
        op.create_table(
            name,
            *columns,
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_row_format="DYNAMIC",
        )
    present = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(name)}
    for index in items:
        if isinstance(index, sa.Index) and index.name not in present:
            op.create_index(index.name, name, list(index.expressions))


def _only_added() -> None:
    """The audit table refuses changes, where the server lets us say so (MySQL may ask for a right we lack)."""
    for verb in ("update", "delete"):
        name, when = f"audit_no_{verb}", f"BEFORE {verb.upper()} ON audit FOR EACH ROW"
        if op.get_bind().dialect.name == "sqlite":
            op.execute(
                f"CREATE TRIGGER IF NOT EXISTS {name} {when} "
                "BEGIN SELECT RAISE(ABORT, 'audit rows are only added'); END"
            )
            continue
        try:
            op.execute(f"DROP TRIGGER IF EXISTS {name}")
            op.execute(
                f"CREATE TRIGGER {name} {when} SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit rows are only added'"
            )
        except DBAPIError as error:
            logging.getLogger("crony.store").warning("the audit table is not guarded by a trigger: %s", error.orig)


def upgrade() -> None:
    """Create every table."""
    _table(
        "jobs",
        sa.Column("id", sa.String(40), primary_key=True, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("live_name", sa.String(255), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("document", LONG_TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.String(255), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.UniqueConstraint("live_name", name="uq_jobs_live_name"),
        sa.Index("ix_jobs_deleted", "deleted_at"),
        sa.Index("ix_jobs_name", "name", "generation"),
    )
    _table(
        "job_versions",
        sa.Column("job_id", sa.String(40), primary_key=True, nullable=False),
        sa.Column("revision", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("save", sa.String(40), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("document", LONG_TEXT, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    _table(
        "runs",
        sa.Column("id", sa.String(128), primary_key=True, nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("job_name", sa.String(255), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("trigger_kind", sa.String(20), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.BigInteger(), nullable=True),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("fire_at", sa.BigInteger(), nullable=True),
        sa.Column("requested_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("sort_at", sa.BigInteger(), nullable=False),
        sa.Column("result", LONG_TEXT, nullable=True),
        sa.Column("params", LONG_TEXT, nullable=True),
        sa.Column("why", sa.String(1000), nullable=False),
        sa.Column("idem", sa.String(255), nullable=False),
        sa.Index("ix_runs_job", "job_id", "sort_at", "id"),
        sa.Index("ix_runs_node", "node", "sort_at", "id"),
        sa.Index("ix_runs_outcome", "outcome", "sort_at", "id"),
        sa.Index("ix_runs_sort", "sort_at", "id"),
    )
    _table(
        "attempts",
        sa.Column("run_id", sa.String(128), primary_key=True, nullable=False),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("detail", sa.String(1000), nullable=False),
        sa.Column("code", sa.BigInteger(), nullable=True),
        sa.Column("node", sa.String(255), nullable=False),
        sa.Column("incarnation", sa.String(40), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("result", LONG_TEXT, nullable=True),
        sa.Column("why", sa.String(1000), nullable=False),
    )
    _table(
        "skips",
        sa.Column("run_id", sa.String(128), primary_key=True, nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("job_name", sa.String(255), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("trigger_kind", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(40), nullable=False),
        sa.Column("detail", sa.String(1000), nullable=False),
        sa.Column("fire_at", sa.BigInteger(), nullable=True),
        sa.Column("to_at", sa.BigInteger(), nullable=True),
        sa.Column("fires", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Index("ix_skips_job", "job_id", "decided_at", "run_id"),
        sa.Index("ix_skips_sort", "decided_at", "run_id"),
    )
    _table(
        "archive_rejects",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("run_id", sa.String(128), nullable=False),
        sa.Column("error", sa.String(1000), nullable=False),
        sa.Column("record", LONG_TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    _table(
        "outputs",
        sa.Column("run_id", sa.String(128), primary_key=True, nullable=False),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Index("ix_outputs_updated", "updated_at"),
    )
    _table(
        "output_chunks",
        sa.Column("run_id", sa.String(128), primary_key=True, nullable=False),
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("start", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("data", LONG_BYTES, nullable=False),
    )
    _table(
        "nodes",
        sa.Column("name", sa.String(255), primary_key=True, nullable=False),
        sa.Column("incarnation", sa.String(40), nullable=False),
        sa.Column("hostname", sa.String(255), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column("labels", LONG_TEXT, nullable=False),
        sa.Column("kinds", LONG_TEXT, nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
    )
    _table(
        "users",
        sa.Column("id", sa.String(40), primary_key=True, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("name_key", sa.String(255), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("password", sa.String(255), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("password_at", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.UniqueConstraint("name_key", name="uq_users_key"),
    )
    _table(
        "web_sessions",
        sa.Column("hash", sa.String(64), primary_key=True, nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("agent", sa.String(255), nullable=False),
        sa.Index("ix_web_sessions_ends", "ends_at"),
        sa.Index("ix_web_sessions_user", "user_id"),
    )
    _table(
        "login_links",
        sa.Column("hash", sa.String(64), primary_key=True, nullable=False),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("used_by", sa.String(40), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.Index("ix_login_links_ends", "ends_at"),
    )
    _table(
        "login_tries",
        sa.Column("try_key", sa.String(64), primary_key=True, nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Index("ix_login_tries_last", "last_at"),
    )
    _table(
        "tokens",
        sa.Column("id", sa.String(40), primary_key=True, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("hint", sa.String(20), nullable=False),
        sa.Column("scope", sa.String(20), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
    )
    _table(
        "audit",
        sa.Column("id", sa.String(40), primary_key=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("target_kind", sa.String(20), nullable=False),
        sa.Column("target_id", sa.String(255), nullable=False),
        sa.Column("detail", LONG_TEXT, nullable=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Index("ix_audit_at", "at", "id"),
        sa.Index("ix_audit_target", "target_kind", "target_id", "at"),
    )
    _only_added()
