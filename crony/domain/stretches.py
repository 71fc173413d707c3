"""What is due over stretches of time, in each of which other schedules are in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from crony.domain.crossing import Due
from crony.domain.fires import Count


class Stretch(NamedTuple):
    """Later than `after`, up to and with `until`. A list of them is in order, and none overlaps another."""

    enabled: bool
    due: Due
    after: int
    until: float
    paused_until: int
    """Nothing is due up to this second."""


def passed_over(stretches: Iterable[Stretch]) -> tuple[int, int, Count] | None:
    """(first, last, how many) of what pauses kept from being due; None: nothing."""
    first = last = None
    counts: list[Count] = []
    for enabled, due, low, high, paused in stretches:
        end = int(min(high, paused) if enabled else high)
        found = due.next(low) if low < end else None
        if found is not None and found <= end:
            first, last = first or found, due.last(low, end)
            counts.append(due.count(low, end))
    if first is None or last is None:
        return None
    return first, last, _sum(counts)


def between(stretches: Iterable[Stretch], limit: int) -> list[int]:
    """The first `limit` due instants, in order and distinct."""
    found: list[int] = []
    for due, low, high in _open(stretches):
        found += due.between(low, int(high), limit - len(found))
        if len(found) >= limit:
            break
    return found


def first(stretches: Iterable[Stretch]) -> int | None:
    """The first due instant, or None."""
    for due, low, high in _open(stretches):
        found = due.next(low)
        if found is not None and found <= high:
            return found
    return None


def last(stretches: Iterable[Stretch]) -> int | None:
    """The last due instant, or None; cheap, however many there are. The stretches have an end."""
    for due, low, high in reversed(list(_open(stretches))):
        found = due.last(low, int(high))
        if found is not None:
            return found
    return None


def count(stretches: Iterable[Stretch]) -> Count:
    """How many instants are due (`capped`: at least that many)."""
    return _sum([due.count(low, int(high)) for due, low, high in _open(stretches)])


def _open(stretches: Iterable[Stretch]) -> Iterator[tuple[Due, int, float]]:
    """(what is due, after, until) where something can be: paused ones, and the pause of the others, left out."""
    for enabled, due, low, high, paused in stretches:
        if enabled and max(low, paused) < high:
            yield due, max(low, paused), high


def _sum(counts: list[Count]) -> Count:
    return Count.of(sum(counts), any(count.capped for count in counts))
