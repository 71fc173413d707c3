"""What goes wrong, one function each, named by the ids of the fault catalogue. Each puts right what it broke.

L: leader and centres, N: nodes, E: etcd, T: time, S: load. A fault returns when its time is over; the director lets
some of them meet.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crony.errors import CronyError
from tests.helpers.server import Server

if TYPE_CHECKING:
    from tests.soak.world import World

Fault = Callable[["World", random.Random], None]
FAULTS: dict[str, Fault] = {}
WEIGHTS: dict[str, int] = {}


def fault(weight: int) -> Callable[[Fault], Fault]:
    """Register a fault; `weight`: how often it is drawn beside the others."""

    def register(function: Fault) -> Fault:
        FAULTS[function.__name__] = function
        WEIGHTS[function.__name__] = weight
        return function

    return register


# -- leader and centres ------------------------------------------------------------------------


def _leader(world: World, rng: random.Random) -> tuple[str, int, int] | None:
    """(name, term, shard) of the leader of some shard."""
    shard = rng.randrange(world.shards)
    found = world.leader(shard)
    return None if found is None else (*found, shard)


def _dispatches(world: World) -> tuple[str, str]:
    """Keys that only a dispatch names together."""
    return world.keys.done(""), f"{world.keys.run}q/"


@fault(3)
def L1_leader_killed(world: World, rng: random.Random) -> None:
    """SIGKILL the leader, around a fire; it comes back after another one leads."""
    found = _leader(world, rng)
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
    found = _leader(world, rng)
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
    found = _leader(world, rng)
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
    found = _leader(world, rng)
    if found is None:
        return
    name, _, _ = found
    with world.fault("L4", who=name):
        proxies = world.links(name)
        done, queue = _dispatches(world)
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
    found = _leader(world, rng)
    if found is None:
        return
    name, term, shard = found
    with world.fault("L5", who=name, leader_gone="cut", term=term, shard=shard):
        _cut(world, rng, name)
        world.wait(world.crony.leader_ttl + rng.uniform(0.5, 3))
        _heal(world, name)
        world.wait(0.5)


@fault(2)
def L6_leaders_flap(world: World, rng: random.Random) -> None:
    """Kill whoever leads, again and again, half a TTL apart."""
    with world.fault("L6"):
        for _ in range(rng.randint(3, 6)):
            found = _leader(world, rng)
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
    found = _leader(world, rng)
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


# -- nodes -------------------------------------------------------------------------------------


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
        _cut(world, rng, name)
        world.wait(world.crony.node_ttl + rng.uniform(-1.5, 4))
        _heal(world, name)
        world.wait(1)


@fault(2)
def N7_poison(world: World, rng: random.Random) -> None:
    """A job that takes its pool process with it, as long as it may be tried."""
    from tests.soak.callers import Desk

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
    from tests.soak.callers import Desk

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


# -- etcd --------------------------------------------------------------------------------------


def _etcd_leader(world: World) -> Server:
    from tests.soak.record import Gateway

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
    _heal(world, *names)
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
        _heal(world, *names)
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
        _heal(world, name)
        world.wait(1)


# -- time --------------------------------------------------------------------------------------


@fault(3)
def T1_clock_steps(world: World, rng: random.Random) -> None:
    """The wall clock of a process steps an hour ahead (T1) or back (T2), or a little; then it is right again."""
    if not world.stepped:
        return
    found = _leader(world, rng)
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
    from tests.soak.callers import Desk
    from tests.soak.cast import NO_LIMIT, marking

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


def _cut(world: World, rng: random.Random, name: str) -> None:
    how = rng.choice(["cut", "both", "up", "down"])
    for proxy in world.links(name):
        if how == "cut":
            proxy.cut()
        else:
            proxy.blackhole(*(("up", "down") if how == "both" else (how,)))  # type: ignore[arg-type]


def _heal(world: World, *names: str) -> None:
    for proxy in world.links(*names):
        proxy.heal()


class Director(threading.Thread):
    """Draws faults by a seed until stopped: mostly one after the other, with time to recover; sometimes together."""

    def __init__(self, world: World, seed: int, *, only: list[str] | None = None, calm: float = 1.0) -> None:
        """`only`: functions to draw from; `calm`: how much of the time to recover in is given (1: all of it)."""
        super().__init__(name="director", daemon=True)
        self._world, self._rng, self._calm = world, random.Random(f"faults {seed}"), calm
        self._only = only or list(FAULTS)
        self._done = threading.Event()
        self.made: list[str] = []
        self.error: BaseException | None = None

    def stop(self) -> None:
        """No more; returns when the last one is put right."""
        self._done.set()
        self.join(120)

    def run(self) -> None:
        """One after the other."""
        crony, rng = self._world.crony, self._rng
        recovery = 2 * max(crony.leader_ttl + 2, crony.node_ttl + crony.grace + 2)
        try:
            while not self._done.is_set():
                names = rng.choices(
                    self._only, [WEIGHTS[each] for each in self._only], k=2 if rng.random() < 0.2 else 1
                )
                threads = [
                    threading.Thread(target=self._make, args=(name, rng.random()), daemon=True) for name in set(names)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                rest = recovery * 1.6 if rng.random() < 0.5 else rng.uniform(0.2, 3.0)
                self._done.wait(rest * self._calm)
        except BaseException as error:
            self.error = error
            raise

    def _make(self, name: str, seed: float) -> None:
        self.made.append(name)
        try:
            FAULTS[name](self._world, random.Random(f"{name} {seed}"))
        except BaseException as error:
            self.error = error
            raise
