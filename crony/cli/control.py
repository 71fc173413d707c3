"""`crony stop`, `crony go`: the stop switch of the whole platform."""

from __future__ import annotations

import click

from crony.cli import show
from crony.cli.api import Api, api_option
from crony.cli.show import output_option


@click.command()
@click.option("--reason", default="", metavar="TEXT", help="Why; shown on every page of the console.")
@api_option
@output_option
def stop(reason: str, api: Api, form: str) -> None:
    """Hand out no work any more, on the whole platform; what runs goes on. `crony go` ends it."""
    _turn(api, form, {"stop": True, "reason": reason}, "stopped: nothing is handed out until `crony go`")


@click.command()
@click.option("--reason", default="", metavar="TEXT", help="Why, for the audit.")
@api_option
@output_option
def go(reason: str, api: Api, form: str) -> None:
    """Hand out work again after `crony stop`; what was due meanwhile follows each job's misfire policy."""
    _turn(api, form, {"stop": False, "reason": reason}, "going: work is handed out")


def _turn(api: Api, form: str, body: dict[str, object], words: str) -> None:
    answer = api.call("PUT", "control", body=body)
    if form == "json":
        return show.data(answer)
    click.echo(words)
