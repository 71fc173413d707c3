"""Who lets faults happen."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from tests.soak.faults.registry import FAULTS, WEIGHTS

if TYPE_CHECKING:
    from tests.soak.world import World


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
