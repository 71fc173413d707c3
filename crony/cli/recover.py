"""`crony recover`: what to do when etcd or the database was restored from a backup."""

from __future__ import annotations

import sys
from typing import Any

import click

from crony import settings
from crony.cli import show
from crony.cli.show import output_option
from crony.errors import Conflict, Invalid


@click.group(invoke_without_command=True)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--force", is_flag=True, help="Also when etcd does not look restored.")
@click.option("--without-database", is_flag=True, help="Although the database is away: nothing is known of since then.")
@output_option
@click.pass_context
def recover(ctx: click.Context, yes: bool, force: bool, without_database: bool, form: str) -> int | None:
    """After etcd was restored from a backup: make it fit to go on from.

    Run it where a centre runs, with the centre's settings. It shows what it found and asks. Then it moves every job's
    cursor to now, records the fires of which nobody knows what became, drops runs that the database knows as ended,
    puts runs that must not run twice on hold, and lets centres, nodes and webs go on. It may be repeated.
    """
    if ctx.invoked_subcommand is not None:
        return None
    return _etcd(yes=yes, force=force, without_database=without_database, form=form)


@recover.command()
@click.option("--yes", is_flag=True, help="Do it without asking.")
@output_option
def catalogue(yes: bool, form: str) -> None:
    """After the database was restored from a backup: take over from etcd what was published since.

    Run it where a centre runs. What has a higher revision in etcd is saved as it is published; a job that etcd knows
    as deleted is deleted; one of which etcd knows nothing is switched off. Nothing is lowered.
    """
    from crony.catalog.jobs import Catalog
    from crony.domain.signing import Sealer, Verifier, public_key
    from crony.etcd.client import Client
    from crony.etcd.keys import Keys
    from crony.recovery.catalogue import catalogue as take_over
    from crony.store.db import Database

    given = settings.load()
    database, keys = Database(given.database_url), Keys(given.namespace)
    database.upgrade()
    _agree(yes, "Take over from etcd what the database does not have?")
    webs = Verifier({*given.web_keys, *given.centre_keys, public_key(given.signing_key)})
    with Client.from_settings(given) as client:
        catalog = Catalog(database, client, keys, Sealer(given.signing_key))
        found = take_over(database, client, keys, webs, catalog)
    database.close()
    if form == "json":
        show.data({"jobs": found.jobs, "deleted": found.deleted, "calendars": found.calendars,
                   "objects": found.objects, "switched_off": found.switched_off, "failed": found.failed})  # fmt: skip
        return
    told = {
        "jobs": found.jobs,
        "deleted": found.deleted,
        "calendars": found.calendars,
        "pools and secrets": found.objects,
        "switched off, as etcd knows nothing of them": found.switched_off,
    }
    for words, names in told.items():
        click.echo(f"{words}: {', '.join(map(show.plain, names)) or 'none'}")
    for ident, why in found.failed.items():
        show.hint(f"job {show.plain(ident)} is left as it is: {show.plain(why)}")


def _etcd(*, yes: bool, force: bool, without_database: bool, form: str) -> int:
    from crony.domain.mark import past
    from crony.etcd.client import Client
    from crony.etcd.keys import Keys
    from crony.lifecycle.mark import look
    from crony.recovery.past import known
    from crony.recovery.recover import Recovery
    from crony.recovery.survey import survey
    from crony.store.db import Database

    given = settings.load()
    keys = Keys(given.namespace)
    if not given.database_url and not without_database:
        raise Invalid(
            "CRONY_DATABASE_URL", "is not set: it knows what has run since the backup",
            hint="run this where a centre runs, or with --without-database",
        )  # fmt: skip
    database = None if without_database else Database(given.database_url)
    if database is not None:
        database.ping()
    seen = known(given, keys)
    with Client.from_settings(given) as client:
        found = look(client, keys)
        reasons = [f"{who}: {why}" for who, kept in seen.items() if (why := past(kept, found))]
        facts = survey(client, keys, found, seen, reasons, database)
        if form != "json":
            show.facts(facts)
        if not reasons and not force:
            raise Conflict(
                "etcd does not look restored", why="nobody here has seen more of it",
                hint="run this where a centre runs; --force if you know that it was",
            )  # fmt: skip
        _agree(yes, "Recover?")
        report = Recovery(given, client, keys, database, seen.values(), show.hint).perform()
    if database is not None:
        database.close()
    result: dict[str, Any] = {
        "epoch": report.epoch,
        "cursors_moved": report.cursors,
        "fires_not_known": report.skipped,
        "runs": dict(report.runs),
        "held": report.held,
        "chains_followed": report.followed,
        "chains_not_followed": report.not_followed,
        "backfills": report.backfills,
        "published": report.published,
        "revisions_bumped": report.bumped,
        "revisions_behind": report.behind,
    }
    if form == "json":
        show.data(result)
        return 0
    click.echo("recovered: centres and webs go on by themselves, nodes stop and have to be started anew")
    show.facts([(name.replace("_", " "), _text(value)) for name, value in result.items()])
    for run in report.held[:20]:
        show.hint(f"on hold: {run} (`crony run release` lets it run, `crony run cancel` ends it)")
    if report.behind:
        show.hint(
            f"etcd is {report.behind:,} revisions behind what was seen: start every process that ran before the "
            "restore anew, or restore with `etcdutl snapshot restore --bump-revision`"
        )
    return 0


def _agree(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Invalid("--yes", "is missing", hint="nobody can be asked here; look at what it says, then add --yes")
    click.confirm(question, abort=True, err=True)


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in sorted(value.items()))
    return len(value) if isinstance(value, list) else value
