"""Nodes: N1 and N3 to N8."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from typing import TYPE_CHECKING

from tests.soak.callers import Desk
from tests.soak.faults.registry import cut, fault, heal

if TYPE_CHECKING:
    from tests.soak.world import World


@fault(4)
def N1_node_killed(world: World, rng: random.Random) -> None:
    """SIGKILL a node with what it runs and holds; it comes back later, or (N6) at once under its name."""
    name = rng.choice(world.named("n"))
    incarnation = world.incarnation(name)
    at_once = rng.random() < 0.4
    with world.fault("N6" if at_once else "N1", who=name, nodes_gone=[incarnation] if incarnation else []):
        world.kill(name)
    if not at_once:
        world.wait(world.crony.node_ttl + world.crony.grace + 3)
    world.start(name)


@fault(2)
def N3_child_killed(world: World, rng: random.Random) -> None:
    """SIGKILL a pool process, and nothing else."""
    children = [child for name in world.named("n") for child in world.children(name)]
    if not children:
        return
    with world.fault("N3"), contextlib.suppress(ProcessLookupError):
        os.kill(rng.choice(children), signal.SIGKILL)
        world.wait(1)


@fault(3)
def N4_zombie(world: World, rng: random.Random) -> None:
    """SIGSTOP a node for three TTLs: its work is done elsewhere; it wakes up and ends what it had."""
    name = rng.choice(world.named("n"))
    with world.fault("N4", who=name):
        world.pause(name)
        world.wait(world.crony.node_ttl * 3 if rng.random() < 0.7 else world.crony.node_ttl * 0.8)
        world.resume(name)
        world.wait(1)


@fault(2)
def N5_node_cut(world: World, rng: random.Random) -> None:
    """A node is cut off from etcd while its jobs go on."""
    name = rng.choice(world.named("n"))
    with world.fault("N5", who=name):
        cut(world, rng, name)
        world.wait(world.crony.node_ttl + rng.uniform(-1.5, 4))
        heal(world, name)
        world.wait(1)


@fault(2)
def N7_poison(world: World, rng: random.Random) -> None:
    """A job that takes its pool process with it, as long as it may be tried."""
    job = world.jobs.get("hand/poison")
    if job is None or not any(world.children(name) for name in world.named("n")):
        return
    with world.fault("N7"):
        body = {"params": {"how": rng.choice(["exit", "crash", "kill"])}}
        Desk(world).call("run", "POST", f"jobs/{job['id']}:run", body, job=job["id"], key="")
        world.wait(6)


@fault(1)
def N8_all_but_one(world: World, rng: random.Random) -> None:
    """Kill every node but one at once while they hold as much as they can."""
    job, nodes = world.jobs.get("hand/long"), world.named("n")
    if job is None or len(nodes) < 2:
        return
    with world.fault("N8") as facts:
        desk = Desk(world)
        for _ in range(20):
            desk.call("run", "POST", f"jobs/{job['id']}:run", {}, job=job["id"], key="")
        rng.shuffle(nodes)
        facts["who"] = nodes[1:]
        for name in nodes[1:]:
            world.kill(name)
        world.wait(world.crony.node_ttl + world.crony.grace + 3)
        for name in nodes[1:]:
            world.start(name)
        world.wait(20 * 4 / 4)
