"""`crony job …`: what a person defined."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click
import yaml

from crony.cli import show
from crony.cli.api import Api, api_option, items, segment
from crony.cli.backfill import ask as ask_for_backfill
from crony.cli.documents import parents_first, read_documents
from crony.cli.follow import follow_run
from crony.cli.given import moment, pairs
from crony.cli.graph import graph
from crony.cli.job_document import document_of
from crony.cli.show import output_option
from crony.errors import CronyError


@click.group()
def job() -> None:
    """Jobs: create, list, get, why, graph, run, backfill, pause, resume, delete."""


@job.command()
@click.argument("name", required=False)
@click.option("-f", "--file", "file", metavar="FILE", help="Job documents in YAML or JSON; - is standard input.")
@click.option("--cron", metavar="TEXT", help='Cron schedule, quoted: "*/5 * * * *".')
@click.option("--dialect", metavar="DIALECT", help="Of --cron: cron (default), cron6 (seconds first) or quartz.")
@click.option("--every", metavar="DURATION", help="Interval: 90s, 5m, 2h, 1d.")
@click.option("--after-end", is_flag=True, help="Count --every from the end of the run before, not by the clock.")
@click.option("--at", metavar="TIME", help="One moment: 2026-12-01T09:00:00+08:00.")
@click.option("--timezone", metavar="ZONE", help="Time zone of the schedule, such as Asia/Shanghai (default UTC).")
@click.option("--start", metavar="TIME", help="No fire of the schedule before this moment.")
@click.option("--end", metavar="TIME", help="No fire of the schedule at this moment or later.")
@click.option("--count", type=int, metavar="N", help="Only the first N fires from --start.")
@click.option("--jitter", metavar="DURATION", help="Fires come up to this much later, the job's always the same.")
@click.option("--shell", metavar="SCRIPT", help="Run this text with /bin/sh.")
@click.option("--command", metavar="COMMAND", help="Run this command without a shell (split as a shell would).")
@click.option("--http", metavar="URL", help="Call this address.")
@click.option("--grpc", metavar="WHERE/WHAT", help="Call host:port or a service: /package.Service/Method, or /handler.")
@click.option("--method", metavar="METHOD", help="Method of --http (default GET).")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="Header of --http, metadata of --grpc.")
@click.option("--body", metavar="TEXT", help="Body of --http, request of --grpc (JSON); @FILE reads it from a file.")
@click.option("--python", "task", metavar="TASK", help="Run this registered Celery task.")
@click.option("--description", metavar="TEXT", help="What it is for (Markdown).")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="May be repeated.")
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="Parameter; K:=JSON for other than text.")
@click.option("--timeout", metavar="DURATION", help="An attempt may take this long (default 1h).")
@click.option("--retries", type=int, metavar="N", help="Attempts after a failed one (default 0).")
@click.option("--retry-delay", metavar="DURATION", help="Wait this long before the first of them.")
@click.option(
    "--overlap",
    metavar="POLICY",
    help="What a fire while a run goes becomes: skip (default), queue_one, queue_all, cancel_previous or allow.",
)
@click.option("--pause-after", type=int, metavar="N", help="Pause it after N failures in a row.")
@click.option("--overlap-limit", type=int, metavar="N", help="With queue_all: so many wait at most (default 100).")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Only on nodes with this label; may be repeated.")
@click.option("--node", metavar="NODE", help="Only on this node.")
@click.option(
    "--strategy",
    metavar="NAME",
    help="weighted (default), least_busy, random, hash, any or broadcast: how a node is chosen.",
)
@click.option("--queue", metavar="NAME", help="With --strategy any: the shared queue (default any).")
@click.option("--parts", type=int, metavar="N", help="Carry each run out in so many parts.")
@click.option("--priority", type=int, metavar="0-9", help="Higher first (default 0).")
@click.option("--paused", is_flag=True, help="Create it paused.")
@api_option
@output_option
def create(name: str | None, file: str | None, api: Api, form: str, **given: Any) -> None:
    """Create a job NAME from options, or jobs from a file (-f)."""
    used = [option for option, value in given.items() if value not in (None, (), False)]
    if file is not None:
        if name or used:
            raise click.UsageError("With -f the file says everything: leave NAME and the other options out.")
        documents = parents_first(read_documents(file))
    else:
        if not name:
            raise click.UsageError("Give the job a NAME, or a file with -f.")
        documents = [document_of(name, given)]
    made = []
    for number, document in enumerate(documents, 1):
        try:
            made.append(api.call("POST", "jobs", body=document))
        except CronyError as error:
            if len(documents) > 1:
                label = document.get("name") or f"document {number}"
                show.hint(f"{len(made)} of {len(documents)} jobs were created; {show.plain(label)} was not:")
            raise error
        if form != "json":
            click.echo(f"created {show.plain(made[-1]['name'])} ({made[-1]['id']})")
            _say_next(made[-1])
            for warning in made[-1].get("warnings", ()):
                show.hint(f"  warning: {show.plain(warning['problem'])}. {show.plain(warning['hint'])}")
    if form == "json":
        show.data(made[0] if len(documents) == 1 else made)


@job.command("list")
@click.argument("query", required=False)
@click.option("--enabled/--paused", default=None, help="Only those that are on, or paused.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@api_option
@output_option
def list_(query: str | None, enabled: bool | None, limit: int, api: Api, form: str) -> None:
    """List jobs; QUERY looks in their names."""
    wanted = None if enabled is None else str(enabled).lower()
    found = items(api, "jobs", limit=limit, form=form, q=query, enabled=wanted)
    if found is not None:
        show.table(
            ("NAME", "STATE", "SCHEDULE", "NEXT FIRE", "LAST RUN", "ENDED"),
            [
                (
                    row["name"],
                    _state(row),
                    _schedule(row["document"].get("schedule")),
                    "after a run's end" if row.get("awaits") else show.away(row.get("next_fire_at")),
                    (row.get("last_run") or {}).get("outcome") or "",
                    show.away((row.get("last_run") or {}).get("ended_at")),
                )
                for row in found
            ],
            empty="no jobs" if query is None else "no job matches",
        )


@job.command()
@click.argument("name")
@api_option
@output_option
def get(name: str, api: Api, form: str) -> None:
    """Show one job (name or id): its facts, then its document as YAML."""
    found = api.get(f"jobs/{segment(name)}")
    if form == "json":
        return show.data(found)
    last = found.get("last_run") or {}
    show.facts(
        [
            ("name", found["name"]),
            ("id", found["id"]),
            ("state", _state(found)),
            ("because", (found.get("held") or {}).get("reason")),
            ("revision", found["revision"]),
            ("live revision", found.get("live_revision")),
            ("live from", show.moment(found["live_from"]) if found.get("live_from") else None),
            ("next fire", _next(found)),
            ("last run", last.get("id")),
            ("outcome", last.get("outcome")),
        ]
    )
    click.echo()
    click.echo(yaml.safe_dump(found["document"], sort_keys=False, allow_unicode=True).rstrip())


@job.command()
@click.argument("name")
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="Parameter; K:=JSON for other than text.")
@click.option("--idempotency-key", metavar="KEY", help="The same key again starts no second run.")
@click.option("--delay", metavar="DURATION", help="Start it this much later.")
@click.option("--at", metavar="TIME", help="Start it at this moment (RFC 3339).")
@click.option("--priority", type=int, metavar="0-9", help="Higher first (default: the job's own).")
@click.option("--run-timeout", metavar="DURATION", help="An attempt may take this long.")
@click.option("--retries", type=int, metavar="N", help="Attempts after a failed one (default: the job's own).")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Only on nodes with this label.")
@click.option("--no-chain", is_flag=True, help="Jobs that run after it do not follow this run.")
@click.option("--wait", is_flag=True, help="Wait until it has ended; exit code 6 unless it succeeded.")
@click.option(
    "--timeout", "patience", type=float, metavar="SECONDS", help="With --wait: at most so long (exit code 7)."
)
@api_option
@output_option
def run(
    name: str,
    params: tuple[str, ...],
    idempotency_key: str | None,
    delay: str | None,
    at: str | None,
    priority: int | None,
    run_timeout: str | None,
    retries: int | None,
    labels: tuple[str, ...],
    no_chain: bool,
    wait: bool,
    patience: float | None,
    api: Api,
    form: str,
) -> int:
    """Run a job now; prints the run's id."""
    if patience is not None and not wait:
        raise click.UsageError("--timeout says how long to --wait; for the run itself there is --run-timeout.")
    wanted = {
        "params": pairs(params, "-p", typed=True),
        "idempotency_key": idempotency_key,
        "delay": delay,
        "at": at,
        "priority": priority,
        "labels": pairs(labels, "--label"),
        "timeout": run_timeout,
        "retries": retries,
        "chain": False if no_chain else None,
    }
    body = {key: value for key, value in wanted.items() if value not in (None, {})}
    answer = api.call("POST", f"jobs/{segment(name)}:run", body=body)
    if not answer["created"]:
        show.hint("this idempotency key already stands for a run: no second one was started")
    if wait:
        return follow_run(api, answer["run"], form=form, patience=patience)
    if form == "json":
        show.data(answer)
    else:
        click.echo(answer["run"])
        show.hint(f"see it with: crony run get {answer['run']}")
    return 0


