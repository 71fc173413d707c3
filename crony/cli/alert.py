"""`crony alert …`: what people must know."""

from __future__ import annotations

from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, items
from crony.cli.show import output_option


@click.group()
def alert() -> None:
    """Alerts: list."""


@alert.command("list")
@click.option(
    "--kind",
    metavar="KIND",
    help="Such as run_failed, run_held, job_paused, job_held, node_lost, leader_changed or queue_age.",
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
            ("AT", "KIND", "JOB", "RUN", "NODE", "REASON"),
            [
                (
                    show.moment(row.get("at")),
                    row["kind"],
                    row.get("job_name") or row.get("job"),
                    row.get("run"),
                    row.get("node"),
                    _reason(row),
                )
                for row in found
            ],
            empty="no alerts",
        )


def _reason(row: dict[str, Any]) -> str:
    line = show.plain(row.get("reason"))
    line = line if len(line) <= 80 else line[:79] + "…"
    return f"{row['times']} alerts: {line}" if row.get("times", 1) > 1 else line
