"""Short scripted scenes, one for each way to break a build: harmless to the sound one, seen by the judge in the other.

Each scene returns the job (or run) that shows it. They run in one world, one after the other or side by side.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from celery import Celery

from crony.transport_etcd import link
from tests.helpers.wait import until
from tests.soak.callers import Desk
from tests.soak.cast import NO_LIMIT, RETRY, marking
from tests.soak.world import World

EACH_SECOND = {"every": "1s"}


class Stage:
    """What scenes do in a world."""

    def __init__(self, world: World) -> None:
        self.world, self.desk = world, Desk(world, timeout=30)
        self._made = itertools.count(1)
        self.port2 = 0
        """Where the second web listens."""

    def job(self, **more: Any) -> str:
        """A job that writes what it does; its id."""
        fields = {"overlap": "allow", "misfire": NO_LIMIT, "retry": RETRY, "routing": {"labels": {"name": "n1"}}}
        fields |= more
        document = marking(f"scene/{next(self._made)}", self.world.crony.marks, **fields)
        status, told = self.desk.call("create", "POST", "jobs", document)
        assert status == 201, told
        return str(told["id"])

    def ask(self, job: str, **options: Any) -> str:
        """A run of a job."""
        status, told = self.desk.call("run", "POST", f"jobs/{job}:run", options, job=job, key="")
        assert status == 202, told
        return str(told["run"])

    def pause(self, job: str) -> None:
        """Let a job fire no more."""
        status, told = self.desk.call("pause", "POST", f"jobs/{job}:pause", job=job)
        assert status == 200, told

    def started(self, run: str, attempt: int = 1) -> bool:
        """Whether an attempt has written its first line."""
        return any(line["run"] == run and line["attempt"] == attempt for line in self.world.crony.marked_lines())

    def fired(self, job: str, count: int = 1) -> bool:
        """Whether so many runs of a job have started."""
        return len({line["run"] for line in self.world.crony.marked_lines() if line["run"].startswith(job)}) >= count

    def leader(self) -> str:
        """Who leads."""
        return until(self.world.leader, 20, "a leader")[0]

    def lead(self, name: str) -> None:
        """Make this centre (which waits) the leader."""
        leads = self.leader()
        if leads != name:
            self.world.terminate(leads)
            until(lambda: (self.world.leader() or ("",))[0] == name, 20, f"{name} to lead")
            popen = self.world.processes[leads].popen
            assert popen is not None
            popen.wait(60)


def paused_next_to_a_fire(stage: Stage) -> str:
    """A pause is acknowledged while the leader's watches are behind: what it would fire then is of an old document."""
    job = stage.job(schedule=EACH_SECOND)
    until(lambda: stage.fired(job), 20, "the first fire")
    links = stage.world.links(stage.leader())
    for proxy in links:
        proxy.hold_watches()
    stage.pause(job)
    stage.world.wait(2.2)
    for proxy in links:
        proxy.heal()
    return job


def dispatch_arrives_late(stage: Stage) -> str:
    """A dispatch is on its way for so long that its leader decides again, and then arrives."""
    job = stage.job(schedule=EACH_SECOND)
    until(lambda: stage.fired(job), 20, "the first fire")
    links, keys = stage.world.links(stage.leader()), stage.world.keys
    for proxy in links:
        proxy.delayed = 0
        proxy.delay_about(keys.done(job), stage.world.timeout + 1.5, also=f"{keys.run}q/")
    until(lambda: any(proxy.delayed for proxy in links), 10, "a dispatch to be held")
    stage.world.wait(stage.world.timeout + 2.0)
    stage.pause(job)
    return job


def asked_while_watches_are_away(stage: Stage) -> str:
    """A run is asked for while the leader is cut off for a moment, shorter than its lease; another one after that."""
    job, other = stage.job(), stage.job()
    links = stage.world.links(stage.leader())
    for proxy in links:
        proxy.cut()
    stage.ask(job)
    stage.world.wait(0.3)
    for proxy in links:
        proxy.heal()
    stage.world.wait(1.2)
    later = stage.ask(other)
    until(lambda: stage.started(later), 20, "the later run")
    stage.world.wait(2.5)
    return job


def zombies(stage: Stage, names: list[str]) -> list[str]:
    """Nodes stand still until their work was done elsewhere and its lost attempts are archived; then they end them."""
    world, gate = stage.world, stage.world.folder / "gate"
    job = stage.job(between=f"while [ ! -e {gate} ]; do sleep 0.1; done")
    runs = [stage.ask(job, labels={"name": name}) for name in names]
    until(lambda: all(stage.started(run) for run in runs), 20, "the runs to start")
    sessions = [world.keys.session(world.incarnation(name)) for name in names]
    for name in names:
        world.pause(name)
    gone = [world.keys.out(run, 1) for run in runs]
    until(lambda: all(map(_there(world), gone)), 30, "the attempts to be lost")
    until(lambda: not any(map(_there(world), gone)), 30, "their outcomes to be archived")
    for name in names:
        world.resume(name)
    until(lambda: all(map(_there(world), sessions)), 20, "the sessions to be back")
    gate.touch()
    world.wait(1.5)
    return runs


def revoked(stage: Stage, name: str) -> str:
    """Somebody revokes a running attempt by Celery's own command, which acknowledges its message."""
    world = stage.world
    job = stage.job(between="sleep 30", retry={"max": 0})
    run = stage.ask(job, labels={"name": name})
    until(lambda: stage.started(run), 20, "the run to start")
    at = world.members[0].endpoint.partition("://")[2]
    app = Celery("scene", broker=f"etcd3://{at}/{world.namespace}", set_as_current=False)
    app.control.revoke(f"{run}:1", terminate=True, signal="SIGKILL")
    until(lambda: not world.crony.count(f"run/q/run.{name}/m/"), 20, "the message to be gone")
    app.close()
    link.shut()
    return run


def saved_slowly(stage: Stage, web: str = "web", port: int = 0) -> str:
    """A save takes its time from the database to etcd, and a later one overtakes it, both by this web."""
    world, keys = stage.world, stage.world.keys
    job = stage.job()
    for proxy in world.links(web):
        proxy.delayed = 0
        proxy.delay_about(keys.job(job), 2.0, also='{"p":')
    paused, resumed = Desk(world, timeout=30, port=port), Desk(world, timeout=30, port=port)
    slow = threading.Thread(target=paused.call, args=("pause", "POST", f"jobs/{job}:pause"), kwargs={"job": job})
    slow.start()
    until(lambda: any(proxy.delayed for proxy in world.links(web)), 10, "the save to be held")
    resumed.call("resume", "POST", f"jobs/{job}:resume", job=job)
    slow.join(30)
    world.wait(1.5)
    return job


def _there(world: World) -> Any:
    return lambda key: world.client.get(key) is not None
