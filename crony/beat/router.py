"""Which node gets an attempt: one of those that can run it, by the job's strategy; and why not the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from crony.beat.book import Book
from crony.domain.grounds import Grounds, grounds
from crony.domain.node import PERMITS
from crony.domain.placing import ANY_QUEUE
from crony.domain.queues import shared
from crony.domain.routing import Busy, Choice, Shares, Strategy, Usable, Wheel, draw, least_busy, rendezvous
from crony.domain.run import Envelope

NEEDS = 5000
"""Most kinds of need whose candidates are remembered."""
STRANGERS = 1000
"""Nodes that are gone and whose turn is remembered, about."""
OVER = {
    Strategy.WEIGHTED: "not in its turn",
    Strategy.LEAST_BUSY: "busier",
    Strategy.RANDOM: "not drawn",
    Strategy.HASH: "not the key's node",
}
"""Why a node that fits was passed over."""
FULL = "all places taken"
AVOIDED = "failed this run before"
_LAST = ("not the node asked for", "excluded by the job")
"""What the job itself says is told last: a reader looks for what he does not know."""


class Need(NamedTuple):
    """What an attempt asks of its node; with `queue`, of those that take from this shared queue."""

    kind: str
    labels: tuple[tuple[str, str], ...]
    node: str | None
    exclude: tuple[str, ...]
    queue: str = ""
    permit: bool = False
    secrets: bool = False

    @classmethod
    def of(cls, envelope: Envelope) -> Need:
        """The need of an envelope."""
        kind = str(envelope.action.get("kind", ""))
        if envelope.strategy == Strategy.ANY:
            return cls(kind, (), None, (), envelope.shared or ANY_QUEUE, envelope.needs_permit)
        labels = tuple(sorted(envelope.labels.items())) if envelope.labels else ()
        permit, secrets = envelope.needs_permit, bool(envelope.secrets)
        return cls(kind, labels, envelope.node, tuple(envelope.exclude), permit=permit, secrets=secrets)


@dataclass(frozen=True, slots=True)
class Field:
    """The nodes that fit a need with their weights, and why the others do not: reason and nodes."""

    fits: Mapping[str, int]
    refused: Sequence[tuple[str, Sequence[str]]]
    shares: Shares
    said: dict[str, str] = field(default_factory=dict)
    """Node -> the line that says why, where its turn alone decided."""


@dataclass(frozen=True, slots=True)
class Route:
    """The node chosen, the incarnation of it, and why: the line of its `Grounds`. For a shared queue no node."""

    node: str
    queue: str
    incarnation: str
    why: str


class Router:
    """Chooses nodes for one leader. Not thread-safe: it belongs to the decision loop."""

    def __init__(self, book: Book, mono: Callable[[], float], rng: Random | None = None) -> None:
        """`mono`: the monotonic clock."""
        self._book, self._mono = book, mono
        self._rng = rng or Random()
        self._fleet = -1
        self._fields: dict[Need, Field] = {}
        self._wheel, self._ties = Wheel(), Wheel()

    def route(self, envelope: Envelope, avoid: Collection[str] = ()) -> Route | None:
        """A live, uncordoned, matching node for the attempt, others than `avoid` first; None: nobody fits.

        With `any` the shared queue, if somebody takes from it; `avoid` then goes for nothing.
        """
        need, strategy = Need.of(envelope), _strategy(envelope)
        if strategy is Strategy.BROADCAST:
            return self._own(envelope, need)
        field = self._field(need)
        if strategy is Strategy.ANY:
            return _share(need, field)
        if strategy is Strategy.WEIGHTED and field.fits and not avoid:
            return self._in_turn(envelope, field)
        busy = self._busy(field.fits) if strategy is Strategy.LEAST_BUSY else {}
        choice = self._pick(strategy, envelope, field.fits, busy, avoid)
        if choice is None:
            return None
        facts = self._book.nodes[choice.node].facts
        said = _said(choice, strategy, field, busy, avoid)
        self._book.load.promise(envelope.run, facts.queue, self._mono())
        return Route(choice.node, facts.queue, facts.incarnation, said.text())

    def _in_turn(self, envelope: Envelope, field: Field) -> Route:
        """As most runs are routed: by turns among all that fit."""
        node = self._wheel.turn(field.shares)
        why = field.said.get(node)
        if why is None:
            choice = self._wheel.choice(node, Usable(field.fits, 0, False))
            why = field.said[node] = _said(choice, Strategy.WEIGHTED, field, {}, ()).text()
        facts = self._book.nodes[node].facts
        self._book.load.promise(envelope.run, facts.queue, self._mono())
        return Route(node, facts.queue, facts.incarnation, why)

    def promise(self, told: Envelope) -> None:
        """The node that an attempt was addressed to before gets it now: it counts as its load."""
        if told.incarnation:
            self._book.load.promise(told.run, told.queue, self._mono())

    def explain(self, envelope: Envelope) -> str:
        """Why nobody fits: each reason with the nodes it holds for."""
        if not any(node.facts.incarnation in self._book.sessions for node in self._book.nodes.values()):
            return "no node is alive"
        need = Need.of(envelope)
        if _strategy(envelope) is Strategy.BROADCAST and envelope.part is not None:
            return grounds("", "", [(self._why_not(need), [need.node or "?"])]).text()
        return grounds("", "", self._field(need).refused).text()

    def everyone(self, envelope: Envelope) -> tuple[list[str], str]:
        """Every node that fits a broadcast, and why the others do not: the line of its `Grounds`."""
        field = self._field(Need.of(envelope))
        nodes = sorted(field.fits)
        return nodes, grounds(f"each of {len(nodes)} nodes has a part", Strategy.BROADCAST, field.refused).text()

    def takers(self, name: str, kind: str) -> int:
        """How many nodes take from a shared queue of this name and kind now."""
        return len(self._field(Need(kind, (), None, (), name)).fits)

    # -- choosing ------------------------------------------------------------------------------

    def _pick(
        self,
        strategy: Strategy,
        envelope: Envelope,
        fits: Mapping[str, int],
        busy: Mapping[str, Busy],
        avoid: Collection[str],
    ) -> Choice | None:
        match strategy:
            case Strategy.LEAST_BUSY:
                return least_busy(fits, busy, self._ties, avoid)
            case Strategy.RANDOM:
                return draw(fits, self._rng, avoid)
            case Strategy.HASH:
                return rendezvous(fits, key_of(envelope), avoid)
        return self._wheel.pick(fits, avoid)

    def _own(self, envelope: Envelope, need: Need) -> Route | None:
        """The node that a part of a broadcast belongs to, if it takes it now. Chosen it was when the run was split."""
        if self._why_not(need):
            return None
        facts = self._book.nodes[need.node or ""].facts
        self._book.load.promise(envelope.run, facts.queue, self._mono())
        why = grounds(f"each of {envelope.parts} nodes has a part", Strategy.BROADCAST, ())
        return Route(facts.name, facts.queue, facts.incarnation, why.text())

    def _why_not(self, need: Need) -> str:
        """Why the node asked for does not fit; empty: it does."""
        return self._weight(need.node, need)[1] if need.node in self._book.nodes else "not registered"

    def _busy(self, nodes: Iterable[str]) -> dict[str, Busy]:
        book = self._book
        book.load.expire(self._mono())
        facts = ((node, book.nodes[node].facts) for node in nodes)
        return {node: Busy(book.load.of(of.queue), of.capacity) for node, of in facts}

    # -- who fits ------------------------------------------------------------------------------

    def _field(self, need: Need) -> Field:
        book = self._book
        if self._fleet != book.fleet or len(self._fields) > NEEDS:
            self._fleet = book.fleet
            self._fields.clear()
            for wheel in (self._wheel, self._ties):
                if len(wheel) > len(book.nodes) + STRANGERS:
                    wheel.keep(book.nodes)
        if need not in self._fields:
            fits: dict[str, int] = {}
            refused: dict[str, list[str]] = {}
            for name in book.nodes:
                weight, reason = self._weight(name, need)
                if reason:
                    refused.setdefault(reason, []).append(name)
                else:
                    fits[name] = weight
            if need.node is not None and need.node not in book.nodes:
                refused.setdefault("not registered", []).append(need.node)
            self._fields[need] = Field(fits, _ordered(refused), Shares.of(fits))
        return self._fields[need]

    def _weight(self, name: str, need: Need) -> tuple[int, str]:
        """The share of a node for this need, and why it does not fit (empty: it does)."""
        facts, (control, _) = self._book.nodes[name].facts, self._book.controls.get(name, (None, 0))
        weight = facts.weight if control is None or control.weight is None else control.weight
        if need.node is not None and need.node != name:
            return 0, "not the node asked for"
        if need.queue and need.queue not in facts.queues:
            return 0, f"does not take from the queue {need.queue}"
        if name in need.exclude:
            return 0, "excluded by the job"
        if facts.incarnation not in self._book.sessions:
            return 0, "away"
        if facts.draining:
            return 0, "stopping"
        if control is not None and control.drain:
            return 0, "drained"
        if control is not None and control.cordoned:
            return 0, "cordoned"
        if need.kind not in facts.kinds:
            return 0, f"does not run {need.kind} jobs"
        if need.secrets and not facts.secret_keys:
            return 0, "has no key for secrets"
        if need.permit and PERMITS not in facts.can:
            return 0, "takes no start permits (upgrade it)"
        labels = facts.labels if control is None or not need.labels else control.over(facts.labels)
        for key, wanted in need.labels:
            if labels.get(key) != wanted:
                return 0, f"{key} is {labels[key]}, not {wanted}" if key in labels else f"has no {key}"
        return (weight, "") if weight > 0 else (0, "weight 0")


def _said(
    choice: Choice, strategy: Strategy, field: Field, busy: Mapping[str, Busy], avoid: Collection[str]
) -> Grounds:
    """The choice with those passed over: first the ones that fit, then the others."""
    spared = bool(avoid) and choice.node not in avoid
    over, others = OVER[strategy], [node for node in field.fits if node != choice.node]
    passed: dict[str, list[str]] = {over: others} if others else {}
    if spared or busy:
        passed = {}
        for node in others:
            reason = AVOIDED if spared and node in avoid else FULL if busy and busy[node].full else over
            passed.setdefault(reason, []).append(node)
    return grounds(choice.why, strategy, [*passed.items(), *field.refused])


def _share(need: Need, field: Field) -> Route | None:
    """The shared queue: whoever takes from it is free first gets the run."""
    count = len(field.fits)
    if not count:
        return None
    who = "the only node that takes" if count == 1 else f"the first of {count} nodes to take it"
    why = grounds(f"{who} from the shared queue {need.queue}", Strategy.ANY, field.refused)
    return Route("", shared(need.queue, need.kind), "", why.text())


def key_of(envelope: Envelope) -> str:
    """What `hash` goes by: the value of the parameter named, or the job's id where there is none such; and the number
    of the part, so that parts spread, and each one stays with its node."""
    part = "" if envelope.part is None else f"#{envelope.part}"
    if envelope.key is None or envelope.key not in envelope.params:
        return envelope.job + part
    value = envelope.params[envelope.key]
    return (value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)) + part


def _strategy(envelope: Envelope) -> Strategy:
    try:
        return Strategy(envelope.strategy)
    except ValueError:  # sealed by a newer centre
        return Strategy.WEIGHTED


def _ordered(refused: Mapping[str, list[str]]) -> list[tuple[str, list[str]]]:
    return sorted(refused.items(), key=lambda pair: pair[0] in _LAST)
