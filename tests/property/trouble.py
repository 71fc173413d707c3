"""What goes wrong in a run: connections cut, held or robbed of answers, leases revoked, watches late, processes killed.

All of it is drawn from the seed. Nothing here is beyond what a network, a kernel or an operator does.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from crony.etcd.watch import Event, Watcher
from tests.helpers.proxy import Proxy
from tests.property.actors import TIMEOUT

if TYPE_CHECKING:
    from tests.property.world import World

WEIGHTS = {
    "break": 4,
    "cut": 4,
    "long cut": 2,
    "hold": 4,
    "long hold": 1,
    "lose answers": 6,
    "slow answers": 3,
    "revoke": 3,
    "latency": 2,
    "vanish": 1,
    "kill": 2,
    "stop": 1,
}


class Trouble(threading.Thread):
    """Makes trouble for a world until stopped, then puts right what can be put right."""

    def __init__(self, world: World, seed: int, weights: dict[str, int], pause: float) -> None:
        super().__init__(name="trouble", daemon=True)
        self._world, self._weights, self._pause = world, weights, pause
        self._rng = random.Random(f"trouble {seed}")
        self._ended = threading.Event()
        self._long, self._last = 0.0, ""
        self._later: list[tuple[float, Callable[[], None]]] = []

    def stop(self) -> None:
        """No more trouble."""
        self._ended.set()
        self.join()
        for _, undo in self._later:
            undo()

    def run(self) -> None:
        """One thing after the other; what lasts is undone when its time has come."""
        self._ended.wait(0.7)
        while not self._ended.wait(self._rng.uniform(0.3, 1.7) * self._pause):
            due = [undo for at, undo in self._later if at <= time.monotonic()]
            self._later = [each for each in self._later if each[0] > time.monotonic()]
            for undo in due:
                undo()
            what = self._rng.choices(list(self._weights), list(self._weights.values()))[0]
            with contextlib.suppress(OSError):
                self._make(what)

    def _make(self, what: str) -> None:
        world, rng = self._world, self._rng
        name, proxy = rng.choice(list(world.proxies.items()))
        if what in ("vanish", "kill", "stop"):
            self._to_a_process(what)
            return
        if what.startswith("long"):
            if self._long > time.monotonic():
                return
            consumers = [each for each in world.proxies.items() if each[0].startswith(("con", "chi"))]
            name, proxy = rng.choice([each for each in consumers if each[0] != self._last])
        if name in world.gone or name in world.troubled:
            return
        world.journal.note("trouble made", name, what=what)
        ttl = world.ttl
        match what:
            case "break":
                proxy.break_links()
            case "cut":
                proxy.cut()
                self._undo(rng.uniform(0.05, 0.5), name, proxy)
            case "long cut":
                proxy.cut()
                self._undo_late(ttl, name, proxy)
            case "hold":
                proxy.hold(rng.choice(("up", "down")))
                self._undo(rng.uniform(0.05, 0.6), name, proxy)
            case "slow answers":
                proxy.hold("down")
                self._undo(rng.uniform(1.1, 1.6) * TIMEOUT, name, proxy)
            case "long hold":
                proxy.hold(rng.choice(("up", "down")))
                self._undo_late(ttl, name, proxy)
            case "lose answers":
                for _ in range(rng.randint(1, 4)):
                    proxy.lose_answer(b"/v3/kv/txn")
            case "revoke":
                world.revoke(name)
            case "latency":
                proxy.latency = rng.choice((0.005, 0.03))
                self._undo(rng.uniform(0.2, 1.0), name, proxy)

    def _undo_late(self, ttl: float, name: str, proxy: Proxy) -> None:
        """Longer than a session lives: others take over what was held. One at a time, so that there are others."""
        after = ttl + self._rng.uniform(2.0, 4.0)
        self._long, self._last = time.monotonic() + after + 1.5, name
        self._undo(after, name, proxy)

    def _undo(self, after: float, name: str, proxy: Proxy) -> None:
        self._world.troubled.add(name)

        def undo() -> None:
            proxy.latency = 0.0
            self._world.troubled.discard(name)
            if name not in self._world.gone:
                proxy.heal()

        self._later.append((time.monotonic() + after, undo))

    def _to_a_process(self, what: str) -> None:
        world, rng = self._world, self._rng
        if what == "vanish":
            world.vanish(rng)
        elif world.children and what == "kill":
            world.kill_child(rng)
        elif world.children:
            child = rng.choice(world.children)
            world.journal.note("trouble made", child.name, what=what)
            child.process.send_signal(signal.SIGSTOP)
            self._later.append((time.monotonic() + rng.uniform(0.3, 3.5), lambda: _go_on(child.process)))


def _go_on(process: object) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)  # type: ignore[attr-defined]


@contextlib.contextmanager
def late_watches(world: World, seed: int) -> Iterator[None]:
    """A watch is a hint and may be late: sometimes a little, that of the sessions sometimes by more than a second."""
    rng = random.Random(f"watches {seed}")
    real = Watcher._deliver

    def deliver(self: Watcher, raw: list[Event]) -> None:
        if self._client in world.clients:
            if self.name == "crony-sessions" and rng.random() < world.lateness:
                time.sleep(rng.uniform(1.0, 2.6))
            elif rng.random() < 0.02:
                time.sleep(rng.uniform(0.02, 0.3))
        real(self, raw)  # type: ignore[arg-type]

    Watcher._deliver = deliver  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Watcher._deliver = real  # type: ignore[method-assign]
