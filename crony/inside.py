"""What a Python job may ask about the run it is: `crony.part()`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a run that is carried out in parts."""

    index: int
    """From 0."""
    total: int


_part: ContextVar[Part | None] = ContextVar("crony_part", default=None)


def part() -> Part | None:
    """Which part of its run the function that is running is; None: it is a whole run, or none of Crony's."""
    return _part.get()


@contextmanager
def part_is(which: Part | None) -> Iterator[None]:
    """In the body `part()` says so."""
    token = _part.set(which)
    try:
        yield
    finally:
        _part.reset(token)
