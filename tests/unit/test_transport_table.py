"""Where a message goes: an exchange's table answers as a look at every binding would."""

from __future__ import annotations

import random
import re

import pytest
from kombu.transport.virtual.exchange import TopicExchange

from crony.transport_etcd.exchange import Binding, Table

WORDS = ("a", "b", "ab", "*", "#")


def looked_up(table: Table, routing_key: str) -> set[str]:
    def matches(bound: str) -> bool:
        if table.type == "topic":
            return re.match(TopicExchange(None).key_to_pattern(bound), routing_key) is not None
        return table.type == "fanout" or bound == routing_key

    return {each.queue for each in table.bindings if matches(each.routing_key)}


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_it_finds_what_a_look_at_every_binding_finds(kind: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)

    def key(words: tuple[str, ...]) -> str:
        return ".".join(rng.choice(words) for _ in range(rng.randint(1, 3)))

    for _ in range(100):
        bindings = tuple(Binding(f"q{rng.randrange(6)}", key(WORDS)) for _ in range(rng.randrange(12)))
        table = Table(1, kind, bindings)
        for _ in range(10):
            asked = key(WORDS[:3])
            found = [each.queue for each in table.matching(asked)]
            assert len(found) == len(set(found)) and set(found) == looked_up(table, asked), (asked, bindings)
