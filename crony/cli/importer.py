"""`crony import …`: jobs out of what was there before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option
from crony.cli.documents import read_text
from crony.cli.show import output_option
from crony.errors import Conflict, CronyError, Invalid


@click.group("import")
def importer() -> None:
    """Jobs from a crontab."""


@importer.command()
@click.argument("file")
@click.option("--system/--user", default=None, help="With a user column, as /etc/crontab / without (default: look).")
@click.option("--timezone", metavar="ZONE", help="Zone of lines without CRON_TZ (default: this machine's).")
@click.option("--dry-run", is_flag=True, help="Only say what would become of each line.")
@click.option("--strict", is_flag=True, help="Import nothing when a line cannot be taken (exit code 2).")
@api_option
@output_option
def crontab(
    file: str, system: bool | None, timezone: str | None, dry_run: bool, strict: bool, api: Api, form: str
) -> int:
    """Make a job of each line of the crontab FILE (- is standard input). Importing it again makes nothing twice."""
    from crony.catalog.crontab import parse_crontab

    text = read_text(file)
    zone = timezone or local_zone()
    result = parse_crontab(text, system=system, default_timezone=zone)
    for problem in result.problems:
        show.hint(f"line {problem.line}: {problem.why}\n    {show.plain(problem.text)}")
    wanted = list(zip(result.lines, result.jobs, strict=True))
    if not wanted or (strict and result.problems):
        what = "nothing was imported" if result.problems else f"{show.plain(file)} has no job lines"
        show.hint(f"{what}: {_many(len(result.problems), 'line')} could not be taken" if result.problems else what)
        return 2
    if not timezone and not dry_run:
        show.hint(f"times are read in {zone}, this machine's zone (--timezone says otherwise)")
    rows = _plan(wanted) if dry_run else _create(api, wanted)
    if form == "json":
        problems = [{"line": each.line, "text": each.text, "why": each.why} for each in result.problems]
        show.data({"jobs": rows, "problems": problems, "system": result.system})
    else:
        show.table(
            ("LINE", "JOB", "SCHEDULE", "ZONE", "RESULT"),
            [(row["line"], row["name"], row["cron"], row["timezone"], row["result"]) for row in rows],
        )
    users = sorted({str(job["owner"]) for _, job in wanted if any(tag.startswith("user:") for tag in job["tags"])})
    if users:
        show.hint(f"these lines ran as {', '.join(users)}: Crony runs a job as its node's user, so check where they go")
    created = sum(row["result"] in ("created", "would be created") for row in rows)
    show.hint(
        f"{_many(created, 'job')} {'would be created' if dry_run else 'created'}, {len(rows) - created} known already, "
        f"{_many(len(result.problems), 'line')} not taken"
    )
    return 0


def local_zone() -> str:
    """The IANA name of this machine's zone, as cron uses it; UTC when it has none."""
    told = os.environ.get("TZ", "").lstrip(":")
    link = os.path.realpath("/etc/localtime").partition("zoneinfo/")[2]
    try:
        noted = Path("/etc/timezone").read_text().strip()
    except OSError:
        noted = ""
    for name in (told, link, noted):
        if name and _is_zone(name):
            return name
    return "UTC"


def _is_zone(name: str) -> bool:
    from crony.domain.zones import zone

    try:
        return bool(zone(name).name)
    except Invalid:
        return False


def _plan(wanted: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [_row(line, job, "would be created") for line, job in wanted]


def _create(api: Api, wanted: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    known = {tag: job["name"] for job in api.pages("jobs", limit=1_000_000, q="crontab:") for tag in _marks(job)}
    rows: list[dict[str, Any]] = []
    for line, job in wanted:
        mark = _marks({"document": job})[0]
        if mark in known:
            rows.append(_row(line, {**job, "name": known[mark]}, "known already"))
            continue
        try:
            rows.append(_row(line, _post(api, job, mark), "created"))
        except CronyError:
            show.hint(
                f"line {line} could not be imported; {_many(len(rows), 'line')} before it were. Run it again later."
            )
            raise
        known[mark] = job["name"]
    return rows


def _post(api: Api, job: dict[str, Any], mark: str) -> dict[str, Any]:
    try:
        api.call("POST", "jobs", body=job)
    except Conflict:
        # Another job has the name, made from another line or by hand.
        job = {**job, "name": f"{job['name']}-{mark[-6:]}"}
        api.call("POST", "jobs", body=job)
    return job


def _marks(job: dict[str, Any]) -> list[str]:
    return [tag for tag in job["document"].get("tags") or [] if tag.startswith("crontab:")]


def _row(line: int, job: dict[str, Any], result: str) -> dict[str, Any]:
    schedule = job["schedule"]
    return {
        "line": line,
        "name": job["name"],
        "cron": schedule["cron"],
        "timezone": schedule["timezone"],
        "result": result,
    }


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
