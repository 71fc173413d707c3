"""`crony job backfill` and `crony backfill …`: a period of a job that is run because somebody wants it."""

from __future__ import annotations

from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.given import moment, pairs
from crony.cli.show import output_option


@click.group()
def backfill() -> None:
    """Backfills: list, get, cancel (start one with `crony job backfill`)."""


@backfill.command("list")
@click.option("--job", metavar="JOB", help="Only those of this job (name or id).")
@api_option
@output_option
def list_(job: str | None, api: Api, form: str) -> None:
    """List backfills under way, and those that ended within a week."""
    found = api.get("backfills", **({} if job is None else {"job": job}))["items"]
    if form == "json":
        return show.data(found)
    show.table(
        ("ID", "JOB", "STATE", "DONE", "FAILED", "LEFT", "TOTAL", "FROM", "TO"),
        [
            (row["id"], row["job_name"], row["state"], row["succeeded"], row["failed"], row["left"], row["total"],
             show.moment(row["from"]), show.moment(row["to"]))
            for row in found
        ],
        empty="no backfills",
    )  # fmt: skip


@backfill.command()
@click.argument("ident", metavar="ID")
@api_option
@output_option
def get(ident: str, api: Api, form: str) -> None:
    """Show one backfill and how far it is."""
    tell(api.get(f"backfills/{segment(ident)}"), form)


@backfill.command()
@click.argument("ident", metavar="ID")
@click.option("--running", is_flag=True, help="Also cancel those of its runs that are under way.")
@api_option
@output_option
def cancel(ident: str, running: bool, api: Api, form: str) -> None:
    """Start no more runs of a backfill; those under way go on, unless --running."""
    found = api.call("POST", f"backfills/{segment(ident)}:cancel", body={"running": running})
    if form == "json":
        return show.data(found)
    click.echo(f"stopping {show.plain(ident)}: {found['left']} of {found['total']} will not start")


@click.command("backfill")
@click.argument("name")
@click.option("--from", "start", required=True, metavar="TIME", help="From this moment on; without an offset here.")
@click.option("--to", "end", required=True, metavar="TIME", help="Before this moment, which has passed.")
@click.option("--dry-run", is_flag=True, help="Only say what would run.")
@click.option("--parallel", type=int, default=1, show_default=True, metavar="N", help="At most N runs at a time.")
@click.option(
    "--order", type=click.Choice(["oldest", "newest"]), default="oldest", show_default=True, help="Which come first."
)
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="Parameter; K:=JSON for other than text.")
@click.option("--no-chain", is_flag=True, help="Jobs that run after it do not follow its runs.")
@click.option("--idempotency-key", metavar="KEY", help="The same key again starts no second one.")
@api_option
@output_option
def ask(
    name: str,
    start: str,
    end: str,
    dry_run: bool,
    parallel: int,
    order: str,
    params: tuple[str, ...],
    no_chain: bool,
    idempotency_key: str | None,
    api: Api,
    form: str,
) -> None:
    """Run every instant of a period, whether it ran or not, each with its own time."""
    body: dict[str, Any] = {
        "from": moment(start),
        "to": moment(end),
        "dry_run": dry_run,
        "parallel": parallel,
        "order": order,
    }
    if no_chain:
        body["chain"] = False
    if params:
        body["params"] = pairs(params, "-p", typed=True)
    if idempotency_key is not None:
        body["idempotency_key"] = idempotency_key
    found = api.call("POST", f"jobs/{segment(name)}:backfill", body=body)
    if dry_run:
        return say_preview(found, form)
    if form == "json":
        return show.data(found)
    if not found["created"]:
        show.hint("this idempotency key already stands for a backfill: no second one was started")
    click.echo(found["id"])
    show.hint(f"{found['total']} instants; see how far it is with: crony backfill get {found['id']}")


def tell(found: dict[str, Any], form: str) -> None:
    """The facts of one backfill."""
    if form == "json":
        return show.data(found)
    show.facts(
        [
            ("id", found["id"]),
            ("job", found["job_name"]),
            ("state", found["state"]),
            ("because", found["reason"]),
            ("from", show.moment(found["from"])),
            ("to", show.moment(found["to"])),
            ("order", f"{found['order']} first, {found['parallel']} at a time"),
            ("done", f"{found['succeeded']} of {found['total']}"),
            ("failed", found["failed"]),
            ("cancelled", found["cancelled"] or None),
            ("running", found["running"]),
            ("left", found["left"]),
            ("next", found["next_at"] and show.moment(found["next_at"])),
            ("asked by", f"{found['by']}, {show.away(found['requested_at'])}"),
            ("stopped by", found["stopped_by"]),
            ("ended", found["ended_at"] and show.moment(found["ended_at"])),
        ]
    )


def say_preview(found: dict[str, Any], form: str) -> None:
    """What a backfill would run."""
    if form == "json":
        return show.data(found)
    for at in found["instants"]:
        click.echo(show.moment(at))
    if found["more"]:
        show.hint(f"… and {found['more']} more")
    show.hint(f"{found['count']} instants; nothing was started")
