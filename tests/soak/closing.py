"""The end of a soak: all is put right, what is under way ends, everybody leaves, and what is left is noted."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers.wait import patient, until
from tests.soak.callers import Desk, decide
from tests.soak.record import Recorder

if TYPE_CHECKING:
    from tests.soak.world import World

ALIVE = ("run/in/", "run/wait/", "run/q/", "run/acc/", "cmd/")
DRAIN = 60.0
LEASED = ("session/", "node/", "beat/0/leader")


def end(world: World) -> None:
    """Nothing new, wait until all has ended and is archived, stop everybody; write down what is left."""
    crony = world.crony
    _everything_right(world)
    _pause_all(world)
    began = time.monotonic()
    drained = patient(DRAIN)
    desk = Desk(world)

    def through() -> bool:
        decide(desk, world.rng)
        return not any(map(crony.count, ALIVE))

    with contextlib.suppress(AssertionError):  # the judge tells
        until(through, DRAIN, "all runs to end", every=0.3)
        drained = time.monotonic() - began
    with contextlib.suppress(AssertionError):
        crony.archived(20)
        until(lambda: not crony.count("alert/"), 10, "alerts to be in the database", every=0.1)
    with contextlib.suppress(AssertionError):
        until(lambda: all(outcome for _, outcome in _runs(world)), 10, "every run to be shown as ended", every=0.5)
    runs, skips = _runs(world), _skips(world)
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
    world.journal.note("end", drained=drained, runs=runs, skips=skips, left=left, exits=exits, leaked=_leaked(world))


def cut_short(world: World) -> None:
    """No end: only the marks are added, so that what was seen can be judged."""
    world.note_marks()
    world.recorder.catch_up()


def restore(world: World, *, wipe: bool) -> None:
    """E9: etcd comes back as it was a while ago, or empty, while everybody runs; then nothing may be dispatched."""
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
    world.journal.note("stopped", exits=_stop_all(world))


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
    desk = Desk(world)
    desk.call("go", "PUT", "control", {"stop": False}, job="")

    def paused() -> bool:
        enabled = world.crony.call("GET", "jobs", enabled="true", limit=200)["items"]
        for job in enabled:
            desk.call("pause", "POST", f"jobs/{job['id']}:pause", job=job["id"])
        return not enabled

    until(paused, 30, "every job to be paused")


def _runs(world: World) -> list[tuple[str, str | None]]:
    return [(run["id"], run["outcome"]) for run in world.crony.runs()]


def _skips(world: World) -> list[tuple[str, int]]:
    skips: list[tuple[str, int]] = []
    cursor = None
    while True:
        page = world.crony.call("GET", "skips", limit=200, **({"cursor": cursor} if cursor else {}))
        skips += [(skip["run"], skip["count"]) for skip in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            return skips


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
