"""Cron labels on a clock that people change: which instants a cron text means in a zone.

What happens to labels when clocks change (`dst`):

| rule | label inside a gap | label that occurs twice |
|---|---|---|
| `once` (default for fixed times) | fires at the first valid instant after the gap | fires at the first of the two |
| `elapsed` (default when minute or hour has a `*`) | does not exist that day | fires both times: real time decides |
| `both` | fires at the first valid instant after the gap | fires both times |
"""

from __future__ import annotations

from crony.domain.cron import Cron
from crony.domain.zones import FIRST, LAST, Zone

_DAY = 86400


def next_instant(cron: Cron, where: Zone, rule: str, after: int) -> int | None:
    """The first instant later than `after`, or None.

    Walks the zone's pieces of constant offset; in each it asks for the first matching label.
    """
    instant = max(after + 1, FIRST)
    label: int | None = None
    searched = 0
    while instant < LAST:
        piece = where.piece(instant)
        start, end, offset, before = piece
        low = instant + offset
        if instant == start:
            low = _entry(start, offset, before, rule)
        elif rule == "once" and before > offset:
            low = max(low, start + before)
        if label is None or low < searched or low > label:
            label = cron.at_or_after(low)
            searched = low
            if label is None:
                # Its years may be over but for labels that come again when clocks go back.
                if end >= LAST or end + where.piece(end).offset >= low:
                    return None
                instant = end
                continue
        if label < end + offset:
            return max(label - offset, start)
        instant = end
        # No label matches between `searched` and `label`, and only labels near `end` can come again.
        if label - 3 * _DAY > end and end + offset - searched > 2 * _DAY:
            instant = max(end, label - 2 * _DAY)
            if instant == where.piece(instant).start:
                instant += 1
    return None


def _entry(start: int, offset: int, before: int, rule: str) -> int:
    """The first label that belongs to a piece entered at its start: with or without the gap or the repeated part."""
    if rule == "elapsed":
        return start + offset
    if rule == "both":
        return start + min(before, offset)
    return start + before


def count_instants(cron: Cron, where: Zone, rule: str, after: int, until: int) -> int:
    """How many instants `after` < t <= `until`, without visiting them one by one."""
    total, instant, until = 0, max(after + 1, FIRST), min(until, LAST - 1)
    while instant <= until:
        start, end, offset, before = where.piece(instant)
        low = max(instant + offset, start + before) if rule == "once" else instant + offset
        if instant == start and rule != "elapsed" and before < offset:
            # Labels of the gap all fire at its end, where a label of its own may fire as well.
            gap, own = cron.at_or_after(start + before), start + offset
            if gap is not None and gap < own and cron.at_or_after(own) != own:
                total += 1
        total += cron.count(low, min(end, until + 1) + offset)
        instant = end
    return total
