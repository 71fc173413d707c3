"""`crony alert …`: what people must know."""

from __future__ import annotations

import threading
from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, items
from crony.cli.show import output_option
from crony.clock import SYSTEM


@click.group()
def alert() -> None:
    """Alerts: list, test."""


@alert.command("list")
@click.option(
    "--kind",
    metavar="KIND",
    help="Such as run_failed, run_held, job_paused, late, missed, too_long, node_lost, leader_changed or queue_age.",
)
@click.option("--job", metavar="NAME", help="Only about this job.")
@click.option("--node", metavar="NODE", help="Only about this node.")
@click.option("--since", metavar="TIME", help="Not before (RFC 3339 with offset).")
@click.option("--until", metavar="TIME", help="Before (RFC 3339 with offset).")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@api_option
@output_option
def list_(limit: int, api: Api, form: str, **filters: Any) -> None:
    """List alerts, newest first: runs that failed for good, nodes lost, another centre leading."""
    found = items(api, "alerts", limit=limit, form=form, **filters)
    if found is not None:
        show.table(
            ("AT", "KIND", "JOB", "RUN", "NODE", "SENT TO", "REASON"),
            [
                (
                    show.moment(row.get("at")),
                    row["kind"],
                    row.get("job_name") or row.get("job"),
                    row.get("run"),
                    row.get("node"),
                    ", ".join(_told(each) for each in row.get("told", ())),
                    _reason(row),
                )
                for row in found
            ],
            empty="no alerts",
        )


@alert.command()
@click.option("--to", "to", multiple=True, metavar="NAME", help="Channel or address; default all that the rules name.")
@click.option("--wait", type=click.FloatRange(0, 600), default=30.0, show_default=True, help="Seconds to wait.")
@api_option
@output_option
def test(to: tuple[str, ...], wait: float, api: Api, form: str) -> None:
    """Have the leader send a test alert as it sends every other, and say what became of it.

    A channel alone is tested by: crony channel test.
    """
    ident = api.call("POST", "alerts:test", body={"to": list(to)} if to else {})["id"]
    row = _await(api, ident, wait)
    if form == "json":
        show.data(row or {"id": ident})
    elif row is None:
        show.hint(f"nothing is known of {ident} after {wait:g} s: does a centre lead, and do the rules name anybody?")
    for each in (row or {}).get("told", ()) if form != "json" else ():
        click.echo(f"{show.plain(each['to'])}: {each['state'].replace('_', ' ')}: {show.plain(each['said'])}")
    if row is None or any(each["state"] != "sent" for each in row["told"]):
        raise SystemExit(1)


def _await(api: Api, ident: str, seconds: float) -> dict[str, Any] | None:
    """The alert, when it has reached everybody or was given up; None: not in time."""
    until = SYSTEM.monotonic() + seconds
    while True:
        found = [row for row in api.get("alerts?kind=test&limit=20")["items"] if row["id"] == ident and row["told"]]
        if found:
            return dict(found[0])
        if SYSTEM.monotonic() >= until:
            return None
        threading.Event().wait(0.5)


def _told(each: dict[str, Any]) -> str:
    return show.plain(each["to"]) + ("" if each["state"] == "sent" else f" ({each['state'].replace('_', ' ')})")


def _reason(row: dict[str, Any]) -> str:
    line = show.plain(row.get("reason"))
    line = line if len(line) <= 80 else line[:79] + "…"
    return f"{row['times']} alerts: {line}" if row.get("times", 1) > 1 else line
