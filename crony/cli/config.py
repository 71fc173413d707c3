"""`crony config` and `crony version`: what this process is told, and what it is."""

from __future__ import annotations

import platform
from typing import Any

import click

from crony import __version__, settings
from crony.cli import show
from crony.cli.show import output_option


@click.command()
@click.option("--changed", is_flag=True, help="Only those that differ from their default.")
@output_option
def config(changed: bool, form: str) -> None:
    """List every setting: its variable, its value here, what it is about. Secrets are never shown."""
    given = settings.load()
    rows = []
    for variable, about, default, secret in settings.variables():
        value = getattr(given, variable.removeprefix("CRONY_").lower())
        if changed and value == default:
            continue
        rows.append(
            {
                "variable": variable,
                "value": ("(set)" if value else "") if secret else _text(value),
                "default": _text(default),
                "about": about,
                "secret": secret,
            }
        )
    if form == "json":
        return show.data(rows)
    show.table(
        ("VARIABLE", "VALUE", "ABOUT"),
        [(row["variable"], row["value"], row["about"]) for row in rows],
        empty="everything is at its default",
    )
    show.hint("each is an environment variable; secrets can also come from a file: CRONY_…_FILE")


@click.command()
@output_option
def version(form: str) -> None:
    """Print the version."""
    facts = {"crony": __version__, "python": platform.python_version()}
    if form == "json":
        return show.data(facts)
    click.echo(f"crony {facts['crony']} (Python {facts['python']})")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join("=".join(item) if isinstance(item, tuple) else str(item) for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
