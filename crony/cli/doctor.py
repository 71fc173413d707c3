"""`crony doctor`: is etcd fit to carry us, and what to do when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import click

from crony import settings
from crony.cli import show
from crony.cli.show import output_option


@click.command()
@click.option("--fix", is_flag=True, help="Compact, defragment and take the alarm back, where that helps.")
@click.option(
    "--quota", type=click.IntRange(1), metavar="MIB", help="etcd's quota, where it does not tell (before 3.6)."
)
@output_option
def doctor(fix: bool, quota: int | None, form: str) -> int:
    """Look at etcd: members, version, room, alarms, history, clock, access. Exit code 1 when something is bad.

    It only reads. With --fix it frees what can be freed: each member stands still while it is defragmented, and the
    etcd user needs the root role for it.
    """
    from crony.etcd import checkup
    from crony.etcd.client import Client
    from crony.etcd.keys import Keys

    given = settings.load()
    keys, room = Keys(given.namespace), (quota or 0) * 2**20

    def connect(endpoints: Sequence[str]) -> Client:
        return Client.from_settings(replace(given, etcd_endpoints=tuple(endpoints)))

    with checkup.Members(given.etcd_endpoints, connect) as members:
        found = checkup.examine(members, keys, quota=room)
        done: list[str] = []
        if fix and any(each.curable for each in found):
            done = checkup.cure(members.all, keys)
            found = checkup.examine(members, keys, quota=room)
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