@job.command()
@click.argument("name")
@click.option("--at", required=True, metavar="TIME", help="The moment; without an offset in this machine's zone.")
@api_option
@output_option
def why(name: str, at: str, api: Api, form: str) -> None:
    """Say why a job did, or did not, run at a moment, from records only."""
    found = api.get(f"jobs/{segment(name)}/why", at=moment(at))
    if form == "json":
        return show.data(found)
    click.echo(show.plain(found["sentence"]))
    click.echo()
    run, skip = found.get("run") or {}, found.get("skip") or {}
    show.facts(
        [
            ("asked about", show.moment(found["at"])),
            ("verdict", found["verdict"]),
            ("run", run.get("id")),
            ("outcome", run.get("outcome")),
            ("skipped for", skip.get("reason")),
            *(("backfill", _filled(each)) for each in found.get("backfills") or ()),
            ("revision", found.get("revision")),
            ("fire before", found.get("fire_before") and show.moment(found["fire_before"])),
            ("fire after", found.get("fire_after") and show.moment(found["fire_after"])),
        ]
    )


@job.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@api_option
def delete(names: tuple[str, ...], yes: bool, api: Api) -> None:
    """Delete jobs. Their history stays until it is pruned."""
    if not yes:
        what = names[0] if len(names) == 1 else f"{len(names)} jobs"
        if not sys.stdin.isatty():
            raise click.UsageError("Nobody is there to ask: say --yes to delete without asking.")
        click.confirm(f"Delete {show.plain(what)}?", abort=True, err=True)
    for name in names:
        api.call("DELETE", f"jobs/{segment(name)}")
        click.echo(f"deleted {show.plain(name)}")


