"""`crony secret …`: values that jobs are given and nobody sees again."""

from __future__ import annotations

import sys
from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.show import output_option
from crony.errors import Invalid


@click.group()
def secret() -> None:
    """Secrets: set, list, delete, rotate."""


@secret.command("set")
@click.argument("name")
@click.option("--description", metavar="TEXT", help="For people; kept as it is when left out.")
@api_option
@output_option
def set_(name: str, description: str | None, api: Api, form: str) -> None:
    """Set a secret to what standard input holds, or to what is typed. Jobs have it from their next attempt on.

    One line break at the end of the input is not part of it. The value is never an argument: others would see it.
    """
    document: dict[str, Any] = {"value": _value()}
    if description is not None:
        document["description"] = description
    found = api.call("PUT", f"secrets/{segment(name)}", body=document)
    if form == "json":
        return show.data(found)
    click.echo(f"saved {show.plain(name)} as revision {found['revision']}")
    if not found["live"]:
        show.hint("  nodes have it when etcd is back")


@secret.command("list")
@api_option
@output_option
def list_(api: Api, form: str) -> None:
    """List secrets, without their values, with the key that each is encrypted with."""
    found = api.get("secrets")
    if form == "json":
        return show.data(found["items"])
    newest = found["keys"][0] if found["keys"] else ""
    show.table(
        ("NAME", "REVISION", "KEY", "JOBS", "CHANGED", "DESCRIPTION"),
        [
            (
                row["name"],
                row["revision"],
                row["key"] + ("" if row["key"] == newest else " (not the newest)"),
                len(row["jobs"]),
                show.away(row["updated_at"]),
                str(row["description"]).partition("\n")[0],
            )
            for row in found["items"]
        ],
        empty="no secrets",
    )


@secret.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@api_option
def delete(names: tuple[str, ...], api: Api) -> None:
    """Delete secrets that no job names."""
    for name in names:
        api.call("DELETE", f"secrets/{segment(name)}")
        click.echo(f"deleted {show.plain(name)}")


@secret.command()
@api_option
@output_option
def rotate(api: Api, form: str) -> None:
    """Encrypt everything with the first key of the web's CRONY_SECRET_KEY; after that the others can go."""
    found = api.call("POST", "secrets:rotate")
    if form == "json":
        show.data(found)
    else:
        click.echo(f"{len(found['renewed'])} encrypted anew, {found['kept']} had the newest key already")
        for name, why in found["failed"].items():
            show.hint(f"  {show.plain(name)} is left as it is: {show.plain(why)}")
    if found["failed"]:
        raise SystemExit(1)


def _value() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True))
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("value", "is not UTF-8 text", hint="encode it, in Base64 say") from None
    return text.removesuffix("\n").removesuffix("\r")
