"""How far etcd was seen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """The table, unless it is made: on MySQL a killed upgrade leaves the steps it made."""
    if sa.inspect(op.get_bind()).has_table("etcd_marks"):
        return
    op.create_table(
        "etcd_marks",
        sa.Column("namespace", sa.String(255), primary_key=True, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("nonce", sa.String(40), nullable=False),
        sa.Column("mark_revision", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("cluster", sa.String(40), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_row_format="DYNAMIC",
    )
