"""Alerts: to whom each was sent, or why it was not."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Unless it is made: on MySQL a killed upgrade leaves what it made."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("alerts")}
    if "told" not in known:
        kind = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
        op.add_column("alerts", sa.Column("told", kind, nullable=True))
