"""One round of the soak: a world drawn from a seed, callers and faults at work for a while, an end, and its history."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.wait import until
from tests.soak import closing
from tests.soak.callers import Callers, Desk, polled
from tests.soak.cast import CALENDAR, POOLS, Document, cast, quiet
from tests.soak.faults import Director
from tests.soak.world import World, world


@dataclass(frozen=True)
class Shape:
    """What a world is made of."""

    centres: int = 2
    nodes: tuple[str, ...] = ("threads", "prefork")
    """The pool of each."""
    members: int = 1
    maria: bool = False
    stepped: bool = False
    zones: int = 2
    shards: int = 1
    restore: str = ""
    """Whether etcd is restored before the end (`copy`, `wipe`), and recovered by `crony recover`."""
    ttl: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int) -> Shape:
        """The shape of a seed."""
        rng = random.Random(f"shape {seed}")
        nodes = [rng.choice(["threads", "prefork"]) for _ in range(rng.randint(2, 4))]
        members = rng.choice([1, 1, 3])
        return cls(
            centres=rng.choice([2, 2, 3]),
            nodes=("prefork", *nodes[1:]),
            members=members,
            maria=rng.random() < 0.4,
            stepped=rng.random() < 0.5,
            zones=rng.randint(1, 3),
            shards=rng.choice([1, 1, 2, 3]),
            restore=rng.choice(["", "", "", "copy", "wipe"]) if members == 1 else "",
        )


SMALL = Shape()


def soak(seed: int, seconds: float, shape: Shape, folder: Path, **options: Any) -> tuple[Path, list[str]]:
    """Run a round; the file of its history, and the faults that were made."""
    options = {"only": None, "calm": 1.0, "pause": 0.8, **options}
    with world(
        seed, folder, members=shape.members, maria=shape.maria, stepped=shape.stepped, shards=shape.shards, **shape.ttl
    ) as made:
        begin(made, shape)
        done = threading.Event()
        callers = Callers(made, seed, made.jobs, pause=options["pause"])
        director = Director(made, seed, only=options["only"], calm=options["calm"])
        threading.Thread(target=polled, args=(made, done), daemon=True).start()
        callers.start()
        director.start()
        until_at = time.monotonic() + seconds
        while time.monotonic() < until_at and not (callers.error or director.error):
            made.wait(0.2)
        director.stop()
        callers.stop()
        done.set()
        for error in (callers.error, director.error):
            if error is not None:
                raise error
        if shape.restore:
            closing.restore(made, wipe=shape.restore == "wipe")
        closing.end(made)
        return made.journal.path, director.made


def begin(made: World, shape: Shape) -> None:
    """Start everybody, and create the cast."""
    made.web()
    for number in range(shape.centres):
        made.centre(f"c{number + 1}")
    for number, pool in enumerate(shape.nodes):
        made.node(f"n{number + 1}", pool=pool, concurrency=4 if pool == "threads" else 3)
    until(made.leader, 30, "a leader")
    made.crony.await_nodes(*(f"n{number + 1}" for number in range(len(shape.nodes))))
    desk = Desk(made, timeout=60)
    names = made.rng.sample([zone.name for zone in made.zones], shape.zones)
    for pool in POOLS:
        status, told = desk.call("pool", "PUT", f"pools/{pool['name']}", pool, job="")
        assert status == 200, (pool, status, told)
    status, told = desk.call("calendar", "PUT", f"calendars/{CALENDAR}", quiet(made.rng, time.time()), job="")
    assert status == 200, (status, told)

    def create(document: Document) -> None:
        patient_until = time.monotonic() + 120
        status, told = 503, {}
        while status == 503 and time.monotonic() < patient_until:  # a database that others lock for long says so
            status, told = Desk(made, timeout=120).call("create", "POST", "jobs", document)
        assert status == 201, (document["name"], status, told)
        made.jobs[document["name"]] = told

    jobs = cast(made.rng, made.crony.marks, made.change, names, made.callee.url)
    with ThreadPoolExecutor(closing.AT_ONCE) as several:
        list(several.map(create, (each for each in jobs if not each.get("after"))))
    for document in (each for each in jobs if each.get("after")):  # behind those that they follow
        create(document)
    made.begin()
