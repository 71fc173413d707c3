"""`crony run …`: executions of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, items, segment
from crony.cli.follow import copy_output, follow_run
from crony.cli.show import output_option


@click.group()
def run() -> None:
    """Runs: list, get, chain, output, wait, cancel, release."""


@run.command("list")
@click.option("--job", metavar="NAME", help="Only of this job.")
@click.option("--state", metavar="STATE", help="requested, waiting, queued, running, accepted or ended.")
@click.option("--outcome", metavar="OUTCOME", help="succeeded, failed, timed_out, cancelled, lost or refused.")
@click.option("--node", metavar="NODE", help="Only on this node.")
@click.option("--trigger", metavar="TRIGGER", help="schedule, manual, api, enqueue, backfill or chain.")
@click.option("--since", metavar="TIME", help="Not before (RFC 3339 with offset).")
@click.option("--until", metavar="TIME", help="Before (RFC 3339 with offset).")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many, newest first.")
@click.option("--parts", is_flag=True, help="Under each run that has parts, these as well.")
@api_option
@output_option
def list_(limit: int, parts: bool, api: Api, form: str, **filters: Any) -> None:
    """List runs, newest first. A run in parts is one line: --parts shows them."""
    found = items(api, "runs", limit=limit, form=form, **filters)
    if found is None:
        return
    rows = []
    for row in found:
        rows.append(row)
        if parts and _in_parts(row):
            rows += [{**each, "id": f"  {each['id']}"} for each in _parts(api, row["id"])]
    show.table(
        ("RUN", "JOB", "STATE", "STARTED", "TOOK", "ATTEMPT", "NODE", "REASON"),
        [
            (
                row["id"],
                row.get("job_name"),
                row.get("outcome") or row["state"],
                show.moment(row.get("started_at") or row.get("requested_at")),
                show.span(_took(row)),
                f"{row['parts']} parts" if _in_parts(row) else row.get("attempt"),
                row.get("node"),
                _short(row.get("reason")),
            )
            for row in rows
        ],
        empty="no runs",
    )


@run.command()
@click.argument("ident", metavar="RUN")
@api_option
@output_option
def get(ident: str, api: Api, form: str) -> None:
    """Show one run: how it stands, why it runs where it runs, its attempts."""
    found = api.get(f"runs/{segment(ident)}")
    if form == "json":
        return show.data(found)
    show.facts(
        [
            ("run", found["id"]),
            ("job", found.get("job_name")),
            ("state", found["state"]),
            ("outcome", found.get("outcome")),
            ("reason", found.get("reason")),
            ("trigger", found.get("trigger")),
            ("follows", found.get("cause")),
            ("chain", found.get("chain")),
            ("due", found.get("fire_at") and show.moment(found["fire_at"])),
            ("started", found.get("started_at") and show.moment(found["started_at"])),
            ("ended", found.get("ended_at") and show.moment(found["ended_at"])),
            ("took", None if _took(found) is None else show.span(_took(found))),
            ("node", found.get("node")),
            *_route(found),
            ("until", found.get("deadline_at") and f"{show.moment(found['deadline_at'])} (its callee has accepted it)"),
            ("progress", _progress(found.get("progress"))),
            ("part", found.get("parent") and f"{found['part']} (from 0) of {found['parts']}, of run {found['parent']}"),
            ("result", found.get("result")),
        ]
    )
    if _in_parts(found):
        click.echo()
        show.table(
            ("PART", "STATE", "CODE", "NODE", "STARTED", "TOOK", "ATTEMPT", "RESULT", "REASON"),
            [
                (
                    row["part"],
                    row.get("outcome") or row["state"],
                    row.get("code"),
                    row.get("node"),
                    show.moment(row.get("started_at")),
                    show.span(_took(row)),
                    row.get("attempt"),
                    _short(row.get("result")),
                    _short(row.get("reason")),
                )
                for row in _parts(api, ident)
            ],
        )
    if found.get("attempts"):
        click.echo()
        show.table(
            ("ATTEMPT", "OUTCOME", "CODE", "NODE", "STARTED", "TOOK", "REASON"),
            [
                (
                    row["n"],
                    row.get("outcome") or "running",
                    row.get("code"),
                    row.get("node"),
                    show.moment(row.get("started_at")),
                    show.span(_took(row)),
                    _short(row.get("reason")),
                )
                for row in found["attempts"]
            ],
        )


@run.command()
@click.argument("ident", metavar="RUN")
@api_option
@output_option
def chain(ident: str, api: Api, form: str) -> None:
    """Show the runs of the chain that a run is in, and why jobs did not run in it."""
    found = api.get(f"runs/{segment(ident)}/chain")
    if form == "json":
        return show.data(found)
    show.table(
        ("RUN", "JOB", "STATE", "STARTED", "TOOK", "FOLLOWS", "REASON"),
        [
            (
                row["id"],
                row.get("job_name"),
                row.get("outcome") or row["state"],
                show.moment(row.get("started_at") or row.get("requested_at")),
                show.span(_took(row)),
                row.get("cause"),
                _short(row.get("reason")),
            )
            for row in found["runs"]
        ],
    )
    return None


@run.command()
@click.argument("ident", metavar="RUN")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt (default: the last one).")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt has ended.")
@click.option("--stdout", "stream", flag_value="stdout", help="Only what came by standard output.")
@click.option("--stderr", "stream", flag_value="stderr", help="Only what came by standard error.")
@click.option("--log", "stream", flag_value="log", help="Only what was logged.")
@click.option("--times", is_flag=True, help="Each line with its time and its stream.")
@click.option("--raw", is_flag=True, help="At a terminal too, pass every byte on as it is.")
@api_option
def output(ident: str, attempt: int | None, follow: bool, stream: str | None, times: bool, raw: bool, api: Api) -> int:
    """Print what a run printed."""
    try:
        copy_output(api, ident, attempt=attempt, follow=follow, raw=raw, stream=stream, times=times)
    except KeyboardInterrupt:
        show.hint("stopped following; the run goes on")
        return 130
    return 0


@run.command()
@click.argument("ident", metavar="RUN")
@click.option("--timeout", "patience", type=float, metavar="SECONDS", help="At most this long (exit code 7).")
@api_option
@output_option
def wait(ident: str, patience: float | None, api: Api, form: str) -> int:
    """Wait until a run has ended; exit code 6 unless it succeeded."""
    return follow_run(api, ident, form=form, patience=patience)


@run.command()
@click.argument("idents", nargs=-1, required=True, metavar="RUN...")
@api_option
def cancel(idents: tuple[str, ...], api: Api) -> None:
    """Cancel runs. A running one is stopped by its node."""
    for ident in idents:
        api.call("POST", f"runs/{segment(ident)}:cancel", body={})
        click.echo(f"asked to cancel {show.plain(ident)}")


@run.command()
@click.argument("idents", nargs=-1, required=True, metavar="RUN...")
@api_option
def release(idents: tuple[str, ...], api: Api) -> None:
    """Let runs go on that are on hold because their node was lost."""
    for ident in idents:
        api.call("POST", f"runs/{segment(ident)}:release", body={})
        click.echo(f"asked to release {show.plain(ident)}")


def _progress(progress: dict[str, Any] | None) -> str:
    """What a running attempt, or the callee of an accepted run, said last."""
    if not progress:
        return ""
    percent = "" if progress["percent"] is None else f"{progress['percent']:g} %"
    said = "; ".join(part for part in (percent, progress["message"]) if part)
    return f"{said or 'alive'} ({show.moment(progress['at'])})"


def _in_parts(row: dict[str, Any]) -> bool:
    return bool(row.get("parts")) and row.get("part") is None


def _parts(api: Api, run: str) -> Iterator[dict[str, Any]]:
    """The parts of a run, in order."""
    first: int | None = 0
    while first is not None:
        page = api.get(f"runs/{segment(run)}/parts", first=first)
        yield from page["items"]
        first = page["next"]


def _route(found: dict[str, Any]) -> list[tuple[str, object]]:
    """How its node was chosen, and why each other one was not."""
    route = found.get("route")
    if not route:
        return [("why there", found.get("why"))]
    passed = [("passed over", f"{', '.join(each['nodes'])}: {each['reason']}") for each in route["passed_over"]]
    more = [("passed over", f"{route['more']} more")] if route["more"] else []
    return [("why there", route["why"]), ("strategy", route["strategy"]), *passed, *more]


def _took(row: dict[str, Any]) -> float | None:
    from datetime import datetime

    if not row.get("started_at") or not row.get("ended_at"):
        return None
    return (datetime.fromisoformat(row["ended_at"]) - datetime.fromisoformat(row["started_at"])).total_seconds()


def _short(text: object) -> str:
    line = show.plain(text)
    return line if len(line) <= 60 else line[:59] + "…"
