"""What nodes and people say of nodes, read with care: a node may write anything."""

from __future__ import annotations

import json
from typing import TypeVar

from crony.domain.alerting import LiveRule, Rule
from crony.domain.node import NodeControl, NodeFacts
from crony.domain.queues import own
from crony.domain.record import Record, UnknownRecord
from crony.domain.run import Claim
from crony.domain.signing import peek
from crony.errors import Invalid

R = TypeVar("R", bound=Record)
_CAREFUL = NodeControl(cordoned=True)
"""How orders for a node that nobody can read are taken."""


def read(kind: type[R], value: bytes) -> R | None:
    """The record, or None when it is not one: whoever acts on it decides what that means."""
    try:
        return kind.read(value)
    except UnknownRecord:
        return None


def node_facts(node: str, value: bytes) -> NodeFacts | None:
    """What a node says of itself; None when it cannot be used."""
    facts = read(NodeFacts, value)
    return facts if facts is not None and _sound(facts) and facts.name == node else None


def ability(facts: NodeFacts) -> tuple[object, ...]:
    """What decides which runs a node may get, and how many."""
    what = facts.weight, facts.capacity, facts.labels, facts.kinds, facts.queues, facts.secret_keys
    return facts.incarnation, facts.queue, facts.draining, *what


def orders(value: bytes) -> NodeControl:
    """What people set for a node."""
    control = read(NodeControl, value) or _CAREFUL
    sound = (control.weight is None or type(control.weight) is int) and isinstance(control.labels, dict)
    return control if sound else _CAREFUL


def claim(value: bytes) -> Claim:
    """A claim; of one that nobody can read, the careful reading: its work may have started."""
    found = read(Claim, value)
    if found is None or not all(isinstance(text, str) for text in (found.incarnation, found.node)):
        return Claim(incarnation="?", phase="S")
    return found


def stopped(value: bytes) -> bool:
    """Whether the stop switch is on."""
    try:
        return bool(json.loads(value).get("stop", False))
    except (ValueError, AttributeError):
        return True


def rule(value: bytes) -> Rule | None:
    """An alert rule as it is written, not verified; None: it is deleted, or cannot be read."""
    try:
        live = LiveRule.read(peek(value))
        return None if live.deleted else live.rule()
    except (UnknownRecord, Invalid, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _sound(facts: NodeFacts) -> bool:
    """Whether the parts that are computed with are what they should be."""
    return (
        all(isinstance(text, str) for text in (facts.name, facts.incarnation, facts.queue, *facts.kinds))
        and facts.queue == own(facts.name)
        and not facts.name.startswith("@")
        and isinstance(facts.queues, list)
        and isinstance(facts.secret_keys, list)
        and all(isinstance(name, str) for name in facts.queues)
        and type(facts.weight) is int
        and type(facts.capacity) is int
        and isinstance(facts.labels, dict)
        and isinstance(facts.kinds, list)
        and isinstance(facts.draining, bool)
    )
