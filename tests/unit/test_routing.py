"""Choosing one node: exact shares in turn, no flood after an absence, least busy, drawn, by a key's hash."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from crony.domain.routing import Busy, Wheel, draw, least_busy, rendezvous

WEIGHTS = st.dictionaries(st.sampled_from(list("abcdefgh")), st.integers(1, 12), min_size=1, max_size=8)


def picks(wheel: Wheel, weights: dict[str, int], times: int) -> list[str]:
    chosen = [wheel.pick(weights) for _ in range(times)]
    return [choice.node for choice in chosen if choice is not None]


def test_the_textbook_sequence() -> None:
    assert "".join(picks(Wheel(), {"a": 5, "b": 1, "c": 1}, 14)) == "aabacaa" * 2


@given(WEIGHTS, st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_shares_are_exact_over_each_round(weights: dict[str, int], rounds: int) -> None:
    wheel = Wheel()
    for _ in range(rounds):
        assert Counter(picks(wheel, weights, sum(weights.values()))) == weights


@given(WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_shares_are_spread_evenly(weights: dict[str, int]) -> None:
    """After every single pick each node is within one turn per other node of its exact share."""
    wheel, total, seen = Wheel(), sum(weights.values()), Counter[str]()
    for step, node in enumerate(picks(wheel, weights, 2 * total), 1):
        seen[node] += 1
        for name, weight in weights.items():
            assert abs(seen[name] - step * weight / total) < max(1, len(weights) - 1)


@given(st.lists(st.tuples(WEIGHTS, st.integers(1, 30)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_shares_hold_over_changing_candidates(stretches: list[tuple[dict[str, int], int]]) -> None:
    """Jobs with labels see different nodes: each node still gets the sum of its shares, give or take a few turns."""
    wheel, due, seen = Wheel(), Counter[str](), Counter[str]()
    for weights, times in stretches:
        for node in picks(wheel, weights, times):
            seen[node] += 1
        for name, weight in weights.items():
            due[name] += times * weight / sum(weights.values())  # type: ignore[assignment]
    for name in due:
        assert abs(seen[name] - due[name]) < 8


def test_a_node_that_comes_back_is_not_flooded() -> None:
    wheel, weights = Wheel(), {"a": 1, "b": 1, "c": 1}
    picks(wheel, weights, 100)
    picks(wheel, {"a": 1, "b": 1}, 1000)
    back = picks(wheel, weights, 30)
    assert 9 <= back.count("c") <= 11
    assert back[:6].count("c") <= 3


def test_a_new_node_is_not_flooded() -> None:
    wheel = Wheel()
    picks(wheel, {"a": 3, "b": 3}, 5000)
    assert picks(wheel, {"a": 3, "b": 3, "new": 3}, 9).count("new") == 3


def test_weight_zero_takes_nothing() -> None:
    wheel = Wheel()
    assert set(picks(wheel, {"a": 1, "b": 0, "c": -5}, 50)) == {"a"}
    assert wheel.pick({"b": 0}) is None
    assert wheel.pick({}) is None


def test_avoided_nodes_come_last() -> None:
    wheel = Wheel()
    assert {wheel.pick({"a": 1, "b": 9}, {"b"}).node for _ in range(20)} == {"a"}  # type: ignore[union-attr]
    last = wheel.pick({"b": 9, "c": 0}, {"b"})
    assert last is not None
    assert last.node == "b"
    assert "were to be avoided" in last.why


def test_why_says_it_in_one_sentence() -> None:
    wheel = Wheel()
    assert wheel.pick({"a": 1}).why == "the only node that fits"  # type: ignore[union-attr]
    assert wheel.pick({"a": 1, "b": 3}).why == "its turn among 2 nodes, weight 3 of 4"  # type: ignore[union-attr]
    why = wheel.pick({"a": 1, "b": 1, "c": 1}, ["c"]).why  # type: ignore[union-attr]
    assert why.endswith("1 avoided after a failed attempt")


def test_changed_weights_take_effect_at_once() -> None:
    wheel = Wheel()
    picks(wheel, {"a": 1, "b": 1}, 101)
    assert Counter(picks(wheel, {"a": 1, "b": 3}, 400))["b"] in range(298, 303)


def test_forgotten_nodes_leave_nothing() -> None:
    wheel = Wheel()
    picks(wheel, {"a": 1, "b": 2}, 7)
    wheel.forget(["a", "b", "never-seen"])
    assert picks(wheel, {"a": 1, "b": 2}, 3) == picks(Wheel(), {"a": 1, "b": 2}, 3)


# -- the other strategies ------------------------------------------------------------------------


def busy_of(live: dict[str, int], places: int = 4) -> dict[str, Busy]:
    return {node: Busy(live.get(node, 0), places) for node in "abc"}


def test_the_least_busy_for_its_places_and_weight() -> None:
    even = {"a": 100, "b": 100, "c": 100}
    choice = least_busy(even, busy_of({"a": 2, "b": 1, "c": 3}), Wheel())
    assert choice == ("b", "the least busy of 3 nodes, 1 of 4 places taken")
    assert least_busy({"a": 100, "b": 300}, busy_of({"a": 0, "b": 1}), Wheel()).node == "b"  # type: ignore[union-attr]
    sizes = {"small": Busy(1, 2), "large": Busy(6, 32)}
    assert least_busy({"small": 1, "large": 1}, sizes, Wheel()).node == "large"  # type: ignore[union-attr]


def test_a_free_place_counts_more_than_weight() -> None:
    full = {"strong": Busy(4, 4), "weak": Busy(3, 4)}
    assert least_busy({"strong": 1000, "weak": 1}, full, Wheel()).node == "weak"  # type: ignore[union-attr]
    none_free = {"strong": Busy(9, 4), "weak": Busy(8, 4)}
    assert least_busy({"strong": 1000, "weak": 1}, none_free, Wheel()).node == "strong"  # type: ignore[union-attr]


def test_equals_take_turns() -> None:
    ties, idle = Wheel(), busy_of({})
    chosen = [least_busy({"a": 1, "b": 1, "c": 1}, idle, ties) for _ in range(9)]
    assert Counter(choice.node for choice in chosen if choice) == {"a": 3, "b": 3, "c": 3}


def test_a_draw_is_as_likely_as_its_weight() -> None:
    rng = Random(7)
    seen = Counter(draw({"a": 1, "b": 3, "c": 0}, rng).node for _ in range(4000))  # type: ignore[union-attr]
    assert set(seen) == {"a", "b"} and 2850 < seen["b"] < 3150
    assert draw({}, rng) is None and draw({"a": 1, "b": 9}, rng, {"b"}).node == "a"  # type: ignore[union-attr]


KEYS = [f"customer-{n}" for n in range(2000)]


def homes(nodes: dict[str, int], avoid: set[str] = frozenset()) -> dict[str, str]:  # type: ignore[assignment]
    return {key: rendezvous(nodes, key, avoid).node for key in KEYS}  # type: ignore[union-attr]


def test_a_key_keeps_its_node_and_only_those_of_a_lost_node_move() -> None:
    before = homes({"a": 100, "b": 100, "c": 100, "d": 100})
    assert all(430 < count < 570 for count in Counter(before.values()).values())
    after = homes({"d": 100, "b": 100, "a": 100})
    assert {key for key in KEYS if before[key] != after[key]} == {key for key in KEYS if before[key] == "c"}
    assert len({after[key] for key in KEYS if before[key] == "c"}) == 3, "and they spread"
    assert homes({"a": 100, "b": 100, "c": 100, "d": 100}, {"c"}) == after, "an avoided node is as a lost one"


def test_a_raised_weight_takes_keys_from_the_others_only() -> None:
    before, after = homes({"a": 100, "b": 100}), homes({"a": 100, "b": 300})
    moved = {(before[key], after[key]) for key in KEYS if before[key] != after[key]}
    assert moved == {("a", "b")} and 1420 < Counter(after.values())["b"] < 1580


def test_a_key_has_the_same_node_on_every_version() -> None:
    assert [rendezvous({"a": 1, "b": 1, "c": 1}, key).node for key in KEYS[:8]] == list("ccbbbbab")  # type: ignore[union-attr]
