"""Pools, their versions, and which jobs name them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"

LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Each table unless it is made: on MySQL a killed upgrade leaves the steps it made."""
    _table(
        "pools",
        sa.Column("name", sa.String(80), primary_key=True, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("document", LONG_TEXT, nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.String(255), nullable=False),
    )
    _table(
        "pool_versions",
        sa.Column("name", sa.String(80), primary_key=True, nullable=False),
        sa.Column("revision", sa.BigInteger(), primary_key=True, autoincrement=False, nullable=False),
        sa.Column("save", sa.String(40), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("document", LONG_TEXT, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    _table(
        "job_pools",
        sa.Column("pool", sa.String(80), primary_key=True, nullable=False),
        sa.Column("job_id", sa.String(40), primary_key=True, nullable=False),
    )
    present = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("job_pools")}
    if "ix_job_pools_job" not in present:
        op.create_index("ix_job_pools_job", "job_pools", ["job_id"])


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
