"""Sharing shards out: any start ends even, nothing moves for nothing, and nobody waits for one that cannot lead."""

from __future__ import annotations

import random

from crony.beat.balance import HOLD, may_take, to_give


def play(count: int, centres: list[str], leaders: dict[int, str], chance: random.Random) -> int:
    """Let each centre act in turn until nobody wants to; how many shards were given."""
    given = 0
    for _ in range(50 * count):
        vacant = [shard for shard in range(count) if shard not in leaders]
        if vacant:
            shard = chance.choice(vacant)
            eager = [centre for centre in centres if may_take(centre, leaders, centres, 0.0)]
            assert eager, "somebody has to stand at once"
            leaders[shard] = chance.choice(eager)
            continue
        gifts = {centre: shard for centre in centres if (shard := to_give(centre, leaders, centres, count)) is not None}
        assert len(gifts) <= 1, "one at a time"
        if not gifts:
            return given
        for shard in gifts.values():
            del leaders[shard]
            given += 1
    raise AssertionError("it does not come to rest")


def test_any_start_ends_even() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(300):
        count, centres = chance.randint(1, 12), [f"i{number}" for number in range(chance.randint(1, 5))]
        leaders = {shard: chance.choice([*centres, "dead"]) for shard in range(count)}
        leaders = {shard: centre for shard, centre in leaders.items() if centre != "dead"}
        play(count, centres, leaders, chance)
        counts = [sum(leader == centre for leader in leaders.values()) for centre in centres]
        assert sum(counts) == count and max(counts) - min(counts) <= 1, (leaders, centres)
        assert play(count, centres, leaders, chance) == 0


def test_four_shards_and_two_centres() -> None:
    leaders = dict.fromkeys(range(4), "a")
    assert to_give("a", leaders, {"a", "b"}, 4) == 3 and to_give("b", leaders, {"a", "b"}, 4) is None
    del leaders[3]
    assert not may_take("a", leaders, {"a", "b"}, 0.0) and may_take("b", leaders, {"a", "b"}, 0.0)
    assert may_take("a", leaders, {"a", "b"}, HOLD), "b does not take it"
    assert to_give("a", leaders, {"a", "b"}, 4) is None, "one at a time"
    leaders |= {3: "b", 2: "b"}
    assert to_give("a", leaders, {"a", "b"}, 4) is None and to_give("b", leaders, {"a", "b"}, 4) is None


def test_who_may_not_lead_gets_nothing_and_nobody_waits_for_him() -> None:
    leaders = dict.fromkeys(range(4), "a")
    assert to_give("a", leaders, {"a"}, 4) is None
    assert may_take("a", {}, {"a"}, 0.0)


def test_one_shard_stays_where_it_is() -> None:
    assert to_give("a", {0: "a"}, {"a", "b", "c"}, 1) is None
    assert all(may_take(centre, {}, {"a", "b", "c"}, 0.0) for centre in "abc")
