"""`crony calendar …`: the days that schedules keep to."""

from __future__ import annotations

import click
import yaml

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.documents import read_documents
from crony.cli.show import output_option
from crony.errors import Invalid


@click.group()
def calendar() -> None:
    """Calendars: list, show, apply, delete."""


@calendar.command("list")
@api_option
@output_option
def list_(api: Api, form: str) -> None:
    """List calendars with the number of jobs that keep to each."""
    found = api.get("calendars")["items"]
    if form == "json":
        return show.data(found)
    show.table(
        ("NAME", "REVISION", "JOBS", "CHANGED", "DESCRIPTION"),
        [
            (
                row["name"],
                row["revision"],
                len(row["jobs"]),
                show.away(row["updated_at"]),
                str(row["document"].get("description") or "").partition("\n")[0],
            )
            for row in found
        ],
        empty="no calendars",
    )


@calendar.command("show")
@click.argument("name")
@api_option
@output_option
def show_(name: str, api: Api, form: str) -> None:
    """Show one calendar: its jobs, then its document as YAML."""
    found = api.get(f"calendars/{segment(name)}")
    if form == "json":
        return show.data(found)
    show.facts([("name", found["name"]), ("revision", found["revision"]), ("jobs", ", ".join(found["jobs"]) or "none")])
    click.echo()
    click.echo(yaml.safe_dump(found["document"], sort_keys=False, allow_unicode=True).rstrip())


@calendar.command()
@click.option(
    "-f", "--file", "file", required=True, metavar="FILE", help="Calendars in YAML or JSON; - is standard input."
)
@api_option
@output_option
def apply(file: str, api: Api, form: str) -> None:
    """Create or replace the calendars of a file; jobs that keep to them follow at once."""
    made = []
    for document in read_documents(file):
        if not isinstance(document.get("name"), str) or not document["name"]:
            raise Invalid("name", "is missing", hint="every calendar has a name")
        found = api.call("PUT", f"calendars/{segment(document['name'])}", body=document)
        made.append(found)
        if form != "json":
            jobs = len(found["jobs"])
            click.echo(f"saved {show.plain(found['name'])} as revision {found['revision']}; {jobs} jobs keep to it")
            if found["waiting"]:
                show.hint(f"  {len(found['waiting'])} of them follow when etcd is back")
            for warning in found.get("warnings", ()):
                show.hint(f"  warning: {show.plain(warning['problem'])}. {show.plain(warning['hint'])}")
    if form == "json":
        show.data(made)


@calendar.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@api_option
def delete(names: tuple[str, ...], api: Api) -> None:
    """Delete calendars that no job keeps to."""
    for name in names:
        api.call("DELETE", f"calendars/{segment(name)}")
        click.echo(f"deleted {show.plain(name)}")
