"""How consumers of one queue keep out of each other's way."""

from __future__ import annotations

import random

from crony.transport_etcd.contention import MOST_SPREAD, Contention, turn, turns
from crony.transport_etcd.queue import Window


def window(places: list[str]) -> Window:
    made = Window()
    made.begin(1)
    made.extend([(place, 1) for place in places], last=True)
    return made


def test_alone_it_takes_from_the_head() -> None:
    made = window([f"9{number:03}" for number in range(100)])
    calm = Contention()
    for _ in range(50):
        calm.noted(10, 0)
    assert [each.place for each in made.take(3, calm)] == ["9000", "9001", "9002"]


def test_refused_claims_spread_and_peace_brings_back() -> None:
    contention = Contention()
    contention.noted(10, 0)
    assert contention.spread == 0
    contention.noted(10, 8)
    first = contention.spread
    assert first > 0
    for _ in range(20):
        contention.noted(10, 10)
    assert first < contention.spread <= MOST_SPREAD
    for _ in range(500):
        contention.noted(10, 0)
    assert contention.spread == 0


def test_refusals_of_one_who_is_alone_do_not_spread() -> None:
    contention = Contention()
    contention.noted(10, 10, alone=True)
    assert contention.spread == 0
    contention.noted(10, 10)
    contention.noted(10, 0, alone=True)
    assert contention.spread == 0


def test_spread_keeps_priorities_and_reaches_everything() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    random.seed(seed)
    contention = Contention()
    contention.noted(10, 10)
    urgent = [f"0{number:03}" for number in range(60)]
    made = window(urgent + [f"9{number:03}" for number in range(60)])
    taken: list[str] = []
    jumped = False
    while len(taken) < 60:
        batch = [each.place for each in made.take(4, contention)]
        jumped = jumped or batch[0] != min(set(urgent) - set(taken))
        taken += batch
    assert jumped
    assert sorted(taken) == urgent


def test_each_message_has_one_whose_turn_it_is() -> None:
    crowd = [f"i{number}" for number in range(20)]
    won = dict.fromkeys(crowd, 0)
    for number in range(2000):
        first = [each for each in crowd if turn(f"9{number:016x}.e", each, crowd) == 0]
        assert len(first) == 1
        won[first[0]] += 1
    assert min(won.values()) > 60 and max(won.values()) < 150
    assert turns(["9a", "9b"], "i1", crowd) == [turn("9a", "i1", crowd), turn("9b", "i1", crowd)]


def test_take_these_takes_what_is_still_ready() -> None:
    made = window(["9a", "9b", "9c"])
    assert [each.place for each in made.take_these(["9b", "9x"])] == ["9b"]
    assert [each.place for each in made.take(5)] == ["9a", "9c"]
