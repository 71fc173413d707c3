"""Waiting for something to become true, with a deadline: the only way a test waits.

A wait that succeeds costs no more than it takes, so deadlines are generous: the seconds in a test are what a calm
machine needs at most, and `PATIENCE` times as long is waited on any machine. What Crony promises to do in time is not
stretched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from crony.errors import Unavailable

T = TypeVar("T")

SHORTEST, LONGEST = 0.01, 0.1
"""Seconds between two looks at the beginning of a wait, and from two seconds on."""
PATIENCE = float(os.environ.get("CRONY_TEST_PATIENCE", "5"))


def patient(seconds: float) -> float:
    """How long to wait on any machine for what takes a calm one `seconds`."""
    return seconds * PATIENCE


def until(
    predicate: Callable[[], T],
    timeout: float = 10.0,
    what: str = "",
    *,
    every: float | None = None,
    promised: bool = False,
) -> T:
    """Calls `predicate` until it gives something true and returns that. AssertionError after `timeout` seconds, times
    `PATIENCE`; a `promised` bound is the product's own and waits not a second longer.

    `every`: seconds between two calls; unless given, the less often the longer it takes: most predicates ask a server,
    and what is waited for is worked out on the same cores. A predicate that cannot ask right now (`Unavailable`: a disk
    that stalls, say) is not true yet.
    """
    allowed = timeout if promised else patient(timeout)
    began = time.monotonic()
    deadline = began + allowed
    while True:
        trouble = None
        try:
            if found := predicate():
                return found
        except Unavailable as error:
            trouble = error
        now = time.monotonic()
        if now >= deadline:
            raise AssertionError(f"not within {allowed:g} s: {what or predicate}") from trouble
        if every is not None or promised:
            pause = SHORTEST if every is None else every
        else:
            pause = min(LONGEST, max(SHORTEST, (now - began) / 20))
        time.sleep(pause)


@contextmanager
def within(seconds: float, what: str = "it") -> Iterator[None]:
    """The body is through in time: for calls that return by themselves, where the wrong thing would take far longer.

    AssertionError when it took more than `seconds`, times `PATIENCE`.
    """
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < patient(seconds), f"{what} took {took:.1f} s, not {patient(seconds):g} s at most"
