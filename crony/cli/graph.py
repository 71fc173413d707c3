"""`crony job graph`: which jobs run after each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.show import output_option


@click.command()
@click.argument("name")
@api_option
@output_option
def graph(name: str, api: Api, form: str) -> None:
    """Show which jobs run after each other, around one of them."""
    found = api.get(f"jobs/{segment(name)}/graph")
    if form == "json":
        return show.data(found)
    if not found["jobs"]:
        show.hint(f"{show.plain(found['name'])} runs after no job, and no job runs after it")
        return None
    for line in lines(found["jobs"], found["job"]):
        click.echo(show.plain(line))
    if found["more"]:
        show.hint("there are more jobs than can be shown")


def lines(jobs: Sequence[Mapping[str, Any]], here: str) -> Iterator[str]:
    """A tree: each job once, below the first of those that it runs after; the others are named beside it."""
    by_name = {str(row["name"]): row for row in jobs}
    below: dict[str, list[str]] = {}
    for row in jobs:
        parents = [parent for parent in row["after"] if parent in by_name]
        if parents:
            below.setdefault(parents[0], []).append(row["name"])
    told: set[str] = set()

    def branch(name: str, lead: str, joint: str, parent: str) -> Iterator[str]:
        told.add(name)
        yield f"{lead}{joint}{name}{_said(by_name[name], parent, here)}"
        lead += {"": "", "├─ ": "│  ", "└─ ": "   "}[joint]
        children = [child for child in below.get(name, ()) if child not in told]
        for child in children:
            yield from branch(child, lead, "└─ " if child == children[-1] else "├─ ", name)

    for row in jobs:
        if not row["after"]:
            yield from branch(row["name"], "", "", "")
    for name in by_name:  # those above them are not shown
        if name not in told:
            yield from branch(name, "", "", "")


def _said(row: Mapping[str, Any], parent: str, here: str) -> str:
    others = [other for other in row["after"] if other != parent]
    some = f" of {row['need']} of {len(row['after'])}" if len(row["after"]) > 1 else ""
    last = row.get("last_run") or {}
    said = [
        f"on {row['on']}{some}" if row.get("on") else "",
        f"also after {', '.join(others)}" if others else "",
        "" if row["enabled"] else "paused",
        f"last run {last['outcome']}" if last.get("outcome") else "",
    ]
    told = "; ".join(part for part in said if part)
    return (f"  ({told})" if told else "") + ("  <- this one" if row["id"] == here else "")
