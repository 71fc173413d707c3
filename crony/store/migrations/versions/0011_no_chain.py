"""Runs: whether nothing was to follow, so that a recovery does not make up for what was not wanted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Unless it is made: on MySQL a killed upgrade leaves what it made."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("runs")}
    if "no_chain" not in known:
        op.add_column("runs", sa.Column("no_chain", sa.Boolean(), nullable=True))
