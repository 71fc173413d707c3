"""What the callee of an asynchronous run said: hashes of its secret and report, and how much output is its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Each step unless it is made. With defaults: a web or centre of the version before may still write."""
    _column("attempts", sa.Column("secret", sa.String(64), nullable=False, server_default=""))
    _column("attempts", sa.Column("report", sa.String(64), nullable=False, server_default=""))
    _column("outputs", sa.Column("told", sa.BigInteger(), nullable=False, server_default="0"))


def _column(table: str, column: sa.Column[object]) -> None:
    if column.name not in {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)
