"""The fires of several schedules together: the next one, those of a stretch of time, how many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge

from crony.domain.schedule import Schedule

COUNT_LIMIT = 100_000
"""Fires that `count_between` counts one by one before it says "capped"."""


class Count(int):
    """How many fires; `capped` says that there are at least this many (counting stopped)."""

    capped: bool = False

    @classmethod
    def of(cls, value: int, capped: bool = False) -> Count:
        """`value` as a count."""
        count = cls(value)
        count.capped = capped
        return count

    def __str__(self) -> str:
        return f"{int(self)}{'+' if self.capped else ''}"


def next_fire(schedules: Sequence[Schedule], after: int) -> int | None:
    """The first fire later than `after` of any of the schedules, or None."""
    if len(schedules) == 1:
        return schedules[0].next(after)
    found = [fire for schedule in schedules if (fire := schedule.next(after)) is not None]
    return min(found) if found else None


def fires_between(schedules: Sequence[Schedule], after: int, until: int, limit: int) -> list[int]:
    """The first `limit` fires with `after` < t <= `until`, merged and distinct."""
    fires: list[int] = []
    for fire in _merged(schedules, after, until):
        if len(fires) >= limit:
            break
        fires.append(fire)
    return fires


def count_between(schedules: Sequence[Schedule], after: int, until: int) -> Count:
    """How many distinct fires `after` < t <= `until`: exact for one schedule, capped at `COUNT_LIMIT` for several."""
    if len(schedules) == 1:
        return Count.of(schedules[0].count(after, until))
    if sum(schedule.count(after, until) for schedule in schedules) <= COUNT_LIMIT:
        return Count.of(sum(1 for _ in _merged(schedules, after, until)))
    # Some fires may coincide: the largest single count is certain.
    return Count.of(max(schedule.count(after, until) for schedule in schedules), capped=True)


def last_fire(schedules: Sequence[Schedule], after: int, until: int) -> int | None:
    """The last fire with `after` < t <= `until`, or None; found by halving, however many there are."""
    found = next_fire(schedules, after)
    if found is None or found > until:
        return None
    low, high = found, until
    while low < high:
        middle = (low + high) // 2
        later = next_fire(schedules, middle)
        if later is not None and later <= until:
            low = later
        else:
            high = middle
    return low


def _merged(schedules: Sequence[Schedule], after: int, until: int) -> Iterator[int]:
    last = None
    for fire in merge(*(schedule.walk(after, until) for schedule in schedules)):
        if fire != last:
            yield fire
            last = fire
