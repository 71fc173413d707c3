"""How one node is chosen among those that fit: in turn (weighted), the least busy one, at random, by a key's hash.

Every strategy takes candidates as node -> weight (0 or less takes no work) and `avoid`: nodes that are passed over
while others fit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from random import Random
from typing import NamedTuple

_TURN = 1 << 40
"""One pick, in the wheel's units: shares stay whole numbers, so nothing drifts."""


class Strategy(StrEnum):
    """`routing.strategy` of a job."""

    WEIGHTED = "weighted"
    LEAST_BUSY = "least_busy"
    RANDOM = "random"
    HASH = "hash"
    ANY = "any"
    BROADCAST = "broadcast"


class Choice(NamedTuple):
    """A node and, in one sentence, why it."""

    node: str
    why: str


class Usable(NamedTuple):
    """The candidates a pick is made among; `left_out` were to be avoided and are, `last_resort`: all were to be."""

    nodes: Mapping[str, int]
    left_out: int
    last_resort: bool


class Busy(NamedTuple):
    """How busy a node is: `live` runs it has been given and not ended, on `places` at a time."""

    live: int
    places: int

    @property
    def full(self) -> bool:
        """Whether one more would have to wait there."""
        return self.live >= self.places


def usable(candidates: Mapping[str, int], avoid: Collection[str] = frozenset()) -> Usable:
    """Candidates with a weight, without those to be avoided unless nothing else is left."""
    fitting = candidates
    if min(candidates.values(), default=1) <= 0:
        fitting = {node: weight for node, weight in candidates.items() if weight > 0}
    if not avoid:
        return Usable(fitting, 0, False)
    kept = {node: weight for node, weight in fitting.items() if node not in avoid}
    return Usable(kept, len(fitting) - len(kept), False) if kept else Usable(fitting, 0, bool(fitting))


class Shares(NamedTuple):
    """What each candidate gets of one turn of the wheel, in its units; worked out once for the same candidates."""

    nodes: tuple[tuple[str, int], ...]
    spent: int

    @classmethod
    def of(cls, candidates: Mapping[str, int]) -> Shares:
        """The shares of candidates that all have a weight."""
        total = sum(candidates.values())
        nodes = tuple([(node, weight * _TURN // total) for node, weight in candidates.items()])
        return cls(nodes, sum([share for _, share in nodes]))


class Wheel:
    """Smooth weighted round-robin, as in nginx, with one balance per node.

    Each pick credits every candidate with its share of the turn and charges the chosen one the whole
    turn. So over picks among the same candidates each gets exactly its weight's share, spread
    evenly; over picks among different sets (labels) each gets the sum of its shares. A node that was
    away has earned nothing meanwhile: it comes back to its share, not to a flood.
    """

    __slots__ = ("_balance",)

    def __init__(self) -> None:
        self._balance: dict[str, int] = {}

    def __len__(self) -> int:
        """Nodes it remembers."""
        return len(self._balance)

    def pick(self, candidates: Mapping[str, int], avoid: Collection[str] = frozenset()) -> Choice | None:
        """The next node in turn, or None when nobody fits."""
        among = usable(candidates, avoid)
        if not among.nodes:
            return None
        return self.choice(self.turn(Shares.of(among.nodes)), among)

    def turn(self, shares: Shares) -> str:
        """The next one in turn among these, of which there is one at least."""
        balance = self._balance
        best, highest = "", None
        for node, share in shares.nodes:
            credit = balance.get(node, 0) + share
            balance[node] = credit
            if highest is None or credit > highest:
                best, highest = node, credit
        balance[best] -= shares.spent
        return best

    @staticmethod
    def choice(node: str, among: Usable) -> Choice:
        """That the turn fell on a node, in words."""
        total = sum(among.nodes.values())
        return _choice(node, among, f"its turn among {len(among.nodes)} nodes, weight {among.nodes[node]} of {total}")

    def forget(self, nodes: Iterable[str]) -> None:
        """Drop the balance of nodes that are gone for good, so that names do not pile up."""
        for node in nodes:
            self._balance.pop(node, None)

    def keep(self, nodes: Collection[str]) -> None:
        """Forget every other node."""
        self.forget([node for node in self._balance if node not in nodes])


def least_busy(
    candidates: Mapping[str, int], busy: Mapping[str, Busy], ties: Wheel, avoid: Collection[str] = frozenset()
) -> Choice | None:
    """The node with the least work for its places and weight; one with a free place before one without.

    `busy` knows every candidate. `ties`: the wheel that takes turns among equals.
    """
    among = usable(candidates, avoid)
    if not among.nodes:
        return None
    free = [node for node in among.nodes if not busy[node].full] or list(among.nodes)
    scores = {node: (busy[node].live + 1) / (max(1, busy[node].places) * among.nodes[node]) for node in free}
    least = min(scores.values())
    chosen = ties.pick({node: among.nodes[node] for node in free if scores[node] == least})
    assert chosen is not None
    live, places = busy[chosen.node]
    return _choice(chosen.node, among, f"the least busy of {len(among.nodes)} nodes, {live} of {places} places taken")


def draw(candidates: Mapping[str, int], rng: Random, avoid: Collection[str] = frozenset()) -> Choice | None:
    """A node at random, each as likely as its weight says."""
    among = usable(candidates, avoid)
    if not among.nodes:
        return None
    node = rng.choices(list(among.nodes), list(among.nodes.values()))[0]
    total = sum(among.nodes.values())
    return _choice(node, among, f"drawn among {len(among.nodes)} nodes, weight {among.nodes[node]} of {total}")


def rendezvous(candidates: Mapping[str, int], key: str, avoid: Collection[str] = frozenset()) -> Choice | None:
    """The node a key belongs to: the same one on every leader while it lives.

    Keys spread as the weights say. When a node goes, only its keys move; when one comes, only those it takes over.
    """
    among = usable(candidates, avoid)
    if not among.nodes:
        return None
    node = min(among.nodes, key=lambda name: (_distance(key, name) / among.nodes[name], name))
    return _choice(node, among, f"the key belongs to it among {len(among.nodes)} nodes")


@lru_cache(maxsize=1 << 16)
def _distance(key: str, node: str) -> float:
    """Exponentially distributed, fixed for a key and a node (weighted rendezvous hashing)."""
    digest = hashlib.blake2b(f"{len(key)}:{key}{node}".encode("utf-8", "replace"), digest_size=8).digest()
    return -math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 1))


def _choice(node: str, among: Usable, why: str) -> Choice:
    text = "the only node that fits" if len(among.nodes) == 1 else why
    if among.last_resort:
        text = f"{text}; all that fit were to be avoided"
    elif among.left_out:
        text = f"{text}; {among.left_out} avoided after a failed attempt"
    return Choice(node, text)
