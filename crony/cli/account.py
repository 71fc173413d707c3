"""`crony user …` and `crony token …`: the first way in, hence on the database (CRONY_DATABASE_URL), not on the API."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from crony.cli import here, show
from crony.cli.db import open_database
from crony.cli.show import output_option


@click.group()
def user() -> None:
    """People: a one-time sign-in link."""


@user.command()
@click.argument("name", required=False)
@click.option("--url", metavar="URL", help="Address under which people reach the web (default: CRONY_API).")
def link(name: str | None, url: str | None) -> None:
    """Print a link that works once: for the user NAME to sign in, without NAME to make the first user."""
    from crony.store.signin import one_time_link

    given = here.load()
    base = url or given.api or f"http://127.0.0.1:{given.web_port}"
    database = open_database()
    database.upgrade()
    click.echo(one_time_link(database, base, user=name, actor="crony user link"))


@click.group()
def token() -> None:
    """API tokens for machines: create, list, revoke."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["viewer", "operator", "admin", "node", "service"]),
    required=True,
    help="What it may do: look, run and cancel, everything, be a node, register a service.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="How long it works (default: until revoked).")
@output_option
def create(name: str, scope: str, days: int | None, form: str) -> None:
    """Make a token and print it; it is shown this once. A node needs the scope `node`.

    A service needs the scope `service`, and the token its name: `billing`, or `billing/anything`.
    """
    from crony.store.accounts import create_token

    secret, view = create_token(
        open_database(), name, scope, actor="crony token create", lasts=None if days is None else days * 86400.0
    )
    if form == "json":
        return show.data({"id": view.id, "name": view.name, "scope": view.scope, "token": secret})
    click.echo(secret)
    show.hint(f"id {view.id}; CRONY_TOKEN or CRONY_TOKEN_FILE takes it")


@token.command("list")
@output_option
def list_(form: str) -> None:
    """List tokens; their secrets are kept nowhere."""
    from crony.store.accounts import tokens

    rows: list[dict[str, object]] = [
        {
            "id": view.id,
            "name": view.name,
            "scope": view.scope,
            "begins": view.hint,
            "created_at": _time(view.created_at),
            "used_at": _time(view.used_at),
            "ends_at": _time(view.ends_at),
            "revoked": view.revoked_at is not None,
        }
        for view in tokens(open_database())
    ]
    if form == "json":
        return show.data(rows)
    show.table(
        ("ID", "NAME", "SCOPE", "BEGINS", "USED", "STATE"),
        [
            (row["id"], row["name"], row["scope"], row["begins"], _away(row), "revoked" if row["revoked"] else "ok")
            for row in rows
        ],
        empty="no tokens",
    )


@token.command()
@click.argument("ident", metavar="ID")
def revoke(ident: str) -> None:
    """End a token; what it was given to is refused from now on."""
    from crony.store.accounts import revoke_token

    revoke_token(open_database(), ident, actor="crony token revoke")
    click.echo(f"revoked {show.plain(ident)}")


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _away(row: dict[str, object]) -> str:
    return show.away(str(row["used_at"])) if row["used_at"] else "never"
