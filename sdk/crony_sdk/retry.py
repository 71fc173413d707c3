"""Trying again inside the service, within the platform's time, until it works or there is no use."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from crony_sdk.errors import Cancelled, Failed, GaveUp, Invalid

log = logging.getLogger("crony_sdk")
T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """How often, and with what pauses (seconds; the n-th is `delay * factor ** (n - 1)`, at most `max_delay`).

    `times` counts the tries after the first one; None: as many as the job's own `retry.max`. `on` names what is worth
    another try. A `Failed` that is final, and `Cancelled`, end it at once.
    """

    times: int | None = None
    delay: float = 1.0
    max_delay: float = 60.0
    factor: float = 2.0
    jitter: bool = True
    on: type[BaseException] | tuple[type[BaseException], ...] = Exception

    def __post_init__(self) -> None:
        if self.times is not None and self.times < 0:
            raise Invalid("times", "must be 0 or more")
        if self.delay < 0 or self.max_delay < 0 or self.factor < 1:
            raise Invalid("delay", "must be 0 or more, and the factor 1 or more")

    def pause(self, n: int) -> float:
        """Seconds before the n-th further try."""
        pause = min(self.delay * self.factor ** min(n - 1, 64), self.max_delay)
        return pause * random.uniform(0.5, 1.0) if self.jitter else pause

    def run(
        self,
        function: Callable[[], T],
        *,
        times: int = 0,
        left: Callable[[], float | None] = lambda: None,
        wait: Callable[[float], Any] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> T:
        """What `function` returns in the end. `times` is the job's own limit, `left` the seconds that remain.

        Raises `GaveUp` with the last error as its cause when the tries or the time are used up.
        """
        allowed, n = times if self.times is None else self.times, 0
        while True:
            try:
                return function()
            except Cancelled:
                raise
            except self.on as error:
                if isinstance(error, Failed) and error.final:
                    raise
                n += 1
                pause, remaining = self.pause(n), left()
                used_up = n > allowed
                if used_up or (remaining is not None and pause >= remaining):
                    why = f"after {n} {'try' if n == 1 else 'tries'}" + ("" if used_up else ", the time is used up")
                    reason = error.reason if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
                    raise GaveUp(f"{reason} ({why})", code=getattr(error, "code", None), final=True) from error
                log.info("try %d failed with %s, another one in %.1f s", n, type(error).__name__, pause)
            (wait or time.sleep)(pause)
            check()


def within(seconds: float) -> Callable[[], float]:
    """For `Retry.run(left=…)`: what is left of these seconds, from now."""
    until = time.monotonic() + seconds
    return lambda: until - time.monotonic()
