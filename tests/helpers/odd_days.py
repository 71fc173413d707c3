"""Days on which clocks do something odd, read from the time zone data itself: all zones, from 1973 on.

Odd is what trips up schedulers: a change by anything but an hour, or at midnight, in a zone with a half-hour offset,
for good, against the season (Dublin), soon undone (Ramadan), a day left out.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, _zoneinfo, available_timezones

DAY, HOUR = 86400, 3600
FIRST = 94_694_400
"""1973: since then every offset is whole minutes."""
LAST = 2_145_916_800
AROUND = 6 * HOUR

NAMED = [
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-04"),  # back by 30 minutes
    ("Australia/Lord_Howe", "2026-10-03"),  # forward by 30 minutes
    ("Pacific/Apia", "2011-12-30"),  # the 30th never was
    ("Pacific/Kwajalein", "1993-08-21"),  # nor was the 21st here
    ("Africa/Casablanca", "2026-02-15"),  # Ramadan begins
    ("Africa/Casablanca", "2026-03-22"),  # and ends
    ("America/Havana", "2026-03-08"),  # midnight does not exist
    ("America/Havana", "2026-11-01"),
    ("Asia/Beirut", "2026-03-28"),  # neither here
    ("Asia/Beirut", "2026-10-24"),  # midnight comes twice
    ("America/Asuncion", "2023-10-01"),  # nor here
    ("America/Asuncion", "2023-03-26"),
    ("Europe/Dublin", "2026-10-25"),  # "negative" summer time
    ("Antarctica/Troll", "2026-03-29"),  # two hours
    ("America/Scoresbysund", "2026-03-28"),  # the gap ends at midnight
    ("Asia/Pyongyang", "2018-05-04"),  # 30 minutes for good
    ("America/Caracas", "2016-05-01"),
    ("America/St_Johns", "2026-03-08"),  # a half-hour zone
    ("Pacific/Chatham", "2026-04-04"),  # three quarters of an hour
]
"""Zone, and a UTC day around which its clocks do something odd: in each run, whatever is drawn."""


class Change(NamedTuple):
    """One change of clocks: the first instant after it, and the offsets on both sides."""

    zone: str
    instant: int
    before: int
    after: int


class Minutes(NamedTuple):
    """Every minute from six hours before a change to six hours after it, as `zoneinfo` has it."""

    instants: list[int]
    labels: list[int]
    """Local time read as if it were UTC."""
    places: dict[int, list[int]]
    """Label -> the instants at which it occurs."""
    gaps: list[tuple[int, int, int]]
    """(first label that does not exist, first one that does, the instant of it)."""


@cache
def odd_changes() -> list[Change]:
    """Every odd change of every zone that is named by a place."""
    found = []
    for name in sorted(name for name in available_timezones() if "/" in name):
        info = _zoneinfo.ZoneInfo(name)
        for index, instant in enumerate(info._trans_utc):
            if index and FIRST < instant < LAST:
                old, new = info._ttinfos[index - 1], info._ttinfos[index]
                before, after = (round(each.utcoff.total_seconds()) for each in (old, new))
                next_one = info._trans_utc[index + 1] if index + 1 < len(info._trans_utc) else instant + 999 * DAY
                change = Change(name, instant, before, after)
                if before != after and (_odd(change, old, new) or next_one - instant < 75 * DAY):
                    found.append(change)
    return found


def _odd(change: Change, old: object, new: object) -> bool:
    low, high = sorted((change.instant + change.before, change.instant + change.after))
    summers = [getattr(each, "dstoff").total_seconds() for each in (old, new)]  # noqa: B009
    return (
        high - low != HOUR
        or low // DAY != high // DAY
        or low % DAY == 0
        or change.after % HOUR != 0
        or summers[0] == summers[1]
        or min(summers) < 0
    )


def named_changes() -> list[Change]:
    """The change of each of the `NAMED` days."""
    found = []
    for name, day in NAMED:
        info, start = ZoneInfo(name), int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) - DAY // 2
        offsets = [_offset(info, at) for at in range(start, start + 2 * DAY, 60)]
        at = next(n for n in range(1, len(offsets)) if offsets[n] != offsets[n - 1])
        found.append(Change(name, start + 60 * at, offsets[at - 1], offsets[at]))
    return found


def draw(rng: random.Random, count: int) -> Iterator[Change]:
    """The named changes, and others drawn from all odd ones, `count` in all."""
    named = named_changes()
    yield from named[:count]
    yield from rng.sample(odd_changes(), count - len(named))


def minutes(change: Change) -> Minutes:
    """The table of a change: from nothing but one look at the zone for each minute."""
    info, places, gaps = ZoneInfo(change.zone), dict[int, list[int]](), []
    instants = list(range(change.instant - AROUND, change.instant + AROUND, 60))
    labels = [instant + _offset(info, instant) for instant in instants]
    for at, (instant, label) in enumerate(zip(instants, labels, strict=True)):
        places.setdefault(label, []).append(instant)
        if at and label > labels[at - 1] + 60:
            gaps.append((labels[at - 1] + 60, label, instant))
    return Minutes(instants, labels, places, gaps)


def _offset(info: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, info).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


def brute(table: Minutes, matching: set[int], seconds: set[int], rule: str) -> list[int]:
    """The fires in a table, by the rule as documented, of minutes whose labels match."""
    fires: set[int] = set()
    for label in matching:
        for instant in table.places.get(label, ())[: 1 if rule == "once" else None]:
            fires.update(instant + second for second in seconds)
    if rule != "elapsed":
        fires.update(end for low, high, end in table.gaps if any(low <= label < high for label in matching))
    return sorted(fires)


def between(fires: list[int], after: int, until: int) -> list[int]:
    """Those with `after` < t <= `until`."""
    return fires[bisect_right(fires, after) : bisect_right(fires, until)]
