"""Entry of the `crony` command: its nouns, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

import click

from crony.cli.lazy import LazyGroup
from crony.errors import CronyError

COMMANDS = {
    "dev": ("crony.cli.dev:dev", "all of Crony on this machine, in one command"),
    "job": ("crony.cli.job:job", "jobs: create, list, get, why, graph, run, backfill, pause, resume, delete"),
    "apply": ("crony.cli.apply:apply", "jobs declared in Python: make the platform agree with a module"),
    "run": ("crony.cli.run:run", "runs: list, get, chain, output, wait, cancel, release"),
    "accept": ("crony.cli.accept:accept", "in a shell job: its work goes on elsewhere"),
    "backfill": ("crony.cli.backfill:backfill", "backfills: list, get, cancel"),
    "schedule": ("crony.cli.schedule:schedule", "schedules: explain"),
    "node": ("crony.cli.node:node", "nodes: list, show, set, weight, label, cordon, uncordon, drain, undrain"),
    "service": ("crony.cli.service:service", "services that jobs call by name: list, register, deregister"),
    "calendar": ("crony.cli.calendar:calendar", "calendars: list, show, apply, delete"),
    "pool": ("crony.cli.pool:pool", "limits that jobs share: set, list, get, delete"),
    "secret": ("crony.cli.secret:secret", "what jobs are given and nobody sees: set, list, delete, rotate"),
    "alert": ("crony.cli.alert:alert", "alerts: list, test"),
    "channel": ("crony.cli.channel:channel", "where alerts can be sent: set, list, get, delete, test"),
    "alert-rule": ("crony.cli.channel:alert_rule", "which alerts go where: set, list, get, delete"),
    "queue": ("crony.cli.queue:queue", "Celery queues: list, show, purge, dead, requeue, drop, waiting, withdraw"),
    "status": ("crony.cli.status:status", "who leads, which centres and nodes run, what is under way"),
    "shards": ("crony.cli.status:shards", "who leads which shard; change their number"),
    "stop": ("crony.cli.control:stop", "hand out no work any more, on the whole platform"),
    "go": ("crony.cli.control:go", "hand out work again after `crony stop`"),
    "import": ("crony.cli.importer:importer", "jobs from elsewhere: crontab"),
    "beat": ("crony.cli.roles:beat", "start a scheduling centre"),
    "worker": ("crony.cli.roles:worker", "start a node (wraps `celery -A crony worker`)"),
    "web": ("crony.cli.roles:web", "start the web console and API"),
    "flower": ("crony.cli.roles:flower", "start Flower (wraps `celery -A crony flower`)"),
    "doctor": ("crony.cli.doctor:doctor", "is etcd fit: members, room, alarms, clock, access"),
    "recover": ("crony.cli.recover:recover", "after etcd was restored from a backup; the database: catalogue"),
    "db": ("crony.cli.db:db", "the database: upgrade, check"),
    "user": ("crony.cli.account:user", "people: link (a one-time sign-in)"),
    "token": ("crony.cli.account:token", "API tokens for machines: create, list, revoke"),
    "keys": ("crony.cli.keys:keys", "keys: new (to sign), secret (to encrypt)"),
    "config": ("crony.cli.config:config", "every setting, its variable and its value"),
    "version": ("crony.cli.config:version", "the version"),
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 error, 2 wrong input, 3 not found, 4 not allowed, 5 conflict, "
    "6 the run ended unsuccessfully, 7 waited too long, 8 server out of reach, 130 interrupted.",
)
@click.option("--trace", is_flag=True, help="Show the traceback of an unexpected error.")
@click.pass_context
def cli(ctx: click.Context, trace: bool) -> None:
    """Crony: scheduled jobs on many machines, every fire accounted for."""
    ctx.obj = {"trace": trace}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; the only place that turns errors into words."""
    _open_streams()
    arguments = [_text(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has left (`crony run list | head`): nothing to say, nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command line; the exit code. Errors go to stderr as: what, why, what to try."""
    try:
        result = cli.main(arguments, prog_name="crony", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "crony"
        complain(error.format_message(), hint=f"`{where} --help` shows what it takes")
        return 2
    except click.ClickException as error:
        complain(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return 130
    except CronyError as error:
        complain(error.what, why=error.why, hint=error.hint)
        return error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        complain(f"{name}{error.strerror or error}")
        return 1
    except Exception as error:
        if "--trace" in arguments or arguments[:1] in (["beat"], ["web"]):
            raise  # somebody operates these: the log needs all of it
        complain(
            f"unexpected error: {type(error).__name__}: {error}",
            why="this is a mistake in Crony, not in what you typed",
            hint="`crony --trace …` shows where; please report it",
        )
        return 1


def complain(what: str, *, why: str = "", hint: str = "") -> None:
    """An error to a person, on stderr: what; why; what to try. Never raises."""
    from crony.cli.show import plain

    try:
        click.echo(f"crony: {plain(what)}", err=True)
        if why:
            click.echo(f"  why: {plain(why)}", err=True)
        if hint:
            click.echo(f"  try: {plain(hint)}", err=True)
    except OSError:
        pass


def _text(argument: str) -> str:
    # In a locale that is not UTF-8, Python keeps the bytes of an argument as surrogates.
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument.encode("utf-8", "backslashreplace").decode()


def _open_streams() -> None:
    # A stream may be closed (`>&-`, cron, some supervisors), and a locale may not know the text.
    for name in ("stdin", "stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
