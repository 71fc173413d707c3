"""`crony beat`, `crony web`, `crony worker`, `crony flower`: the processes of a production set-up, one each."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from dataclasses import replace

import click

from crony import logs, settings
from crony.cli import show
from crony.errors import Invalid, Unavailable


@click.command()
def beat() -> None:
    """Start a scheduling centre. Start two: one leads, the other takes over."""
    from crony.beat.centre import main

    given = settings.load()
    logs.setup("beat", level=given.log_level, form=given.log_format)
    main(given, until_stopped())


@click.command()
@click.option("--host", help="Address to listen on (default CRONY_WEB_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default CRONY_WEB_PORT).")
def web(host: str | None, port: int | None) -> None:
    """Start the web console and the REST API."""
    given = settings.load()
    given = replace(given, web_host=host or given.web_host, web_port=given.web_port if port is None else port)
    logs.setup("web", level=given.log_level, form=given.log_format)
    listener = listen(given.web_host, given.web_port)
    import uvicorn

    from crony.web.app import create_app

    uvicorn.Server(
        uvicorn.Config(
            create_app(given),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=64 * 1024,
        )
    ).run(sockets=[listener])


_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


@click.command(context_settings=_PASS_ON)
@click.option(
    "--pool",
    type=click.Choice(["prefork", "threads", "solo"]),
    default="prefork",
    show_default=True,
    help="Celery's pool: processes, threads, or one attempt at a time.",
)
@click.option("--concurrency", type=click.IntRange(1), help="Attempts at a time (default: one per processor).")
@click.argument("rest", nargs=-1, metavar="[CELERY OPTIONS]...")
def worker(pool: str, concurrency: int | None, rest: tuple[str, ...]) -> None:
    """Start a node: `celery -A crony worker`, with further options of Celery handed on."""
    given = settings.load()
    arguments = ["worker", "--pool", pool, "--loglevel", given.log_level, *rest]
    if not any(text.startswith(("-n", "--hostname")) for text in rest):
        arguments += ["--hostname", f"{given.node_name}@%h"]
    if concurrency:
        arguments += ["--concurrency", str(concurrency)]
    _celery(arguments)


@click.command(context_settings=_PASS_ON)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True, help="Port to listen on.")
@click.argument("rest", nargs=-1, metavar="[FLOWER OPTIONS]...")
def flower(address: str, port: int, rest: tuple[str, ...]) -> None:
    """Start Flower: `celery -A crony flower`. It shows nothing to strangers: FLOWER_BASIC_AUTH=user:password first."""
    guarded = any(name in os.environ for name in ("FLOWER_BASIC_AUTH", "FLOWER_AUTH"))
    if not guarded and not any(text.startswith(("--basic", "--auth", "--conf")) for text in rest):
        raise Invalid(
            "FLOWER_BASIC_AUTH",
            "is not set, and Flower lets everybody in who can reach it",
            hint="FLOWER_BASIC_AUTH=user:password crony flower",
        )
    settings.load()
    _celery(["flower", f"--address={address}", f"--port={port}", *rest])


def until_stopped() -> threading.Event:
    """An event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = threading.Event()

    def wish(_number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(1)
        # In a thread: the interrupted code may hold the event's own lock.
        threading.Thread(target=stop.set, daemon=True).start()

    signal.signal(signal.SIGTERM, wish)
    signal.signal(signal.SIGINT, wish)
    return stop


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `Unavailable` when the address is taken, `Invalid` when it is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise Invalid("CRONY_WEB_HOST", f"{host!r} is not an address: {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"the web cannot listen on {host} port {port}",
            why=error.strerror or str(error),
            hint="choose another one: --port or CRONY_WEB_PORT",
        ) from None
    return listener


def _celery(arguments: list[str]) -> None:
    show.hint("celery -A crony " + " ".join(arguments))
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "celery", "-A", "crony", *arguments])
