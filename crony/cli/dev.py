"""`crony dev`: all of Crony on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from crony import settings


@click.command()
@click.option("--demo", is_flag=True, help="With jobs to look at: a real crontab made harmless, and some lively ones.")
@click.option(
    "--data-dir", type=Path, default=Path(".crony"), show_default=True, metavar="DIR", help="Where everything is kept."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the web (default 8400; when taken, another one).")
@click.option(
    "--exit-after",
    type=click.FloatRange(1, 86400),
    metavar="SECONDS",
    help="Stop by itself, count every fire, and print the figures as a last line of JSON.",
)
@click.option(
    "--pool", type=click.Choice(["threads", "prefork"]), default="threads", show_default=True, help="Of the node."
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Runs at a time.")
def dev(demo: bool, data_dir: Path, port: int | None, exit_after: float | None, pool: str, concurrency: int) -> int:
    """Start all of Crony on this machine: etcd, a scheduling centre, a node, the web, on SQLite.

    For trying and developing, not for production: everything listens on this machine only.
    """
    from crony.dev import supervisor
    from crony.dev.roles import Options

    given = settings.load()
    options = Options(data_dir, port or given.web_port, demo, exit_after, pool, concurrency)
    return supervisor.run(options, given)
