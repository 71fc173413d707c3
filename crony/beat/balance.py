"""How centres share the shards out: each about as many as the others, given from hand to hand.

Nobody decides for all: each centre looks at who leads what, and acts for itself. Elections keep it safe whatever they
think; these rules only make it even. A shard that nobody leads is taken at once by whoever has the fewest, and by any
other centre a moment later. Whoever has two more than the one with the fewest gives one away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

HOLD = 0.7
"""Seconds for which a vacant shard is left to those that have fewer."""
SETTLE = 1.0
"""Seconds without a change of leaders and centres before one is given away: one at a time."""


def loads(leaders: Mapping[int, str], able: Collection[str]) -> dict[str, int]:
    """Centre -> how many shards it leads. `leaders`: shard -> centre; `able`: centres that may lead."""
    counts = dict.fromkeys(able, 0)
    for centre in leaders.values():
        if centre in counts:
            counts[centre] += 1
    return counts


def may_take(me: str, leaders: Mapping[int, str], able: Collection[str], vacant_for: float) -> bool:
    """Whether to stand for a shard that is, as far as known, vacant since so many seconds."""
    counts = loads(leaders, {*able, me})
    return vacant_for >= HOLD or counts[me] <= min(counts.values())


def to_give(me: str, leaders: Mapping[int, str], able: Collection[str], count: int) -> int | None:
    """The shard of `count` that `me` should give away now: the last one, as shard 0 brings the household with it."""
    counts = loads(leaders, able)
    if me not in counts or any(shard not in leaders for shard in range(count)):
        return None
    fullest = max(counts, key=lambda centre: (counts[centre], centre))
    if fullest != me or counts[me] - min(counts.values()) < 2:
        return None
    return max(shard for shard, centre in leaders.items() if centre == me)
