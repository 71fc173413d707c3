"""`crony db …`: the database behind CRONY_DATABASE_URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from crony.cli import here
from crony.errors import CronyError, Invalid

if TYPE_CHECKING:
    from crony.store.db import Database


@click.group()
def db() -> None:
    """The database: upgrade, check."""


@db.command()
def upgrade() -> None:
    """Bring the tables to this version; safe to repeat, and when several start it at once."""
    database = open_database()
    click.echo(f"the database is at revision {database.upgrade()}")


@db.command()
def check() -> None:
    """Say whether the database answers and its tables fit this version (exit code 1 when they do not)."""
    database = open_database()
    seconds = database.ping()
    has, needs = database.revision()
    click.echo(f"answers in {seconds * 1000:.1f} ms; revision {has or 'none'}, needed {needs}")
    if has != needs:
        raise CronyError("the tables are of another version", hint="crony db upgrade")


def open_database() -> Database:
    """The database of the settings. Raises `Invalid` when none is named."""
    from crony.store.db import Database

    given = here.load()
    if not given.database_url:
        raise Invalid(
            "CRONY_DATABASE_URL",
            "is not set",
            hint="sqlite:////var/lib/crony/crony.db or mysql+pymysql://user:…@host/crony",
        )
    return Database(given.database_url)
