"""Leaders and centres: L1 to L8."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING

from crony.errors import CronyError
from tests.soak.faults.registry import cut, dispatches, fault, heal, leader_of

if TYPE_CHECKING:
    from tests.soak.world import World


@fault(3)
def L1_leader_killed(world: World, rng: random.Random) -> None:
    """SIGKILL the leader, around a fire; it comes back after another one leads."""
    found = leader_of(world, rng)
    if found is None:
        return
    name, term, shard = found
    world.wait((1 + rng.uniform(-0.2, 0.05) - time.time()) % 1)
    with world.fault("L1", who=name, leader_gone="killed", term=term, shard=shard):
        world.kill(name)
    world.wait(world.crony.leader_ttl + 2.5)
    world.start(name)


@fault(3)
def L2_answer_lost(world: World, rng: random.Random) -> None:
    """The answer to a dispatch is lost; then, or not, the leader is killed."""
    found = leader_of(world, rng)
    if found is None:
        return
    name, _, _ = found
    with world.fault("L2", who=name):
        for proxy in world.links(name):
            proxy.lose_answer_about(world.keys.done(""))
        world.wait(rng.uniform(1.0, 2.0))
        killed = rng.random() < 0.5
        if killed:
            world.kill(name)
            world.wait(world.crony.leader_ttl + 1)
        for proxy in world.links(name):
            proxy._lose.clear()
        world.wait(0.5)
    if killed:
        world.start(name)


@fault(3)
def L3_leader_paused(world: World, rng: random.Random) -> None:
    """SIGSTOP the leader for three TTLs, over several fires; it wakes up believing that it leads."""
    found = leader_of(world, rng)
    if found is None:
        return
    name, term, shard = found
    with world.fault("L3", who=name, leader_gone="paused", term=term, shard=shard):
        world.pause(name)
        world.wait(world.crony.leader_ttl * 3)
        world.resume(name)
        world.wait(0.5)


@fault(3)
def L4_dispatch_late(world: World, rng: random.Random) -> None:
    """A dispatch reaches etcd two TTLs late: its leader waits for it, or is dead and another one leads."""
    found = leader_of(world, rng)
    if found is None:
        return
    name, _, _ = found
    with world.fault("L4", who=name):
        proxies = world.links(name)
        done, queue = dispatches(world)
        for proxy in proxies:
            proxy.delay_about(done, world.crony.leader_ttl * 2, also=queue)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and not any(proxy.delayed for proxy in proxies):
            world.wait(0.02)
        killed = rng.random() < 0.6
        if killed:
            world.kill(name)
        for proxy in proxies:
            proxy._late.clear()
            proxy.delayed = 0
        world.wait(world.crony.leader_ttl * 2 + 1)
    if killed:
        world.start(name)


@fault(2)
def L5_leader_cut(world: World, rng: random.Random) -> None:
    """The leader is cut off from etcd, by refusal or in silence, while everybody else is not."""
    found = leader_of(world, rng)
    if found is None:
        return
    name, term, shard = found
    with world.fault("L5", who=name, leader_gone="cut", term=term, shard=shard):
        cut(world, rng, name)
        world.wait(world.crony.leader_ttl + rng.uniform(0.5, 3))
        heal(world, name)
        world.wait(0.5)


@fault(2)
def L6_leaders_flap(world: World, rng: random.Random) -> None:
    """Kill whoever leads, again and again, half a TTL apart."""
    with world.fault("L6"):
        for _ in range(rng.randint(3, 6)):
            found = leader_of(world, rng)
            if found is not None:
                world.kill(found[0])
                world.start(found[0])
            world.wait(world.crony.leader_ttl / 2)
        world.wait(world.crony.leader_ttl + 2)


@fault(2)
def L7_all_centres_down(world: World, rng: random.Random) -> None:
    """No centre for a while: every misfire policy has something to decide."""
    names = world.named("c")
    with world.fault("L7"):
        for name in names:
            world.kill(name)
        world.wait(rng.uniform(5, 14))
        for name in names:
            world.start(name)
        world.wait(world.crony.leader_ttl + 4)


@fault(3)
def L8_hand_over(world: World, rng: random.Random) -> None:
    """SIGTERM the leader; or somebody deletes its key; or a second centre of the same name comes."""
    found = leader_of(world, rng)
    if found is None:
        return
    name, term, shard = found
    how = rng.choice(["term", "term", "delete", "namesake"])
    if how == "term":
        with world.fault("L8", who=name, leader_gone="clean", term=term, shard=shard):
            world.terminate(name)
        world.wait(2.0)
        with contextlib.suppress(Exception):
            world.processes[name].popen.wait(20)  # type: ignore[union-attr]
        world.start(name)
    elif how == "delete":
        with world.fault("L8", who=name, how=how), contextlib.suppress(CronyError):
            world.client.delete(world.keys.leader(shard))
            world.wait(1.5)
    else:
        with world.fault("L8", who=name, how=how):
            twin = f"{name}-twin"
            if twin in world.processes:
                world.start(twin)
            else:
                world.twin(name, twin)
            world.wait(rng.uniform(1, 4))
            world.kill(rng.choice([name, twin]))
            world.wait(world.crony.leader_ttl + 1)
            if twin in world.named("c"):
                world.kill(twin)
            world.start(name)
            world.wait(world.crony.leader_ttl + 2)
