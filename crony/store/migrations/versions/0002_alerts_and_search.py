"""Alerts, and the text that a search for jobs looks at (filled in for the jobs that are there)."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from crony.store.search import searchable

revision = "0002"
down_revision = "0001"

LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
BATCH = 200


def upgrade() -> None:
    """Each step unless it is made: on MySQL a killed upgrade leaves the steps it made."""
    _alerts()
    if "search" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}:
        # Nullable: a web of the version before may still save a job while this one starts.
        op.add_column("jobs", sa.Column("search", LONG_TEXT, nullable=True))
    _fill_search()


def _alerts() -> None:
    if not sa.inspect(op.get_bind()).has_table("alerts"):
        op.create_table(
            "alerts",
            sa.Column("id", sa.String(160), primary_key=True, nullable=False),
            sa.Column("kind", sa.String(20), nullable=False),
            sa.Column("at", sa.BigInteger(), nullable=False),
            sa.Column("job_id", sa.String(40), nullable=False),
            sa.Column("job_name", sa.String(255), nullable=False),
            sa.Column("run_id", sa.String(128), nullable=False),
            sa.Column("attempt", sa.BigInteger(), nullable=False),
            sa.Column("outcome", sa.String(20), nullable=False),
            sa.Column("node", sa.String(255), nullable=False),
            sa.Column("reason", sa.String(1000), nullable=False),
            sa.Column("times", sa.BigInteger(), nullable=False),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_row_format="DYNAMIC",
        )
    present = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("alerts")}
    for name, columns in (
        ("ix_alerts_job", ["job_id", "at", "id"]),
        ("ix_alerts_kind", ["kind", "at", "id"]),
        ("ix_alerts_node", ["node", "at", "id"]),
        ("ix_alerts_sort", ["at", "id"]),
    ):
        if name not in present:
            op.create_index(name, "alerts", columns)


def _fill_search() -> None:
    jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("document", sa.Text), sa.column("search", sa.Text))
    connection, last = op.get_bind(), ""
    while True:
        some = sa.select(jobs.c.id, jobs.c.document).where(jobs.c.search.is_(None), jobs.c.id > last)
        found = connection.execute(some.order_by(jobs.c.id).limit(BATCH)).all()
        if not found:
            return
        for ident, document in found:
            text = searchable(json.loads(document))
            connection.execute(sa.update(jobs).where(jobs.c.id == ident).values(search=text))
        last = found[-1][0]
