"""`crony schedule …`: what a schedule says, without a server."""

from __future__ import annotations

import os
from typing import Any

import click

from crony.cli import show
from crony.cli.show import output_option


@click.group()
def schedule() -> None:
    """Schedules: explain."""


@schedule.command()
@click.argument("text")
@click.option("--dialect", metavar="DIALECT", help="cron (default), cron6 (seconds first) or quartz.")
@click.option("--tz", "--timezone", "timezone", metavar="ZONE", help="Such as Asia/Shanghai (default UTC).")
@click.option("--dst", metavar="RULE", help="once, elapsed or both: when clocks change.")
@click.option("-n", "n", type=click.IntRange(1, 100), default=10, show_default=True, help="So many fires.")
@click.option("--after", metavar="TIME", help="Fires after this (RFC 3339 with offset); default now.")
@click.option("--job", metavar="ID", default="", help="Id of a job: `H` as that job has it.")
@click.option("--lang", type=click.Choice(["en", "zh"]), help="Language of the words; default by LC_ALL or LANG.")
@output_option
def explain(text: str, n: int, after: str | None, job: str, lang: str | None, form: str, **given: str | None) -> None:
    """Say in words what cron TEXT means, its next fires with clock changes, and likely mistakes. Needs no server."""
    from crony.domain.instants import parse_instant
    from crony.web import explaining

    lang = lang or ("zh" if (os.environ.get("LC_ALL") or os.environ.get("LANG") or "").startswith("zh") else "en")
    document = {"schedule": {"cron": text, **{name: value for name, value in given.items() if value}}}
    start = None if after is None else parse_instant(after, "after")[0]
    found = explaining.explain(document, n, start, lang, job)
    if form == "json":
        return show.data(found)
    click.echo(show.plain(found["words"][lang]))
    if found["example"]:
        show.hint(
            "H is an example here: once saved a job gets its own time, for good (--job shows that of a saved one)"
        )
    if found["fires"]:
        click.echo()
    show.table(
        ("LOCAL", "DAY", "AT", "CLOCKS"),
        [(fire["local"], _day(fire, lang), fire["at"], _marks(fire)) for fire in found["fires"]],
        empty="it will not fire again",
    )
    for warning in found["warnings"]:
        show.hint(f"warning: {warning['problem']}. {warning['hint']}")


def _day(fire: dict[str, Any], lang: str) -> str:
    from crony.web.i18n import translator

    return translator(lang)(fire["weekday"])


def _marks(fire: dict[str, Any]) -> str:
    return ", ".join(mark["words"] for mark in fire["marks"])
