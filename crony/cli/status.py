"""`crony status`, `crony shards`: who leads what, which centres run, and how many shards there are."""

from __future__ import annotations

from typing import Any

import click

from crony.cli import show
from crony.cli.api import Api, api_option
from crony.cli.show import output_option
from crony.errors import CronyError


@click.command()
@api_option
@output_option
def status(api: Api, form: str) -> int:
    """How the platform stands: leaders, centres and their clocks, nodes, runs. Exit code 1 when a shard has no leader.

    It needs etcd only; figures of the database are missing while that is away.
    """
    centres, control, nodes = api.get("centres"), api.get("control"), api.get("nodes")["items"]
    try:
        stats = api.get("stats")
    except CronyError as error:
        stats = {}
        show.hint(f"no figures of runs: {error}")
    vacant = centres["shards"] is None or any(row["centre"] is None for row in centres["leaders"])
    if form == "json":
        show.data({"centres": centres, "control": control, "nodes": nodes, "stats": stats})
        return int(vacant)
    stopped = f"stopped by {control['by'] or '?'}" + (f": {control['reason']}" if control["reason"] else "")
    show.facts(
        [
            ("dispatch", stopped if control["stop"] else "goes on"),
            ("shards", centres["shards"] or "their number cannot be read; try `crony shards N`"),
            ("nodes", _counted([node["state"] for node in nodes]) or "none"),
            ("live runs", _figures(stats.get("live")) if stats else None),
            ("ended in 24 h", _figures(stats.get("outcomes")) if stats else None),
        ]
    )
    _shards(centres)
    click.echo()
    _centres(centres)
    for row in centres["items"]:
        if row.get("holds"):
            show.hint(f"centre {row['name']} leads and holds dispatch: {', '.join(map(_hold, row['holds']))}")
        for job, why in row.get("untrusted", {}).items():
            show.hint(f"centre {row['name']} does not act on job {job}: {why}")
    if vacant:
        show.hint("a shard that nobody leads fires nothing: is a centre running, may it lead?")
    return int(vacant)


@click.command()
@click.argument("count", type=click.IntRange(1, 64), required=False)
@api_option
@output_option
def shards(count: int | None, api: Api, form: str) -> None:
    """Show who leads which shard, or change their number to COUNT (an administrator).

    Resharding is one write: leaders of the old number stop, others list everything anew and go on. No fire is lost
    or doubled; for a moment none is dispatched.
    """
    found = api.get("centres") if count is None else api.call("PUT", "shards", body={"count": count})
    if form == "json":
        show.data({key: found[key] for key in ("shards", "shards_by", "shards_at", "leaders")})
        return
    if count is not None:
        click.echo(f"{found['shards']} shards; their leaders are elected now")
        return
    _shards(found)
    for row in found["items"]:
        if row["wants_shards"] not in (None, found["shards"]):
            show.hint(f"CRONY_SHARDS of centre {row['name']} says {row['wants_shards']} and is not obeyed")


def _shards(found: dict[str, Any]) -> None:
    show.table(
        ("SHARD", "LEADER", "TERM"),
        [(row["shard"], row["centre"] or "nobody", row["term"]) for row in found["leaders"]],
        empty="the number of shards cannot be read",
    )


def _centres(found: dict[str, Any]) -> None:
    show.table(
        ("CENTRE", "LEADS", "CLOCK", "HOST", "PID", "VERSION", "TZDATA", "SINCE"),
        [
            (
                row["name"],
                ",".join(map(str, row["leads"])) if row["able"] else f"may not: {row['reason']}",
                f"{row['clock_skew']:+.1f}s",
                row["host"],
                row["pid"],
                row["version"],
                row.get("tzdata"),
                show.away(row["since_at"]),
            )
            for row in found["items"]
        ],
        empty="no centre runs: start one with `crony beat`",
    )
    if len({row.get("tzdata") for row in found["items"]}) > 1:
        show.hint("the centres use different time zone data: who leads decides when jobs fire. Install the same on all")


def _hold(name: str) -> str:
    """For what a leader holds dispatch, and what to do about it."""
    known = {
        "clock": "its wall clock is off or has stepped (set it right: NTP)",
        "room": "etcd is nearly full (see `crony doctor`)",
    }
    return known.get(name, name)


def _counted(words: list[str]) -> str:
    return _figures({word: words.count(word) for word in sorted(set(words))})


def _figures(counts: dict[str, int] | None) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted((counts or {}).items()))
