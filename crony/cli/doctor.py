"""`crony doctor`: is etcd fit to carry us, and what to do when it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from crony.cli import here, show
from crony.cli.show import output_option
from crony.errors import CronyError

if TYPE_CHECKING:
    from crony.etcd.checkup import Finding
    from crony.etcd.client import Client
    from crony.etcd.keys import Keys
    from crony.settings import Settings


@click.command()
@click.option("--fix", is_flag=True, help="Compact, defragment and take the alarm back, where that helps.")
@click.option(
    "--quota",
    type=click.IntRange(1),
    metavar="MIB",
    help="etcd's quota, where it does not tell (before 3.6); default CRONY_ETCD_QUOTA.",
)
@output_option
def doctor(fix: bool, quota: int | None, form: str) -> int:
    """Look at etcd: members, version, room, alarms, history, clock, access; and at the centres' clocks and time zone
    data, and whether etcd was restored, as far as this machine or the database (CRONY_DATABASE_URL) knows. Exit code 1
    when something is bad.

    It only reads. With --fix it frees what can be freed: each member stands still while it is defragmented, and the
    etcd user needs the root role for it.
    """
    from crony.etcd import checkup
    from crony.etcd.client import Client
    from crony.etcd.keys import Keys

    given = here.load()
    keys, room = Keys(given.namespace), (quota or given.etcd_quota) * 2**20

    def connect(endpoints: Sequence[str]) -> Client:
        return Client.from_settings(replace(given, etcd_endpoints=tuple(endpoints)))

    with checkup.Members(given.etcd_endpoints, connect) as members:
        found = checkup.examine(members, keys, quota=room)
        done: list[str] = []
        if fix and any(each.curable for each in found):
            done = checkup.cure(members.all, keys)
            found = checkup.examine(members, keys, quota=room)
        if any(each.about != "member" for each in found):  # it answers
            found += platform(members.all, keys, given)
    bad = any(each.level is checkup.Level.BAD for each in found)
    if form == "json":
        show.data({"findings": [asdict(each) for each in found], "done": done, "healthy": not bad})
        return int(bad)
    show.table(("", "ABOUT", "FINDING"), [(each.level.value, each.about, each.says) for each in found])
    for line in done:
        show.hint(f"done: {line}")
    if fix and not done:
        show.hint("there was nothing that --fix could mend")
    for each in found:
        if each.hint and each.level is not checkup.Level.OK:
            show.hint(f"{each.about}: try {each.hint}")
    return int(bad)


def platform(client: Client, keys: Keys, given: Settings) -> list[Finding]:
    """Whether etcd went back in time, and the clocks of the centres."""
    from crony.etcd.checkup import SKEW, Finding, Level
    from crony.lifecycle import centres
    from crony.recovery.past import restored

    found: list[Finding] = []
    try:
        why = restored(client, keys, given)
        hint = "read docs/how-to/restore.md, then run `crony recover`"
        says = f"etcd's data went back in time: {why}" if why else "etcd was not restored, as far as is known here"
        found.append(Finding("restored", Level.BAD if why else Level.OK, says, hint if why else ""))
        standing = centres.look(client, keys)
        for facts in standing.running.values():
            off = abs(facts.skew)
            level = Level.BAD if off > SKEW[1] else Level.LOOK if off > SKEW[0] else Level.OK
            says = f"centre {facts.name}: its clock is {facts.skew:+.1f} s off from etcd's"
            says += "" if facts.able else "; it does not lead"
            found.append(Finding("centre", level, says, "" if level is Level.OK else "run NTP on its machine"))
        found.append(_time_zones(standing.tzdata))
    except CronyError as error:
        found.append(Finding("centres", Level.LOOK, f"cannot be looked at: {error}", error.hint))
    return found


def _time_zones(running: Mapping[str, str]) -> Finding:
    """Whether everybody who decides or shows when jobs fire goes by the same time zone data."""
    from crony.domain import tzdata
    from crony.etcd.checkup import Finding, Level

    here = tzdata.version()
    said = [f"this machine has {here}", *(f"centre {name} has {release}" for name, release in sorted(running.items()))]
    if {here, *running.values()} == {here}:
        return Finding("time zones", Level.OK, "; ".join(said))
    hint = "install the same time zone data everywhere: what fires when is decided by the data of the centre that leads"
    return Finding("time zones", Level.LOOK, "; ".join(said), hint)
