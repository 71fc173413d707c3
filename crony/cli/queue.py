"""`crony queue …`: the plain Celery queues in etcd, and the messages that were set aside. Speaks to etcd itself."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from crony.cli import here, show
from crony.cli.show import output_option
from crony.errors import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from crony.transport_etcd.letters import Letter, Letters
    from crony.transport_etcd.link import Link
    from crony.transport_etcd.overview import QueueView


@click.group()
def queue() -> None:
    """Celery queues in etcd: list, show, purge; dead letters: dead, requeue, drop; ETA: waiting, withdraw."""


@queue.command("list")
@output_option
def list_(form: str) -> None:
    """List queues with what is ready, unacknowledged and dead, and their consumers."""
    from crony.transport_etcd.overview import overview

    with _link() as link:
        found = overview(link)
    if form == "json":
        return show.data([_plain(each) for each in found])
    show.table(
        ("QUEUE", "READY", "UNACKED", "CONSUMERS", "DEAD", "KIND"),
        [(each.name, each.ready, each.unacked, each.consumers, each.dead, _kind(each)) for each in found],
        empty="no queues",
    )


@queue.command("show")
@click.argument("name", metavar="QUEUE")
@output_option
def show_(name: str, form: str) -> None:
    """Show one queue: its counts, what was declared of it, its bindings and consumers."""
    from crony.transport_etcd.overview import view

    with _link() as link:
        found = view(link, name)
    if found is None:
        raise NotFound(f"there is no queue {name!r}", hint="`crony queue list` shows them")
    if form == "json":
        return show.data(_plain(found, whole=True))
    declared = found.declared
    show.facts(
        [
            ("queue", found.name),
            ("kind", _kind(found)),
            ("ready", str(found.ready)),
            ("unacked", str(found.unacked)),
            ("dead", str(found.dead)),
            ("consumers", str(found.consumers)),
            *(("  by", " ".join(filter(None, (each["node"], each["incarnation"])))) for each in found.consumed_by),
            *((name, _text(value)) for name, value in sorted((declared.arguments if declared else {}).items())),
            *(("bound to", f"{exchange} with {key!r}") for exchange, key in found.bindings),
        ]
    )


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str, yes: bool) -> None:
    """Delete every message of a queue that nobody holds. Dead letters stay."""
    _plain_queue(name, "cancel its runs instead: `crony run cancel`")
    with _link() as link:
        if not link.queues.exists(name):
            raise NotFound(f"there is no queue {name!r}", hint="`crony queue list` shows them")
        _ask(f"Delete the {link.contents.counts(name).ready} ready messages of {name}?", yes)
        click.echo(f"{link.contents.purge(name)} messages deleted from {show.plain(name)}")


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.argument("place", required=False)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--body", is_flag=True, help="Also the bodies: they may hold what not everybody should see.")
@output_option
def dead(name: str, place: str | None, limit: int, body: bool, form: str) -> None:
    """List the dead letters of a queue, or show one: its reason, history and headers."""
    _plain_queue(name, "the leader judges what was set aside of runs: see `crony run list --outcome refused`")
    with _letters() as (_, letters):
        found = [letters.get(name, place)] if place else list(islice(letters.of(name), limit))
    if form == "json":
        return show.data([_letter(each, body) for each in found])
    if place:
        return _one(found[0], body)
    rows = [(each.place, _task(each), each.count, _when(each.at), each.reason) for each in found]
    show.table(("PLACE", "TASK", "DELIVERIES", "SINCE", "REASON"), rows, empty=f"no dead letters of {show.plain(name)}")
    for each in found if body else ():
        click.echo(f"\n{each.place}\n{show.harmless(_body(each))}")


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.argument("places", nargs=-1, metavar="[PLACE]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
def requeue(name: str, places: tuple[str, ...], every: bool) -> None:
    """Give dead letters back to their queue, at its end; their deliveries are counted anew."""
    with _letters() as (link, letters):
        count = _each(
            letters, name, places, every, lambda letter: letters.requeue(letter, link.publisher.stamps.next())
        )
    click.echo(f"{count} messages given back to {show.plain(name)}")


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.argument("places", nargs=-1, metavar="[PLACE]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(name: str, places: tuple[str, ...], every: bool, yes: bool) -> None:
    """Delete dead letters for good."""
    with _letters() as (link, letters):
        many = link.client.count(link.keys.letter(name)) if every else len(places)
        if many:
            _ask(f"Delete {many} dead letters of {name} for good?", yes)
        count = _each(letters, name, places, every, letters.drop)
    click.echo(f"{count} dead letters of {show.plain(name)} deleted")


@queue.command()
@click.argument("name", metavar="[QUEUE]", required=False)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@output_option
def waiting(name: str | None, limit: int, form: str) -> None:
    """List tasks that wait in etcd for their ETA, of one queue or all, soonest first."""
    from crony.transport_etcd import delayed

    with _link() as link:
        found = list(islice(delayed.waiting(link.client, link.keys, name), limit))
    if form == "json":
        return show.data([{"queue": each.queue, "eta": each.eta, "task": each.task, "id": each.id} for each in found])
    rows = [(each.queue, show.moment(each.eta) if each.eta else "-", each.task, each.id) for each in found]
    show.table(("QUEUE", "ETA", "TASK", "ID"), rows, empty="nothing waits for its ETA")


@queue.command()
@click.argument("name", metavar="QUEUE")
@click.argument("ids", nargs=-1, metavar="[TASK ID]...")
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def withdraw(name: str, ids: tuple[str, ...], every: bool, yes: bool) -> None:
    """Delete tasks that wait in etcd for their ETA. One within its last half minute has gone to its queue."""
    from crony.transport_etcd import delayed

    if bool(ids) == every:
        raise click.UsageError("Name the task ids (`crony queue waiting` lists them), or say --all.")
    with _link() as link:
        known = {each.id for each in delayed.waiting(link.client, link.keys, name)}
        missing = [ident for ident in ids if ident not in known]
        if missing:
            raise NotFound(f"{missing[0]!r} does not wait for {name!r}", hint="`crony queue waiting` lists what does")
        _ask(f"Delete {len(known) if every else len(set(ids))} waiting tasks of {name} for good?", yes)
        count = delayed.drop(link.client, link.keys, name, None if every else ids)
    click.echo(f"{count} waiting tasks of {show.plain(name)} deleted")


# -- parts ---------------------------------------------------------------------------------------------


@contextmanager
def _link() -> Iterator[Link]:
    """What speaks to etcd, by the settings; starts nothing in the background."""
    from crony.transport_etcd.link import Link
    from crony.transport_etcd.options import Options

    conf = here.load()
    link = Link(
        Options(
            endpoints=conf.etcd_endpoints,
            namespace=conf.namespace,
            user=conf.etcd_user,
            password=conf.etcd_password,
            ca=conf.etcd_ca,
            cert=conf.etcd_cert,
            key=conf.etcd_key,
            timeout=conf.etcd_timeout,
        )
    )
    try:
        yield link
    finally:
        link.client.close()


@contextmanager
def _letters() -> Iterator[tuple[Link, Letters]]:
    from crony.transport_etcd.letters import Letters

    with _link() as link:
        yield link, Letters(link.client, link.keys)


def _plain_queue(name: str, hint: str) -> None:
    from crony.etcd.keys import is_run_queue

    if is_run_queue(name):
        raise Invalid("QUEUE", f"{name!r} carries runs, and a run must not vanish", hint=hint)


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to ask: say --yes to do it without asking.")
    click.confirm(show.plain(question), abort=True, err=True)


def _each(letters: Letters, name: str, places: tuple[str, ...], every: bool, act: Callable[[Letter], bool]) -> int:
    """Do it to the letters named, or to all; how many. Raises `NotFound` before anything is done, `Conflict`."""
    _plain_queue(name, "the leader judges what was set aside of runs")
    if bool(places) == every:
        raise click.UsageError("Name the places (`crony queue dead` lists them), or say --all.")
    if every:
        return sum(act(letter) for letter in letters.of(name))
    count = 0
    for letter in [letters.get(name, place) for place in dict.fromkeys(places)]:
        if not act(letter):
            raise Conflict(f"somebody else has dealt with {letter.place}", why=f"{count} were done before it")
        count += 1
    return count


def _kind(found: QueueView) -> str:
    from crony.etcd.keys import is_run_queue

    if is_run_queue(found.name):
        return "runs"
    declared = found.declared
    if declared is None or declared.implicit:
        return "undeclared"
    words = [word for word in ("exclusive", "auto_delete") if getattr(declared, word)]
    return ",".join([*([] if declared.durable else ["transient"]), *words]) or "durable"


def _plain(found: QueueView, whole: bool = False) -> dict[str, Any]:
    counts = {name: getattr(found, name) for name in ("name", "ready", "unacked", "consumers", "dead")}
    row: dict[str, Any] = {**counts, "kind": _kind(found)}
    if whole:
        row["arguments"] = dict(found.declared.arguments) if found.declared else {}
        row["bindings"] = [{"exchange": exchange, "routing_key": key} for exchange, key in found.bindings]
        row["consumed_by"] = found.consumed_by
    return row


def _letter(letter: Letter, body: bool) -> dict[str, Any]:
    message = letter.message
    return {
        "queue": letter.queue,
        "place": letter.place,
        "reason": letter.reason,
        "deliveries": letter.count,
        "at": datetime.fromtimestamp(letter.at, UTC).isoformat(timespec="milliseconds"),
        "history": letter.history,
        "headers": message["headers"] if message else None,
        "properties": message["properties"] if message else None,
        "content_type": message["content-type"] if message else None,
        **({"body": _body(letter)} if body else {}),
    }


def _one(letter: Letter, body: bool) -> None:
    facts = _letter(letter, body=False)
    show.facts(
        [
            ("queue", letter.queue),
            ("place", letter.place),
            ("reason", letter.reason),
            ("deliveries", str(letter.count)),
            ("since", _when(letter.at)),
            *(("before", f"{_when(float(each['time']))}  {each['reason']}") for each in letter.history[:-1]),
            ("content", facts["content_type"]),
            *((f"header {name}", _text(value)) for name, value in sorted((facts["headers"] or {}).items())),
        ]
    )
    if body:
        click.echo(f"\n{show.harmless(_body(letter))}")


def _task(letter: Letter) -> str:
    headers = (letter.message or {"headers": {}})["headers"]
    return " ".join(str(headers[name]) for name in ("task", "id") if headers.get(name))


def _body(letter: Letter) -> str:
    """The body as text; one that is not UTF-8 as base64 with a mark."""
    message = letter.message
    raw: bytes = message["body"] if message else letter.value
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


def _when(at: float) -> str:
    return show.moment(datetime.fromtimestamp(at, UTC).isoformat()) if at else "-"


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:199] + "…"
