"""Chains: which jobs run after which, and of runs and skips the chain they are in and the run they follow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Each step unless it is made: on MySQL a killed upgrade leaves those it made."""
    _table(
        "job_parents",
        sa.Column("parent_id", sa.String(40), primary_key=True, nullable=False),
        sa.Column("job_id", sa.String(40), primary_key=True, nullable=False),
    )
    _index("job_parents", "ix_job_parents_job", "job_id")
    _table("chain_lock", sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False, nullable=False))
    for table in ("runs", "skips"):
        known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
        for name in ("chain_id", "cause_id"):
            if name not in known:
                op.add_column(table, sa.Column(name, sa.String(128), nullable=True))
        _index(table, f"ix_{table}_chain", "chain_id")


def _index(table: str, name: str, column: str) -> None:
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, [column])


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
