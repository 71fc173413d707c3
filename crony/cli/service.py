"""`crony service …`: applications that jobs call by name; registering one for as long as a command runs."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Protocol

import click

from crony import settings
from crony.cli import show
from crony.cli.api import Api, Target, api_option, segment
from crony.cli.show import output_option
from crony.domain.service import PROTOCOLS, Instance, parse_instance
from crony.errors import CronyError, Forbidden, Invalid, Unavailable, Unknown


@click.group()
def service() -> None:
    """Services: list, register, deregister."""


@service.command("list")
@api_option
@output_option
def list_(api: Api, form: str) -> None:
    """List services and their instances."""
    found = api.get("services")["items"]
    if form == "json":
        return show.data(found)
    show.table(
        ("SERVICE", "INSTANCE", "ADDRESS", "PROTOCOL", "WEIGHT", "HEALTHY", "VERSION", "SINCE", "BY"),
        [
            (
                each["service"], each["instance"], each["address"], each["protocol"], each["weight"],
                "yes" if each["healthy"] else "no", each["version"], show.away(each["since_at"]), each["by"],
            )
            for row in found
            for each in row["instances"]
        ],
        empty="no service has registered yet: `crony service register --help`",
    )  # fmt: skip


@service.command()
@click.argument("name", metavar="SERVICE")
@click.argument("instance")
@api_option
def deregister(name: str, instance: str, api: Api) -> None:
    """Take an instance off; one that lives registers again."""
    api.call("DELETE", f"services/{segment(name)}/instances/{segment(instance)}")
    click.echo(f"{show.plain(instance)} of {show.plain(name)} is taken off")


@service.command()
@click.argument("name", metavar="SERVICE")
@click.option("--address", required=True, metavar="HOST:PORT", help="Where the nodes reach it.")
@click.option(
    "--protocol", type=click.Choice(PROTOCOLS), default="grpc", show_default=True, help="What is spoken there."
)
@click.option("--weight", type=click.IntRange(0, 1000), default=100, show_default=True, help="Its share of the calls.")
@click.option("--version", "version_", default="", help="Shown beside it.")
@click.option("--ttl", default="1m", show_default=True, help="Forgotten after so long a silence.")
@click.option("--instance", help="Its name (default: its address).")
@click.option("--etcd", "direct", is_flag=True, help="Write to etcd itself (CRONY_ETCD_…), past the web.")
@api_option
@click.argument("command", nargs=-1, metavar="[-- COMMAND]...")
@click.pass_context
def register(
    context: click.Context,
    name: str,
    address: str,
    protocol: str,
    weight: int,
    version_: str,
    ttl: str,
    instance: str | None,
    direct: bool,
    api: Api,
    command: tuple[str, ...],
) -> None:
    """Register an instance while COMMAND runs (without one: until interrupted), then take it off.

    Through the web it needs a token of the scope `service` whose name is the service's.
    """
    document = {"address": address, "protocol": protocol, "weight": weight, "version": version_, "ttl": ttl}
    if instance:
        document["instance"] = instance
    try:
        wanted = parse_instance(name, document)
    except Invalid as error:
        field = "SERVICE" if error.field == "service" else f"--{error.field}"
        raise Invalid(field, error.problem, hint=error.hint) from None
    keeper: _Keeper = _InEtcd(wanted) if direct else _ThroughWeb(api, wanted, document)
    context.exit(_keep(keeper, wanted, command))


class _Keeper(Protocol):
    def register(self) -> None:
        """Put it there. Raises `CronyError`."""

    def beat(self) -> None:
        """It lives. Raises `Forbidden` when it has to register again, `CronyError`."""

    def leave(self) -> None:
        """Take it off. Raises `CronyError`."""


@dataclass
class _ThroughWeb:
    api: Api
    wanted: Instance
    document: dict[str, Any]
    secret: str = ""

    @property
    def _path(self) -> str:
        return f"services/{segment(self.wanted.service)}/instances"

    def _with_secret(self, verb: str) -> None:
        own = Api(Target(self.api.target.base, self.secret, self.api.target.source))
        own.call("POST", f"{self._path}/{segment(self.wanted.instance)}:{verb}", body={})

    def register(self) -> None:
        self.secret = self.api.call("POST", self._path, body=self.document)["secret"]

    def beat(self) -> None:
        self._with_secret("heartbeat")

    def leave(self) -> None:
        self._with_secret("leave")


class _InEtcd:
    def __init__(self, wanted: Instance) -> None:
        from crony.etcd.client import Client
        from crony.etcd.keys import Keys

        given = settings.load()
        self._client, self._keys = Client.from_settings(given), Keys(given.namespace)
        self._wanted = replace(wanted, by="crony service register")

    def register(self) -> None:
        from crony.lifecycle.enlist import enlist

        enlist(self._client, self._keys, replace(self._wanted, at=self._client.now()))

    def beat(self) -> None:
        from crony.lifecycle.enlist import hear

        wanted = self._wanted
        if hear(self._client, self._keys, wanted.service, wanted.instance, lambda there: there) is None:
            raise Forbidden("it is not registered any more")

    def leave(self) -> None:
        from crony.lifecycle.enlist import delist

        delist(self._client, self._keys, self._wanted.service, self._wanted.instance, lambda there: not there.secret)


def _keep(keeper: _Keeper, wanted: Instance, command: Sequence[str]) -> int:
    """Registered until the command ends or we are told to; the exit code."""
    keeper.register()
    show.hint(f"{show.plain(wanted.instance)} of {show.plain(wanted.service)} is registered")
    stop, child = threading.Event(), subprocess.Popen(command) if command else None

    def told(number: int, frame: FrameType | None) -> None:
        if child is not None:
            child.send_signal(number)
        else:
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    beating = threading.Thread(target=_beat, args=(keeper, wanted, stop), daemon=True)
    beating.start()
    try:
        return _code(child.wait()) if child is not None else _until(stop)
    finally:
        stop.set()
        beating.join(wanted.ttl / 3)
        try:
            keeper.leave()
        except CronyError as error:
            show.hint(f"it could not be taken off and is forgotten after {wanted.ttl:g} s: {error}")


def _code(returned: int) -> int:
    """The exit code of a command; one that a signal ended, as shells tell it."""
    return returned if returned >= 0 else 128 - returned


def _until(stop: threading.Event) -> int:
    while not stop.wait(0.5):  # signals are heard between waits
        pass
    return 0


def _beat(keeper: _Keeper, wanted: Instance, stop: threading.Event) -> None:
    """Signs of life, and registering again where one is not known any more; trouble is said once."""
    trouble, pause = "", wanted.ttl / 3
    while not stop.wait(pause):
        pause = wanted.ttl / 3
        try:
            _beat_once(keeper)
            said = ""
        except (Unavailable, Unknown) as error:
            said, pause = str(error), min(pause, 2.0)
        except CronyError as error:
            said = str(error)
        if said and said != trouble:
            show.hint(f"{show.plain(wanted.instance)} was not heard of: {said}")
        trouble = said


def _beat_once(keeper: _Keeper) -> None:
    try:
        keeper.beat()
    except Forbidden:
        keeper.register()
