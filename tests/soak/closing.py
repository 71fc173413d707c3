"""The end of a soak: all is put right, what is under way ends, everybody leaves, and what is left is noted."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.wait import patient, until
from tests.soak.callers import Desk, decide
from tests.soak.cast import Document
from tests.soak.record import Recorder

if TYPE_CHECKING:
    from tests.soak.world import World

ALIVE = ("run/in/", "run/wait/", "run/q/", "run/acc/", "run/join/", "cmd/", "pool/")
DRAIN = 60.0
AT_ONCE = 6
"""Calls at a time where each waits for a leader to have taken a save in."""
GOES_ON = 8.0
"""Seconds for which everything goes on after it was recovered."""
LEASED = ("session/", "node/", "beat/0/leader")


def end(world: World) -> None:
    """Nothing new, wait until all has ended and is archived, stop everybody; write down what is left."""
    crony = world.crony
    _everything_right(world)
    began_at = time.time()
    _pause_all(world)
    began = time.monotonic()
    drained = patient(DRAIN)
    desk = Desk(world)

    def through() -> bool:
        # What may have run before etcd was restored is not let run again: people would not know, either.
        decide(desk, world.rng, release=0.0 if world.recovered else 0.7)
        return not any(map(crony.count, ALIVE)) and not _filling(world)

    with contextlib.suppress(AssertionError):  # the judge tells
        until(through, DRAIN, "all runs to end", every=0.3)
        drained = time.monotonic() - began
    with contextlib.suppress(AssertionError):
        crony.archived(20)
        until(lambda: not crony.count("alert/"), 10, "alerts to be in the database", every=0.1)
        until(lambda: not crony.count("alert.send/"), 10, "notices to be sent", every=0.1)
    with contextlib.suppress(AssertionError):
        until(lambda: all(outcome for _, outcome in _runs(world)), 10, "every run to be shown as ended", every=0.5)
    runs, skips, ranges = _runs(world), *_skips(world)
    world.note_marks()
    exits = _stop_all(world)
    with contextlib.suppress(AssertionError):
        until(lambda: not any(map(crony.count, LEASED)), 20, "leases to end", every=0.1)
    world.recorder.catch_up()
    left = [
        kv.key.removeprefix(world.keys.root)
        for kv in world.client.list(world.keys.root, keys_only=True).kvs
        if not kv.lease or kv.key.removeprefix(world.keys.root).startswith(LEASED)  # leases of the dead run out
    ]
    world.journal.note(
        "end", drained=drained, runs=runs, skips=skips, left=left, exits=exits, leaked=_leaked(world),
        ranges=ranges, quiet=began_at,
    )  # fmt: skip


def cut_short(world: World) -> None:
    """No end: only the marks are added, so that what was seen can be judged."""
    world.note_marks()
    world.recorder.catch_up()


def restore(world: World, *, wipe: bool) -> None:
    """E9, S2: etcd comes back as it was a while ago, or empty, while everybody runs; nothing may be dispatched until
    people say so, by `crony recover`. Then all goes on for a while."""
    member = world.members[0]
    kept = Path(f"{member.data_dir}.kept")
    if not wipe:
        member.stop()
        shutil.copytree(member.data_dir / "data", kept)
        world.do(member.start)
        world.wait(world.crony.node_ttl + 4)
    world.recorder.catch_up()
    with world.fault("E9", wipe=wipe, etcd_away=False):
        member.stop()
        world.recorder.stop()
        member.wipe()
        if not wipe:
            shutil.move(kept, member.data_dir / "data")
        lines = sum(1 for _ in world.journal.path.open())
        world.journal.note("restored", line=lines + 1, wipe=wipe)
        world.do(member.start)
        world.recorder = Recorder(world.endpoints, world.journal)
        world.wait(world.crony.leader_ttl * 2 + 4)
        world.recorder.catch_up()
    world.note_marks()
    _recover(world)
    until(world.leader, 60, "a leader")
    nodes = world.named("n")
    until(lambda: set(nodes) <= world.crony.nodes(), 60, "nodes that were begun anew")
    world.wait(GOES_ON)


def _recover(world: World) -> None:
    """As an operator does it, where a centre runs."""
    world.recovered = True
    world.journal.note("recovered")
    environ = world.processes["c1"].environ
    words = ["-m", "tests.soak.wrapped", "crony", "recover", "--yes", "--output", "json"]
    done = world.do(
        lambda: subprocess.run([sys.executable, *words], env=dict(environ), capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, f"crony recover: {done.returncode}\n{done.stdout}\n{done.stderr}"
    world.journal.note("report", told=done.stdout, said=done.stderr)


def _filling(world: World) -> bool:
    """Whether a backfill is under way."""
    found = world.client.list(world.keys.backfill("")).kvs
    return any(not json.loads(kv.value).get("ended_at") for kv in found)


def _everything_right(world: World) -> None:
    for proxy in world.links(*world.proxies):
        proxy.latency = 0.0
        proxy._lose.clear()
        proxy._late.clear()
        proxy.heal()
    for name, process in world.processes.items():
        world.resume(name)
        if not name.endswith("-twin") and not process.running:
            world.start(name)
    until(lambda: world.crony._alive(world.crony.port), 30, "the web to answer")
    until(world.leader, 20, "a leader")


def _pause_all(world: World) -> None:
    """No job is due any more."""
    Desk(world).call("go", "PUT", "control", {"stop": False}, job="")

    def pause(job: Document) -> None:
        Desk(world).call("pause", "POST", f"jobs/{job['id']}:pause", job=job["id"])

    def paused() -> bool:
        status, told = Desk(world).call("look", "GET", "jobs?enabled=true&limit=200", job="")
        enabled = told["items"] if status == 200 else []
        with ThreadPoolExecutor(AT_ONCE) as several:
            list(several.map(pause, enabled))
        return status == 200 and not enabled

    until(paused, 30, "every job to be paused")


def _runs(world: World) -> list[tuple[str, str | None]]:
    return [(run["id"], run["outcome"]) for run in world.crony.runs()]


def _skips(world: World) -> tuple[list[tuple[str, int]], list[tuple[str, int, int]]]:
    """(run, how many) of each record, and (job, first, last) of those of schedules."""
    skips: list[tuple[str, int]] = []
    ranges: list[tuple[str, int, int]] = []
    cursor = None
    while True:
        page = world.crony.call("GET", "skips", limit=200, **({"cursor": cursor} if cursor else {}))
        skips += [(skip["run"], skip["count"]) for skip in page["items"]]
        for skip in page["items"]:
            if skip["trigger"] == "schedule" and skip["fire_at"]:
                first, last = skip["fire_at"], skip["to_at"] or skip["fire_at"]
                ranges.append((skip["job"], *(int(datetime.fromisoformat(each).timestamp()) for each in (first, last))))
        cursor = page["next_cursor"]
        if not cursor:
            return skips, ranges


def _stop_all(world: World) -> dict[str, int]:
    """SIGTERM to everybody: nodes, centres, web; their exit codes."""
    exits = {}
    for role in ("n", "c", "w"):
        names = [name for name in world.named(role) if world.processes[name].running]
        for name in names:
            world.terminate(name)
        for name in names:
            popen = world.processes[name].popen
            assert popen is not None
            try:
                exits[name] = popen.wait(patient(15))
            except Exception:
                exits[name] = -99
    return exits


def _leaked(world: World) -> list[str]:
    """Processes of this world that are still there."""
    found = []
    wanted = str(world.folder).encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            about = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            served = any(str(member.data_dir).encode() in about for member in world.members)
            if wanted in about and not served and b"mariadbd" not in about:
                found.append(f"{path.name} {(path / 'cmdline').read_bytes()[:120]!r}")
    return found
