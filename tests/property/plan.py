"""What a seed decides before anything runs: queues, exchanges, bindings, routing keys; and where a message must go.

The routing here is written anew, in plain Python: it is the model that the transport is judged by.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import kombu

FAN, DIRECT, TOPIC = "f", "d", "t"
TYPES = {FAN: "fanout", DIRECT: "direct", TOPIC: "topic"}
WORDS = ("a.x", "a.y", "b.x", "a.y.z")
PATTERNS = ("#", "a.*", "*.x", "a.#", "b.*")
PRIORITIES = (0, 0, 0, 0, 3, 5, 9)
FETCHED = "q0"
"""The queue from which messages are also taken without acknowledgement."""


@dataclass(frozen=True)
class Plan:
    """Queues by name, and (exchange, routing key or pattern, queue) of each binding."""

    queues: tuple[str, ...]
    bindings: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = random.Random(f"plan {seed}")
        queues = tuple(f"q{number}" for number in range(rng.randint(3, 5)))
        bindings = [(FAN, "", queues[-1])]
        for key in ("k0", "k1", "k2"):
            bindings += [(DIRECT, key, queue) for queue in rng.sample(queues, rng.randint(1, min(3, len(queues))))]
        for pattern in rng.sample(PATTERNS, 3):
            bindings.append((TOPIC, pattern, rng.choice(queues)))
        return cls(queues, tuple(dict.fromkeys(bindings)))

    def route(self, rng: random.Random) -> tuple[str, str]:
        """An exchange and a routing key to publish with; the empty exchange means a queue by its name."""
        exchange = rng.choice(("", "", "", DIRECT, DIRECT, TOPIC, FAN))
        keys = {"": self.queues, DIRECT: ("k0", "k1", "k2", "nobody"), TOPIC: WORDS, FAN: ("",)}
        return exchange, rng.choice(keys[exchange])

    def targets(self, exchange: str, routing_key: str) -> frozenset[str]:
        """The lasting queues that a message published so goes to."""
        if not exchange:
            return frozenset({routing_key})
        return frozenset(
            queue
            for bound_to, bound, queue in self.bindings
            if bound_to == exchange
            and (exchange == FAN or (matches(bound, routing_key) if exchange == TOPIC else bound == routing_key))
        )

    def declare(self, channel: Any) -> None:
        """Make all of it."""
        for queue in self.queues:
            kombu.Queue(queue, routing_key=queue)(channel).declare()
        for exchange, key, queue in self.bindings:
            kombu.Queue(queue, exchange_of(exchange), key)(channel).declare()


def exchange_of(name: str) -> kombu.Exchange:
    """Kombu's object for an exchange of the plan."""
    return kombu.Exchange(name, TYPES[name], durable=True)


def matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern matches: `*` is one word, `#` any number of them."""
    return _words(pattern.split("."), key.split("."))


def _words(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words(pattern[1:], words[1:])
