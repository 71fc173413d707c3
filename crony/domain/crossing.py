"""Fires that an edit finds between the day they are written for and the one they moved to (`closed`).

An edit leaves instants up to it to the old schedule and later ones to the new (`livejob`). A fire that moved has two:
of one that is written for Saturday and takes place on Monday, an edit on Sunday would make none, or two. So a fire is
known by the instant it is written for, and around an edit at `at`:

| the fire | becomes |
|---|---|
| was due by the old schedule, up to the edit | never due again, wherever the new one has it |
| written for a time up to the edit, due later by both | as the new schedule has it |
| written for a time up to the edit, due later by the old schedule alone | as it was: the day it moved to was promised |
| written for a time up to the edit by the new schedule alone | not due |
| written for a later time, due up to the edit by the new schedule alone | due when it is written for |

What does not follow from the new schedule is kept with the job, fire by fire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from crony.domain.fires import Count, count_between, fires_between, last_fire, next_fire
from crony.domain.moving import FARTHEST, Moved, plain
from crony.domain.schedule import Schedule
from crony.domain.zones import Zone, zone
from crony.errors import Conflict

MOST = 500
"""Most fires of one job that an edit may find on their way."""
_DAY = 86400
_SLACK = 3 * 3600
"""More than clocks change by in one night, nearly everywhere."""


class Crossing(NamedTuple):
    """What an edit leaves: `moved` are (written for, due at; 0: it was due already) of fires that crossed it, `extra`
    instants that are due beside those of the schedules, `without` instants of theirs that are not."""

    moved: tuple[tuple[int, int], ...] = ()
    extra: tuple[int, ...] = ()
    without: tuple[int, ...] = ()

    @classmethod
    def read(cls, raw: Any) -> Self:
        """The one behind a payload."""
        moved, extra, without = raw
        pairs = tuple((int(written), int(due)) for written, due in moved)
        return cls(pairs, tuple(map(int, extra)), tuple(map(int, without)))

    def payload(self) -> list[list[Any]]:
        """As plain data."""
        return [list(map(list, self.moved)), list(self.extra), list(self.without)]


NOTHING = Crossing()


@dataclass(frozen=True, slots=True)
class Due:
    """Instants of schedules, less some, and some others beside them."""

    schedules: tuple[Schedule, ...]
    extra: tuple[int, ...] = ()
    """In order, none of them an instant of the schedules that is due."""
    without: tuple[int, ...] = ()

    def between(self, after: int, until: int, limit: int) -> list[int]:
        """The first `limit` with `after` < t <= `until`, in order."""
        if not self.extra and not self.without:
            return fires_between(self.schedules, after, until, limit)
        own = fires_between(self.schedules, after, until, limit + len(self.without))
        beside = [at for at in self.extra if after < at <= until]
        return sorted({at for at in own if at not in self.without} | set(beside))[:limit]

    def next(self, after: int) -> int | None:
        """The first later than `after`."""
        found = next_fire(self.schedules, after)
        while found is not None and found in self.without:
            found = next_fire(self.schedules, found)
        beside = next((at for at in self.extra if at > after), None)
        return min((at for at in (found, beside) if at is not None), default=None)

    def last(self, after: int, until: int) -> int | None:
        """The last with `after` < t <= `until`."""
        found = last_fire(self.schedules, after, until)
        while found is not None and found in self.without:
            found = last_fire(self.schedules, after, found - 1)
        beside = [at for at in self.extra if after < at <= until]
        return max((at for at in (found, *beside) if at is not None), default=None)

    def count(self, after: int, until: int) -> Count:
        """How many with `after` < t <= `until` (`capped`: at least that many)."""
        own = count_between(self.schedules, after, until)
        gone = sum(1 for at in self.without if after < at <= until)
        return Count.of(int(own) - gone + sum(1 for at in self.extra if after < at <= until), own.capped)


def crossing(
    old: Sequence[Schedule], new: Sequence[Schedule], at: int, *, since: int, was: Mapping[int, int]
) -> Crossing:
    """What an edit at `at` leaves of fires under way. `old` was in force after `since`, with `was` (`Crossing.moved`).

    Raises `Conflict` when there are more than `MOST`.
    """
    if not was and (old == new or not any(isinstance(each.cron, Moved) for each in (*old, *new))):
        return NOTHING
    before, after = [_Places(each) for each in old], [_Places(each) for each in new]
    near = (FARTHEST + 1) * _DAY
    known = {written: due for written, due in was.items() if abs(written - at) <= near or due > at}
    candidates = {n for each in (*before, *after) for n in each.crossing(at)} | known.keys()
    moved: dict[int, int] = {}
    for written in candidates:
        due = known.get(written)
        places = [due] if due is not None else [found for each in before if (found := each.of(written)) is not None]
        coming = [found for each in after if (found := each.of(written)) is not None and found > at]
        place = min(places, default=None)
        if due == 0 or (place is not None and (since < place or due is not None) and place <= at):
            moved[written] = 0
        elif written <= at:
            if place is not None and place > at:
                if not coming:
                    moved[written] = place
            elif coming and (place is not None or not any(each.has(written) for each in before)):
                moved[written] = 0
        elif not coming and any(each.of(written) is not None for each in after):
            moved[written] = written
    return _effect(moved, after, tuple(new), at)


def _effect(moved: dict[int, int], places: Sequence[_Places], schedules: tuple[Schedule, ...], at: int) -> Crossing:
    without = set()
    for written in moved:
        for each in places:
            due = each.of(written)
            if due is not None and due > at and all(n in moved for one in places for n in one.origins(due)):
                without.add(due)
    own = Due(schedules, without=tuple(sorted(without)))
    extra = {due for due in moved.values() if due > at and own.next(due - 1) != due}
    if len(moved) > MOST:
        moved = {written: due for written, due in moved.items() if due in extra or due == 0}
    if len(moved) > MOST or len(extra) + len(without) > MOST:
        raise Conflict(
            f"More than {MOST} fires are between a closed day and the one they moved to",
            hint="pause the job, let them pass, then save and resume it",
        )
    return Crossing(tuple(sorted(moved.items())), tuple(sorted(extra)), tuple(sorted(without)))


class _Places:
    """Where the fires of one schedule take place."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._zone: Zone = schedule.zone or zone(schedule.timezone)
        self._shift = schedule.window.shift if schedule.window else 0
        cron = None if schedule.cron is None else plain(schedule.cron)
        self._moved = schedule.cron if isinstance(schedule.cron, Moved) else None
        self._text = replace(schedule, cron=cron, calendars=None, window=None)
        self._placed = replace(schedule, window=None)

    def has(self, written: int) -> bool:
        """Whether its text has this instant, open or closed."""
        return self._text.next(written - 1) == written

    def of(self, written: int) -> int | None:
        """When the fire that is written for this instant is due; None: never, or there is none."""
        if not self.has(written):
            return None
        label = written + self._offset(written)
        landed = label // _DAY if self._moved is None else self._moved.lands(label // _DAY)
        if landed is None:
            return None
        found = written if landed == label // _DAY else self._at(landed * _DAY + label % _DAY)
        if found is None or self._schedule.next(found + self._shift - 1) != found + self._shift:
            return None
        return found + self._shift

    def origins(self, due: int) -> Iterator[int]:
        """The instants of its text whose fires are due then."""
        if self._moved is None:
            if self.of(due - self._shift) == due:
                yield due - self._shift
            return
        label = due - self._shift + self._offset(due - self._shift)
        day, even = label // _DAY, self._offset(due - _DAY) == self._offset(due + _DAY)
        for other in range(day - FARTHEST, day + FARTHEST + 1):
            if self._moved._plain._day(other) == other and self._moved.lands(other) == day:
                begin = other * _DAY + label % _DAY - self._offset(other * _DAY)
                even = even and self._offset(begin - _DAY) == self._offset(begin + _DAY)
                yield from (each for each in ([begin] if even else self._on(other)) if self.of(each) == due)

    def crossing(self, at: int) -> Iterator[int]:
        """The instants of its text on days that moved to, or across, the day of `at`."""
        if self._moved is None:
            return
        day = (at + self._offset(at)) // _DAY
        for other in range(day - FARTHEST - 1, day + FARTHEST + 2):
            landed = self._moved.lands(other) if self._moved._plain._day(other) == other else None
            if landed is not None and landed != other and min(other, landed) <= day <= max(other, landed):
                yield from self._on(other)

    def _on(self, day: int) -> list[int]:
        begin = day * _DAY - self._offset(day * _DAY) - _SLACK
        return [
            t for t in self._text.walk(begin - 1, begin + _DAY + 2 * _SLACK) if (t + self._offset(t)) // _DAY == day
        ]

    def _at(self, label: int) -> int | None:
        """The instant of the fire with this local time; where clocks leave it out, of the nearest one."""
        guess = label - self._offset(label - self._offset(label))
        if self._placed.next(guess - 1) == guess and guess + self._offset(guess) == label:
            return guess
        near = list(self._placed.walk(guess - _SLACK, guess + _SLACK))
        return min(near, key=lambda t: (abs(t + self._offset(t) - label), t), default=None)

    def _offset(self, instant: int) -> int:
        return self._zone.piece(instant).offset
