"""What all of it stands on: etcd (E), the network (X), clocks (T), crowds (S), the web (W), the database (M)."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

from crony.errors import CronyError
from tests.helpers.server import Server
from tests.soak.callers import Desk
from tests.soak.cast import NO_LIMIT, marking
from tests.soak.faults.registry import fault, heal, leader_of
from tests.soak.record import Gateway

if TYPE_CHECKING:
    from tests.soak.world import World


def _etcd_leader(world: World) -> Server:
    for member in world.members:
        with contextlib.suppress(OSError):
            status = Gateway([member.endpoint]).call("/v3/maintenance/status", {})
            if status.get("leader") == status["header"]["member_id"]:
                return member
    return world.members[0]


def _start(world: World, *members: Any) -> None:
    for member in members:
        if not member.running:
            world.do(member.launch)
    for member in members:
        member.wait()


@fault(2)
def E1_member_killed(world: World, rng: random.Random) -> None:
    """SIGKILL one of three members: a follower, or the leader."""
    if len(world.members) < 3:
        return
    leads = _etcd_leader(world)
    victim = rng.choice([leads, *(member for member in world.members if member is not leads)])
    with world.etcd_lock, world.fault("E1", leads=victim is leads):
        victim.kill()
        world.wait(rng.uniform(2, 6))
        _start(world, victim)
        world.wait(1)


@fault(2)
def E2_no_majority(world: World, rng: random.Random) -> None:
    """SIGKILL the only member, or two of three, over several fires and longer than every lease."""
    victims = world.members if len(world.members) == 1 else rng.sample(world.members, 2)
    with world.etcd_lock, world.fault("E2", etcd_away=True):
        for victim in victims:
            victim.kill()
        world.wait(rng.uniform(2, 6) + (world.crony.node_ttl * 2 if rng.random() < 0.5 else 0))
        _start(world, *victims)
    with world.fault("E2 over"):
        world.wait(2)


@fault(2)
def E3_etcd_stands_still(world: World, rng: random.Random) -> None:
    """SIGSTOP etcd's leader, as a disk that stalls: old servers then end every lease at once."""
    victim = _etcd_leader(world)
    with world.etcd_lock, world.fault("E3"):
        victim.pause()
        world.wait(world.crony.node_ttl + rng.uniform(0, 4))
        victim.resume()
        world.wait(2)


@fault(2)
def E5_history_compacted(world: World, rng: random.Random) -> None:
    """Watches are away while things happen, and history is compacted before they are back."""
    names = [rng.choice(world.named("c")), rng.choice(world.named("n"))]
    with world.fault("E5", who=names), contextlib.suppress(CronyError, AssertionError):
        for proxy in world.links(*names):
            proxy.cut()
        world.wait(world.crony.leader_ttl * 0.6)
        world.recorder.catch_up(2.0)
        world.client.compact(world.recorder.revision)
    heal(world, *names)
    with world.fault("E5 over"):
        world.wait(1)


@fault(2)
def E6_watches_deaf(world: World, rng: random.Random) -> None:
    """What etcd tells watches vanishes, and their connections stay open: noticed within 15 s."""
    names = [rng.choice([*world.named("c"), *world.named("n")])]
    with world.fault("E6", who=names):
        for proxy in world.links(*names):
            proxy.deafen_watches()
        world.wait(17)
        heal(world, *names)
        world.wait(1)


@fault(2)
def X_network(world: World, rng: random.Random) -> None:
    """Latency, held answers, one-way black holes, broken connections: for anybody, for a moment."""
    name = rng.choice([*world.named("c"), *world.named("n"), *world.named("w")])
    how = rng.choice(["latency", "hold up", "hold down", "deaf", "mute", "break", "lose"])
    with world.fault("X net", who=name, how=how):
        for proxy in world.links(name):
            match how:
                case "latency":
                    proxy.latency = rng.choice([0.02, 0.1, 0.3])
                case "hold up" | "hold down":
                    proxy.hold("up" if how.endswith("up") else "down")
                case "deaf" | "mute":
                    proxy.blackhole("down" if how == "deaf" else "up")
                case "break":
                    proxy.break_links()
                case "lose":
                    for _ in range(3):
                        proxy.lose_answer(b"/v3/kv/txn")
        world.wait(rng.uniform(0.5, 6))
        for proxy in world.links(name):
            proxy.latency = 0.0
            proxy._lose.clear()
        heal(world, name)
        world.wait(1)


# -- time --------------------------------------------------------------------------------------


@fault(3)
def T1_clock_steps(world: World, rng: random.Random) -> None:
    """The wall clock of a process steps an hour ahead (T1) or back (T2), or a little; then it is right again."""
    if not world.stepped:
        return
    found = leader_of(world, rng)
    name = found[0] if found and rng.random() < 0.6 else rng.choice([*world.named("c"), "web", *world.named("n")])
    step = rng.choice([3600, 3600, -3600, -3600, 30, -30, 86400])
    with world.fault("T1" if step > 0 else "T2", who=name, step=step):
        world.step_clock(name, step)
        world.wait(rng.uniform(3, 15))
        world.step_clock(name, 0)
        world.wait(3)


# -- load, and the web -------------------------------------------------------------------------


@fault(1)
def S1_crowd(world: World, rng: random.Random) -> None:
    """Many more jobs, all due in the same second."""
    desk = Desk(world)
    second = int(time.time() + 4) % 60
    schedule = {"cron": f"{second} * * * * *", "dialect": "cron6"}
    with world.fault("S1"):
        made = []
        for _ in range(25):
            world.crowd += 1
            document = marking(f"many/{world.crowd}", world.crony.marks, schedule=schedule, overlap="allow",
                               misfire=NO_LIMIT, retry={"max": 3, "delay": "0s"})  # fmt: skip
            status, told = desk.call("create", "POST", "jobs", document)
            if 200 <= status < 300:
                made.append(told["id"])
        world.wait(8)
        for job in made:
            desk.call("delete", "DELETE", f"jobs/{job}", job=job)


@fault(1)
def W1_web_killed(world: World, rng: random.Random) -> None:
    """SIGKILL the web for a while."""
    with world.fault("W1"):
        world.kill("web")
        world.wait(rng.uniform(1, 6))
        world.start("web")
        world.wait(3)


@fault(1)
def M1_database_killed(world: World, rng: random.Random) -> None:
    """SIGKILL the database, where it is a server."""
    if world.maria is None:
        return
    with world.fault("M1"):
        world.maria.kill()
        world.wait(rng.uniform(2, 8))
        world.do(world.maria.start)
        world.wait(2)