def _filled(each: dict[str, Any]) -> str:
    run = each.get("run")
    return f"{each['id']} (run {run['id']}: {run['outcome'] or run['state']})" if run else f"{each['id']} (to come)"


def _state(row: dict[str, Any]) -> str:
    if row.get("held"):
        return "paused by its leader"
    if row["enabled"] and row.get("paused_until"):
        return f"off until {show.moment(row['paused_until'])}"
    return "on" if row["enabled"] else "off"


def _switch(action: str, word: str) -> click.Command:
    @click.command(action, help=f"{action.capitalize()} jobs.")
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @api_option
    def switch(names: tuple[str, ...], api: Api, until: str | None = None) -> None:
        for name in names:
            found = api.call("POST", f"jobs/{segment(name)}:{action}", body={} if until is None else {"until": until})
            click.echo(f"{word} {show.plain(name)}" + (f" until {show.plain(until)}" if until else ""))
            if found.get("live_revision") != found["revision"]:
                show.hint("  saved, but not in force yet: the web cannot reach etcd")

    return switch


_UNTIL = click.option("--until", metavar="TIME", help="It goes on by itself after this (RFC 3339 with offset).")
job.add_command(_UNTIL(_switch("pause", "paused")))
job.add_command(_switch("resume", "resumed"))
job.add_command(ask_for_backfill)
job.add_command(graph)


def _schedule(schedule: Any) -> str:
    """A schedule in a few words, for the table."""
    if not schedule:
        return "by hand"
    if isinstance(schedule, list):
        return f"{_schedule(schedule[0])} and {len(schedule) - 1} more" if len(schedule) > 1 else _schedule(schedule[0])
    zone = schedule.get("timezone")
    if schedule.get("after"):
        return f"{schedule['every']} after the end"
    for kind, words in (("cron", "{}"), ("every", "every {}"), ("at", "at {}")):
        if kind in schedule:
            return words.format(schedule[kind]) + (f" {zone}" if zone and zone != "UTC" else "")
    return "by hand"


def _next(found: dict[str, Any]) -> str:
    """When a job fires next, as far as that is known."""
    if found.get("next_fire_at"):
        return f"{show.moment(found['next_fire_at'])} ({show.away(found['next_fire_at'])})"
    return f"when run {found['awaits']} has ended, and its delay" if found.get("awaits") else "none"


def _say_next(found: dict[str, Any]) -> None:
    if found.get("live_from"):
        waits = "; no leader has taken it in yet" if found.get("taken_in") is False else ""
        show.hint(f"  live from {show.moment(found['live_from'])}{waits}")
    else:
        show.hint("  saved, and live as soon as etcd can be reached")
    if found.get("next_fire_at"):
        show.hint(f"  next fire {show.moment(found['next_fire_at'])} ({show.away(found['next_fire_at'])})")
    else:
        show.hint(f"  no fire is due; run it with: crony job run {shlex.quote(found['name'])}")
