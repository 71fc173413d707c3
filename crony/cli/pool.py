"""`crony pool …`: limits that jobs share."""

from __future__ import annotations

from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.show import output_option
from crony.domain.pool import LARGEST


@click.group()
def pool() -> None:
    """Pools: set, list, get, delete."""


@pool.command("list")
@api_option
@output_option
def list_(api: Api, form: str) -> None:
    """List pools: how much of each is in use, and how many runs wait."""
    found = api.get("pools")["items"]
    if form == "json":
        return show.data(found)
    show.table(
        ("NAME", "IN USE", "LIMIT", "WAITING", "JOBS", "CHANGED", "DESCRIPTION"),
        [
            (
                row["name"],
                row["held"],
                row["limit"],
                row["waiting"],
                len(row["jobs"]),
                show.away(row["updated_at"]),
                str(row["description"]).partition("\n")[0],
            )
            for row in found
        ],
        empty="no pools",
    )


@pool.command()
@click.argument("name")
@api_option
@output_option
def get(name: str, api: Api, form: str) -> None:
    """Show one pool: who holds its slots, and who waits, the next one first."""
    found = api.get(f"pools/{segment(name)}")
    if form == "json":
        return show.data(found)
    show.facts(
        [
            ("name", found["name"]),
            ("limit", found["limit"]),
            ("description", found["description"]),
            ("revision", found["revision"]),
            ("jobs", ", ".join(found["jobs"]) or "none"),
        ]
    )
    click.echo()
    show.table(
        ("SLOT", "RUN", "JOB", "STATE", "NODE", "SINCE"),
        [
            (row["slot"], row["run"], row["job_name"], row["state"], row["node"], _since(row))
            for row in found["holders"]
        ],
        empty="nobody holds a slot",
    )
    click.echo()
    show.table(
        ("NEXT", "RUN", "JOB", "PRIORITY", "WAITING SINCE"),
        [
            (place, row["run"], row["job_name"], row["priority"], _since(row))
            for place, row in enumerate(found["line"], 1)
        ],
        empty="nobody waits for a slot",
    )


@pool.command("set")
@click.argument("name")
@click.option("--limit", type=click.IntRange(0, LARGEST), required=True, help="So many runs at a time; 0: none starts.")
@click.option("--description", metavar="TEXT", help="For people; kept as it is when left out.")
@api_option
@output_option
def set_(name: str, limit: int, description: str | None, api: Api, form: str) -> None:
    """Create a pool, or change its limit. What runs goes on; a lower limit only lets nothing new start."""
    document: dict[str, Any] = {"limit": limit, "description": description}
    if description is None:
        before = next((row for row in api.get("pools")["items"] if row["name"] == name), None)
        document["description"] = before["description"] if before else ""
    found = api.call("PUT", f"pools/{segment(name)}", body=document)
    if form == "json":
        return show.data(found)
    click.echo(f"saved {show.plain(name)} as revision {found['revision']}: {found['limit']} at a time")
    if not found["live"]:
        show.hint("  leaders keep to it when etcd is back")


@pool.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@api_option
def delete(names: tuple[str, ...], api: Api) -> None:
    """Delete pools that no job names."""
    for name in names:
        api.call("DELETE", f"pools/{segment(name)}")
        click.echo(f"deleted {show.plain(name)}")


def _since(row: dict[str, Any]) -> str:
    return show.moment(row["since_at"]) if row.get("since_at") else ""
