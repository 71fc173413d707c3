"""`crony node …`: the machines that work."""

from __future__ import annotations

import time
from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option, segment
from crony.cli.show import output_option
from crony.errors import Invalid, TimedOut, Unavailable

OWN = "own"


def _weight(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """0 to 1000, or None for `own`."""
    if value == OWN:
        return None
    chosen: int = click.IntRange(0, 1000)(value, parameter, context)
    return chosen


@click.group()
def node() -> None:
    """Nodes: list, show, weight, label, cordon, uncordon, drain, undrain, set."""


@node.command("list")
@api_option
@output_option
def list_(api: Api, form: str) -> None:
    """List nodes and their load."""
    found = api.get("nodes")["items"]
    if form == "json":
        show.data(found)
    else:
        show.table(
            ("NODE", "STATE", "RUNNING", "QUEUED", "CAPACITY", "WEIGHT", "RUNS", "LABELS", "VERSION", "SEEN"),
            [
                (
                    row.get("name"),
                    row.get("state"),
                    row.get("running"),
                    row.get("queued"),
                    row.get("capacity"),
                    row.get("weight"),
                    ",".join(row.get("kinds") or []),
                    ",".join(f"{key}={value}" for key, value in sorted((row.get("labels") or {}).items())),
                    row.get("version"),
                    show.away(row.get("seen_at")),
                )
                for row in found
            ],
            empty="no node has registered yet: start one with `crony worker`",
        )


@node.command("show")
@click.argument("name")
@api_option
@output_option
def show_(name: str, api: Api, form: str) -> None:
    """What a node says of itself and its machine, what people set for it, and what it runs."""
    found = api.get(f"nodes/{segment(name)}")
    if form == "json":
        return show.data(found)
    machine, own = found["machine"], found["own_labels"]
    versions = [found["version"] or "", *(f"{what} {version}" for what, version in found["versions"].items())]
    show.facts(
        [
            ("node", found["name"]),
            ("state", found["state"]),
            ("running", f"{found['running'] or 0} of {found['capacity'] or 0}"),
            ("queued", found["queued"]),
            ("weight", found["weight"]),
            ("runs", ", ".join(found["kinds"])),
            ("queues", ", ".join(found["queues"])),
            ("labels", ", ".join(f"{k}={v}{'' if own.get(k) == v else ' (set)'}" for k, v in found["labels"].items())),
            ("host", found["hostname"]),
            ("version", " ".join(versions).strip()),
            ("load", f"{machine['load']:g} on {machine['cpus']:g} CPUs" if {"load", "cpus"} <= machine.keys() else ""),
            ("memory", _free(machine, "memory")),
            ("spool's disk", _free(machine, "disk")),
            ("its memory", _size(machine["rss"]) if "rss" in machine else ""),
            ("started", show.moment(found["started_at"])),
            ("seen", show.away(found["seen_at"])),
        ]
    )


def _free(machine: dict[str, float], what: str) -> str:
    both = {what, f"{what}_free"} <= machine.keys()
    return f"{_size(machine[f'{what}_free'])} free of {_size(machine[what])}" if both else ""


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


@node.command()
@click.argument("name")
@click.argument("labels", nargs=-1, metavar="KEY=VALUE|KEY-...")
@click.option("--own", is_flag=True, help="Forget what was set: the node's own labels again.")
@api_option
@output_option
def label(name: str, labels: tuple[str, ...], own: bool, api: Api, form: str) -> None:
    """Set labels of a node, in force from the next placing on: KEY=VALUE sets one, KEY- takes one away."""
    if bool(labels) == own:
        raise click.UsageError("Say which labels: zone=a sets one, zone- takes it away; or --own.")
    changes: dict[str, str | None] = {}
    for text in labels:
        key, equals, value = text.partition("=")
        if equals:
            changes[key] = value
        elif text.endswith("-"):
            changes[text[:-1]] = None
        else:
            raise Invalid(text, "sets no label", hint=f"{text}=value sets one, {text}- takes it away")
    answer = _change(api, name, {"labels": None if own else changes})
    if form == "json":
        return show.data(answer)
    found = ", ".join(f"{key}={value}" for key, value in sorted(answer["labels"].items()))
    click.echo(f"{show.plain(name)} has {show.plain(found) if found else 'no labels'} now")


@node.command("set")
@click.argument("name")
@click.option("--weight", type=click.IntRange(0, 1000), help="Share of the work.")
@click.option("--cordon/--uncordon", default=None, help="No new work / work again.")
@click.option("--drain/--no-drain", default=None, help="No new work, and unstarted work goes elsewhere.")
@api_option
@output_option
def set_(name: str, weight: int | None, cordon: bool | None, drain: bool | None, api: Api, form: str) -> None:
    """Change a node's share of the work, or take it out."""
    wanted = {"weight": weight, "cordoned": cordon, "drain": drain}
    body = {key: value for key, value in wanted.items() if value is not None}
    if not body:
        raise click.UsageError("Say what to change: --weight, --cordon, --uncordon, --drain or --no-drain.")
    answer = _change(api, name, body)
    if form == "json":
        return show.data(answer)
    click.echo(f"changed {show.plain(name)}: " + ", ".join(f"{key} {value}" for key, value in body.items()))


@node.command()
@click.argument("name")
@click.argument("weight", callback=_weight)
@api_option
@output_option
def weight(name: str, weight: int | None, api: Api, form: str) -> None:
    """Set a node's share of the work, from the next run on; WEIGHT is 0 to 1000, or `own`: what the node asks for."""
    answer = _change(api, name, {"weight": weight})
    if form == "json":
        return show.data(answer)
    click.echo(f"{show.plain(name)} has weight {answer['weight']} now")


def _change(api: Api, name: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = api.call("PATCH", f"nodes/{segment(name)}", body=body)
    return answer


def _switch(action: str, about: str, body: dict[str, Any]) -> click.Command:
    @click.command(action, help=about)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @api_option
    def switch(names: tuple[str, ...], api: Api) -> None:
        for name in names:
            answer = _change(api, name, body)
            click.echo(f"{show.plain(name)} is {show.colour(answer['state'])} now")

    return switch


node.add_command(
    _switch("cordon", "No new work for these nodes; what runs or waits there goes on.", {"cordoned": True})
)
node.add_command(_switch("uncordon", "New work for these nodes again.", {"cordoned": False}))


@node.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--wait", is_flag=True, help="Until nothing of theirs runs or waits there; says what is left.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With --wait: give up then (the drain goes on).")
@api_option
def drain(names: tuple[str, ...], wait: bool, timeout: float | None, api: Api) -> None:
    """No new work, and unstarted work goes elsewhere; what runs goes on."""
    if timeout is not None and (not wait or not 0 <= timeout <= 10**9):
        raise Invalid("--timeout", "is a number of seconds, 0 or more, and needs --wait")
    for name in names:
        answer = _change(api, name, {"drain": True})
        click.echo(f"{show.plain(name)} is {show.colour(answer['state'])} now")
    if wait:
        _until_empty(api, names, None if timeout is None else time.monotonic() + timeout)


def _until_empty(api: Api, names: tuple[str, ...], until: float | None) -> None:
    told, away = "", 0
    while True:
        try:
            left, said = _left(api, names)
            away = 0
        except Unavailable:
            away += 1
            if away > 5:
                raise
            left, said = 1, told
        if said and said != told:
            show.hint(said)
            told = said
        if not left:
            return click.echo("nothing is left there")
        if until is not None and time.monotonic() >= until:
            raise TimedOut(f"{left} runs are left", why=told, hint="the drain goes on by itself; undrain ends it")
        time.sleep(0.5)


def _left(api: Api, names: tuple[str, ...]) -> tuple[int, str]:
    """How many runs these nodes still have, and which."""
    total, parts = 0, []
    for name in names:
        found = api.get(f"nodes/{segment(name)}")
        runs = found["holds"]
        total += max(len(runs), found["queued"])
        if runs or found["queued"]:
            ids = ", ".join(f"{run['job']['name'] or run['job']['id']} {run['id']}" for run in runs[:5])
            more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
            parts.append(show.plain(f"{name}: {len(runs)} running, {found['queued']} queued: {ids}{more}".rstrip(": ")))
    return total, "; ".join(parts)


node.add_command(_switch("undrain", "End of a drain: work again.", {"drain": False}))
