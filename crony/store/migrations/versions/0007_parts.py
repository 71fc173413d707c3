"""Runs in parts: which run a part belongs to, which one it is, and how many there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Each step unless it is made: on MySQL a killed upgrade leaves those it made."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("runs")}
    for column in (
        sa.Column("parent_id", sa.String(128), nullable=True),
        sa.Column("part", sa.Integer(), nullable=True),
        sa.Column("parts", sa.Integer(), nullable=True),
    ):
        if column.name not in known:
            op.add_column("runs", column)
    present = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("runs")}
    if "ix_runs_parent" not in present:
        op.create_index("ix_runs_parent", "runs", ["parent_id", "part"])
