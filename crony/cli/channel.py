"""`crony channel …` and `crony alert-rule …`: where alerts can be sent, and which go where."""

from __future__ import annotations

from typing import Any

import click
import yaml

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.documents import read_documents
from crony.cli.show import output_option
from crony.errors import Invalid

FILE = "In YAML or JSON; - is standard input."


@click.group()
def channel() -> None:
    """Channels of alerts: list, get, set, delete, test."""


@channel.command("list")
@api_option
@output_option
def list_(api: Api, form: str) -> None:
    """List channels, whether they work, and how many jobs name each."""
    found = api.get("channels")["items"]
    if form == "json":
        return show.data(found)
    show.table(
        ("NAME", "KIND", "JOBS", "LAST SENT", "STATE", "DESCRIPTION"),
        [
            (
                row["name"],
                row["kind"],
                len(row["jobs"]),
                show.moment(row["sent_at"]) if row["sent_at"] else "",
                "not known" if row["failing"] is None else row["failing"] or "works",
                str(row["document"].get("description") or "").partition("\n")[0],
            )
            for row in found
        ],
        empty="no channels",
    )


@channel.command()
@click.argument("name")
@api_option
@output_option
def get(name: str, api: Api, form: str) -> None:
    """Show one channel as YAML, its secrets hidden."""
    _show(api.get(f"channels/{segment(name)}"), form)


@channel.command("set")
@click.argument("name")
@click.option("-f", "--file", "file", required=True, metavar="FILE", help=FILE)
@click.option("--ask", multiple=True, metavar="FIELD", help="Ask for this secret instead of reading it from the file.")
@api_option
@output_option
def set_(name: str, file: str, ask: tuple[str, ...], api: Api, form: str) -> None:
    """Create or replace a channel. A secret that is left out or hidden stays as it is.

    Secrets are never arguments: others would see them.
    """
    document = _document(file, name)
    for field in ask:
        document[field] = click.prompt(field, hide_input=True, err=True)
    _saved(api.call("PUT", f"channels/{segment(name)}", body=document), form)


@channel.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@api_option
def delete(names: tuple[str, ...], api: Api) -> None:
    """Delete channels that neither jobs nor alert rules name."""
    for name in names:
        api.call("DELETE", f"channels/{segment(name)}")
        click.echo(f"deleted {show.plain(name)}")


@channel.command()
@click.argument("name")
@click.option("--to", metavar="ADDRESS", help="Send it to this address; for channels of e-mail.")
@api_option
@output_option
def test(name: str, to: str | None, api: Api, form: str) -> None:
    """Send a test alert by a channel at once, and say what the provider answered."""
    found = api.call("POST", f"channels/{segment(name)}:test", body={} if to is None else {"to": to})
    if form == "json":
        return show.data(found)
    click.echo(f"sent: {show.plain(found['answer'])}")


@click.group("alert-rule")
def alert_rule() -> None:
    """Alert rules: list, get, set, delete."""


@alert_rule.command("list")
@api_option
@output_option
def list_rules(api: Api, form: str) -> None:
    """List alert rules: on what, of which jobs, to whom."""
    found = api.get("alert-rules")["items"]
    if form == "json":
        return show.data(found)
    show.table(
        ("NAME", "ON", "JOBS", "TO", "DESCRIPTION"),
        [
            (
                row["name"],
                ", ".join(row["document"]["on"]),
                ", ".join(row["document"]["jobs"]) or "all",
                ", ".join(row["document"]["to"]),
                str(row["document"].get("description") or "").partition("\n")[0],
            )
            for row in found
        ],
        empty="no alert rules",
    )


@alert_rule.command("get")
@click.argument("name")
@api_option
@output_option
def get_rule(name: str, api: Api, form: str) -> None:
    """Show one alert rule as YAML."""
    _show(api.get(f"alert-rules/{segment(name)}"), form)


@alert_rule.command("set")
@click.argument("name")
@click.option("-f", "--file", "file", required=True, metavar="FILE", help=FILE)
@api_option
@output_option
def set_rule(name: str, file: str, api: Api, form: str) -> None:
    """Create or replace an alert rule."""
    _saved(api.call("PUT", f"alert-rules/{segment(name)}", body=_document(file, name)), form)


@alert_rule.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@api_option
def delete_rules(names: tuple[str, ...], api: Api) -> None:
    """Delete alert rules."""
    for name in names:
        api.call("DELETE", f"alert-rules/{segment(name)}")
        click.echo(f"deleted {show.plain(name)}")


def _document(file: str, name: str) -> dict[str, Any]:
    found = list(read_documents(file))
    if len(found) != 1:
        raise Invalid("file", f"has {len(found)} documents", hint="give one")
    if found[0].get("name", name) != name:
        raise Invalid("name", "is not the one of the command", hint="write the same name, or leave it out")
    return {**found[0], "name": name}


def _show(found: dict[str, Any], form: str) -> None:
    if form == "json":
        return show.data(found)
    click.echo(yaml.safe_dump(found["document"], sort_keys=False, allow_unicode=True).rstrip())


def _saved(found: dict[str, Any], form: str) -> None:
    if form == "json":
        return show.data(found)
    click.echo(f"saved {show.plain(found['name'])} as revision {found['revision']}")
    if not found["live"]:
        show.hint("  the centre has it when etcd is back")
