"""`crony node …`: the machines that work."""

from __future__ import annotations

from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.show import output_option

OWN = "own"


def _weight(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """0 to 1000, or None for `own`."""
    if value == OWN:
        return None
    chosen: int = click.IntRange(0, 1000)(value, parameter, context)
    return chosen


@click.group()
def node() -> None:
    """Nodes: list, weight, cordon, uncordon, drain, undrain, set."""


@node.command("list")
@api_option
@output_option
def list_(api: Api, form: str) -> None:
    """List nodes and their load."""
    found = api.get("nodes")["items"]
    if form == "json":
        show.data(found)
    else:
        show.table(
            ("NODE", "STATE", "RUNNING", "QUEUED", "CAPACITY", "WEIGHT", "RUNS", "LABELS", "VERSION", "SEEN"),
            [
                (
                    row.get("name"),
                    row.get("state"),
                    row.get("running"),
                    row.get("queued"),
                    row.get("capacity"),
                    row.get("weight"),
                    ",".join(row.get("kinds") or []),
                    ",".join(f"{key}={value}" for key, value in sorted((row.get("labels") or {}).items())),
                    row.get("version"),
                    show.away(row.get("seen_at")),
                )
                for row in found
            ],
            empty="no node has registered yet: start one with `crony worker`",
        )


@node.command("set")
@click.argument("name")
@click.option("--weight", type=click.IntRange(0, 1000), help="Share of the work.")
@click.option("--cordon/--uncordon", default=None, help="No new work / work again.")
@click.option("--drain/--no-drain", default=None, help="No new work, and unstarted work goes elsewhere.")
@api_option
@output_option
def set_(name: str, weight: int | None, cordon: bool | None, drain: bool | None, api: Api, form: str) -> None:
    """Change a node's share of the work, or take it out."""
    wanted = {"weight": weight, "cordoned": cordon, "drain": drain}
    body = {key: value for key, value in wanted.items() if value is not None}
    if not body:
        raise click.UsageError("Say what to change: --weight, --cordon, --uncordon, --drain or --no-drain.")
    answer = _change(api, name, body)
    if form == "json":
        return show.data(answer)
    click.echo(f"changed {show.plain(name)}: " + ", ".join(f"{key} {value}" for key, value in body.items()))


@node.command()
@click.argument("name")
@click.argument("weight", callback=_weight)
@api_option
@output_option
def weight(name: str, weight: int | None, api: Api, form: str) -> None:
    """Set a node's share of the work, from the next run on; WEIGHT is 0 to 1000, or `own`: what the node asks for."""
    answer = _change(api, name, {"weight": weight})
    if form == "json":
        return show.data(answer)
    click.echo(f"{show.plain(name)} has weight {answer['weight']} now")


def _change(api: Api, name: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = api.call("PATCH", f"nodes/{segment(name)}", body=body)
    return answer


def _switch(action: str, about: str, body: dict[str, Any]) -> click.Command:
    @click.command(action, help=about)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @api_option
    def switch(names: tuple[str, ...], api: Api) -> None:
        for name in names:
            answer = _change(api, name, body)
            click.echo(f"{show.plain(name)} is {show.colour(answer['state'])} now")

    return switch


node.add_command(
    _switch("cordon", "No new work for these nodes; what runs or waits there goes on.", {"cordoned": True})
)
node.add_command(_switch("uncordon", "New work for these nodes again.", {"cordoned": False}))
node.add_command(
    _switch("drain", "No new work, and unstarted work goes elsewhere; what runs goes on.", {"drain": True})
)
node.add_command(_switch("undrain", "End of a drain: work again.", {"drain": False}))
