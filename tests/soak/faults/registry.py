"""Where faults register, and what several of them need."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

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


def leader_of(world: World, rng: random.Random) -> tuple[str, int, int] | None:
    """(name, term, shard) of the leader of some shard."""
    shard = rng.randrange(world.shards)
    found = world.leader(shard)
    return None if found is None else (*found, shard)


def dispatches(world: World) -> tuple[str, str]:
    """Keys that only a dispatch names together."""
    return world.keys.done(""), f"{world.keys.run}q/"


def cut(world: World, rng: random.Random, name: str) -> None:
    how = rng.choice(["cut", "both", "up", "down"])
    for proxy in world.links(name):
        if how == "cut":
            proxy.cut()
        else:
            proxy.blackhole(*(("up", "down") if how == "both" else (how,)))  # type: ignore[arg-type]


def heal(world: World, *names: str) -> None:
    for proxy in world.links(*names):
        proxy.heal()
