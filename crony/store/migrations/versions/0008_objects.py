"""One set of tables for everything that jobs name: calendars and pools move into it, secrets and channels follow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"

LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
MOVED = {
    "calendar": ("calendars", "calendar_versions", "job_calendars"),
    "pool": ("pools", "pool_versions", "job_pools"),
}
"""The tables that are moved: objects, versions, and which jobs name them."""


def upgrade() -> None:
    """Each table unless it is made, each row unless it is there: on MySQL a killed upgrade leaves what it did."""
    _table(
        "objects",
        sa.Column("kind", sa.String(20), primary_key=True, nullable=False),
        sa.Column("name", sa.String(80), primary_key=True, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("document", LONG_TEXT, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.String(255), nullable=False),
    )
    _table(
        "object_versions",
        sa.Column("kind", sa.String(20), primary_key=True, nullable=False),
        sa.Column("name", sa.String(80), primary_key=True, nullable=False),
        sa.Column("revision", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("save", sa.String(40), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("document", LONG_TEXT, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    _table(
        "job_objects",
        sa.Column("kind", sa.String(20), primary_key=True, nullable=False),
        sa.Column("name", sa.String(80), primary_key=True, nullable=False),
        sa.Column("job_id", sa.String(40), primary_key=True, nullable=False),
    )
    present = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("job_objects")}
    if "ix_job_objects_job" not in present:
        op.create_index("ix_job_objects_job", "job_objects", ["job_id"])
    facts = ("revision", "document", "updated_at", "updated_by")
    for kind, (objects, versions, named) in MOVED.items():
        _move(kind, objects, "objects", {"name": "name"}, facts)
        _move(kind, versions, "object_versions", {"name": "name", "revision": "revision"},
              ("save", "action", "document", "actor", "at"))  # fmt: skip
        _move(kind, named, "job_objects", {"name": kind, "job_id": "job_id"}, ())


def _move(kind: str, old: str, new: str, keys: dict[str, str], facts: tuple[str, ...]) -> None:
    """Copy the rows that are not there yet, then drop the table they came from."""
    if not sa.inspect(op.get_bind()).has_table(old):
        return
    columns = {**keys, **{fact: fact for fact in facts}}
    source = sa.table(old, *(sa.column(name) for name in columns.values()))
    target = sa.table(new, sa.column("kind"), *(sa.column(name) for name in columns))
    there = target.alias("there")
    same = [there.c[name] == source.c[column] for name, column in keys.items()]
    missing = ~sa.exists().where(there.c.kind == kind, *same)
    rows = sa.select(sa.literal(kind), *(source.c[column] for column in columns.values())).where(missing)
    op.execute(sa.insert(target).from_select(["kind", *columns], rows))
    op.drop_table(old)


def _table(name: str, *columns: sa.Column[object]) -> None:
    if not sa.inspect(op.get_bind()).has_table(name):
        op.create_table(
            name,
            *columns,
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_row_format="DYNAMIC",
        )
