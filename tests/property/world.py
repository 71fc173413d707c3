"""One run: a namespace on a real etcd, actors behind proxies, trouble, an orderly end, and the history of all of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import kombu

from crony.errors import CronyError
from crony.etcd.client import Client
from crony.etcd.keys import Keys
from crony.etcd.session import Session
from crony.transport_etcd import hooks, link
from tests.helpers.proxy import Proxy
from tests.helpers.wait import until
from tests.property.actors import Actor, Consumer, Habits, Producer, Subscriber, share_pool
from tests.property.history import History, Journal, Recorder, read_journals
from tests.property.judge import Finding, judged, unheard
from tests.property.plan import Plan
from tests.property.trouble import WEIGHTS, Trouble, late_watches

ROOT = Path(__file__).parents[2]
DRAIN = 40.0
"""Longest time to empty the queues at the end, seconds."""


@dataclass
class Child:
    """A consumer in a process of its own."""

    name: str
    process: subprocess.Popen[bytes]
    journal: Path


class World:
    """Set it up, `run` it once, `close` it."""

    ttl = 1.0

    def __init__(
        self,
        endpoint: str,
        namespace: str,
        seed: int,
        folder: Path,
        *,
        producers: int = 2,
        consumers: int = 3,
        subscribers: int = 1,
        children: int = 0,
        trouble: dict[str, int] | None = None,
        pause: float = 0.25,
        habits: Habits | None = None,
        lateness: float = 0.3,
    ) -> None:
        """`trouble`: what goes wrong, by weight (default: everything); `pause`: seconds between two troubles;
        `habits`: how the consumers of this process deal with messages; `lateness`: how likely news of a session is
        more than a second late."""
        self.endpoint, self.seed, self.folder = endpoint, seed, folder
        self.keys, self.plan, self.journal = Keys(namespace), Plan.of(seed), Journal()
        self.lateness = lateness
        self.client = Client([endpoint])
        self.proxies: dict[str, Proxy] = {}
        self.actors: list[Actor] = []
        self.children: list[Child] = []
        self.clients: set[Client] = set()
        self.troubled: set[str] = set()
        self.gone: set[str] = set()
        self._journals: list[Path] = []
        self._numbers = {"producer": producers, "consumer": consumers, "subscriber": subscribers, "child": children}
        self._made = 0
        self._weights = WEIGHTS if trouble is None else trouble
        self._pause, self._habits = pause, habits or Habits()
        self._recorder = Recorder(self.client, self.keys)
        self._lock = threading.Lock()
        with kombu.Connection(self._url(endpoint)) as connection:
            self.plan.declare(connection.default_channel)

    # -- who takes part ----------------------------------------------------------------------------------

    def _url(self, endpoint: str) -> str:
        return f"etcd3://{endpoint.partition('://')[2]}/{self.keys.namespace}"

    def _add(self, kind: type[Actor], name: str, *, steady: bool = False) -> Actor:
        endpoint = self.endpoint
        if not steady:
            self.proxies[name] = Proxy(self.endpoint)
            endpoint = self.proxies[name].endpoint
        ttl = 10.0 if steady else self.ttl
        actor = kind(name, self._url(endpoint), self.plan, self.journal, self.seed, ttl)
        if isinstance(actor, Consumer):
            actor.habits = self._habits
        if not steady:
            actor.hesitate = 0.1
            self.clients.add(actor.link.client)
        self.actors.append(actor)
        return actor

    def _next(self, kind: str) -> str:
        self._made += 1
        return f"{kind}{self._made}"

    def _add_child(self) -> None:
        name = self._next("child")
        self.proxies[name] = Proxy(self.endpoint)
        told = {
            "name": name,
            "url": self._url(self.proxies[name].endpoint),
            "plan": asdict(self.plan),
            "seed": self.seed,
            "ttl": self.ttl,
        }
        journal = self.folder / f"{name}.jsonl"
        self._journals.append(journal)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.property.child", str(journal), json.dumps(told)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
        )
        self.children.append(Child(name, process, journal))

    # -- what trouble does to them -------------------------------------------------------------------------

    def revoke(self, name: str) -> None:
        """End the lease of an actor's session: it is told, and puts it back."""
        for actor in self.actors:
            session = actor.link.session_or_none
            if actor.name == name and session is not None and session.lease:
                with contextlib.suppress(CronyError):
                    self.client.revoke(session.lease)

    def vanish(self, rng: random.Random) -> None:
        """A consumer of this process is cut off for good and goes silent, with all it holds; another one comes."""
        with self._lock:
            here = [each for each in self.actors if isinstance(each, Consumer) and each.name not in self.gone]
            actor = rng.choice(here)
            self.gone.add(actor.name)
        self.journal.note("trouble made", actor.name, what="vanish")
        self.proxies[actor.name].cut()
        actor.killed.set()
        actor.stopping.set()
        self._add(Consumer, self._next("consumer")).start()

    def kill_child(self, rng: random.Random) -> None:
        """SIGKILL for a child; another one comes."""
        child = self.children.pop(rng.randrange(len(self.children)))
        self.journal.note("trouble made", child.name, what="kill")
        child.process.kill()
        child.process.wait()
        self.gone.add(child.name)
        self._add_child()

    # -- the run -----------------------------------------------------------------------------------------

    def run(self, seconds: float, *, until_found: bool = False) -> History:
        """Everybody at work for so long, then an orderly end. `until_found`: no end, and stop at the first finding."""
        for name, kind in (("consumer", Consumer), ("subscriber", Subscriber), ("producer", Producer)):
            for _ in range(self._numbers[name]):
                self._add(kind, self._next(name))
        steady = self._add(Subscriber, "steady", steady=True)
        steady.patient = True  # type: ignore[attr-defined]
        for _ in range(self._numbers["child"]):
            self._add_child()
        for actor in list(self.actors):
            actor.start()
        trouble = Trouble(self, self.seed, self._weights, self._pause)
        with late_watches(self, self.seed):
            trouble.start()
            deadline = time.monotonic() + seconds
            try:
                while time.monotonic() < deadline:
                    time.sleep(min(0.3, max(0.0, deadline - time.monotonic())))
                    if until_found and self.findings():
                        return self.history()
            finally:
                trouble.stop()
        if until_found:
            self._recorder.catch_up()
            return self.history()
        return self._end()

    def findings(self) -> list[Finding]:
        """What the judge says of what was seen so far."""
        return judged(self.history())

    def history(self) -> History:
        """What was seen so far. Changes first: whatever they show has been announced by then."""
        changes = self._recorder.changes()
        ops = [*self.journal.ops, *read_journals(self._journals)]
        alone = self._numbers["consumer"] + self._numbers["child"] == 1
        return History(self.seed, self.keys.root, {**asdict(self.plan), "alone": alone}, ops, changes)

    def _end(self) -> History:
        for kind in (Producer, Subscriber):
            for actor in [each for each in self.actors if isinstance(each, kind) and each.name != "steady"]:
                actor.stopping.set()
            self._join(kind)
        self._steady_has_heard_all()
        consumers = [each for each in self.actors if isinstance(each, Consumer) and each.name not in self.gone]
        for each in (*consumers, *(actor for actor in self.actors if actor.name == "steady")):
            each.stopping.set()
        for child in self.children:
            until(lambda journal=child.journal: read_journals([journal]), 30, f"{child.name} to have started")  # type: ignore[misc]
            child.process.terminate()
        for consumer in consumers:
            consumer.join(20)
            consumer.finish(10)
        for child in self.children:
            assert child.process.wait(20) == 0, f"{child.name} failed"
        self._sweep()
        self.close_links()
        prefixes = [self.keys.sessions, self.keys.consumer("")[:-1], f"{self.keys.queue_records}x."]
        with contextlib.suppress(AssertionError):  # the judge tells
            until(lambda: not any(self.client.count(prefix) for prefix in prefixes), 10, "leases to end")
        changes, left = self._recorder.finish()
        history = self.history()
        history.changes, history.left, history.ended = changes, left, True
        return history

    def _join(self, kind: type[Actor]) -> None:
        for actor in self.actors:
            if isinstance(actor, kind) and actor.name != "steady":
                actor.join(20)

    def _steady_has_heard_all(self) -> None:
        def all_heard() -> bool:
            self._recorder.catch_up()
            return not unheard(self.history())

        with contextlib.suppress(AssertionError):  # the judge tells
            until(all_heard, 10, "every broadcast to be heard", every=0.1)

    def _sweep(self) -> None:
        """Empty every queue by a consumer that only acknowledges: what is then left, nobody could ever have had."""
        sweeper = self._add(Consumer, "sweeper", steady=True)
        sweeper.gentle = True  # type: ignore[attr-defined]
        sweeper.start()
        with contextlib.suppress(AssertionError):  # the judge tells
            until(lambda: not self._waiting(), DRAIN, "the queues to be empty", every=0.05)
        sweeper.stopping.set()
        sweeper.join(20)

    def _waiting(self) -> int:
        return sum(self.client.count(self.keys.messages(queue)) for queue in self.plan.queues)

    def close_links(self) -> None:
        """Let every link go as a process that ends would; those of the vanished just stop."""
        for actor in self.actors:
            actor.killed.set()
            actor.stopping.set()
        for actor in self.actors:
            actor.join(20)
            if actor.name in self.gone:
                actor.link.client.close()
            else:
                actor.link.shut()
            actor.let_go()

    def close(self) -> None:
        """End everything that still runs."""
        for child in self.children:
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()
        for proxy in self.proxies.values():
            proxy.heal()
        self.close_links()
        for proxy in self.proxies.values():
            proxy.close()
        link.shut()
        self.client.close()


@contextlib.contextmanager
def one_incarnation_each() -> Iterator[None]:
    """Each link of this process gets a session of its own, as if it were a process of its own."""
    process_session, in_pool = link.process_session, hooks.in_pool

    def fresh(client: Client, keys: Keys, ttl: float) -> Session:
        session = Session(client, keys, ttl=ttl)
        session.start()
        return session

    link.process_session = fresh  # type: ignore[attr-defined]
    share_pool()
    try:
        yield
    finally:
        link.process_session, hooks.in_pool = process_session, in_pool  # type: ignore[attr-defined]


@contextlib.contextmanager
def world(endpoint: str, namespace: str, seed: int, folder: Path, **options: Any) -> Iterator[World]:
    """A world, closed at the end."""
    with one_incarnation_each():
        made = World(endpoint, namespace, seed, folder, **options)
        try:
            yield made
        finally:
            made.close()
