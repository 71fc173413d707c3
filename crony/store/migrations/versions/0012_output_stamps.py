"""Output: streams and times of its chunks, and whether they were deleted before their run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Each step unless it is made. A web of the version before may still write: stamps are missing then."""
    blob = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
    _column("output_chunks", sa.Column("stamps", blob, nullable=True))
    _column("outputs", sa.Column("removed", sa.Boolean(), nullable=False, server_default=sa.false()))


def _column(table: str, column: sa.Column[object]) -> None:
    if column.name not in {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)
