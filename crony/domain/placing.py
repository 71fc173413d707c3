"""The `routing` section of a job document: where its runs may go, and how their nodes are chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crony.domain.check import choice, fields, integer, join, listing, texts
from crony.domain.join import MOST_PARTS
from crony.domain.routing import Strategy
from crony.errors import Invalid
from crony.settings import QUEUE_NAME

ANY_QUEUE = "any"
"""The shared queue of jobs that name none, and the one that nodes take from unless told otherwise."""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9._:/@+-]{1,63}")


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a job may run."""

    strategy: str = "weighted"
    labels: tuple[tuple[str, str], ...] = ()
    """Labels a node must carry, sorted."""
    node: str | None = None
    exclude: tuple[str, ...] = ()
    key: str | None = None
    """With `hash`: the parameter whose value decides; None: the job's id."""
    queue: str | None = None
    """With `any`: the shared queue its runs go to."""
    parts: int | None = None
    """Each run is carried out in so many parts; None: whole."""

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "strategy": self.strategy,
            "labels": dict(self.labels),
            "node": self.node,
            "exclude": list(self.exclude),
            "key": self.key,
            "queue": self.queue,
            "parts": self.parts,
        }


def parse_routing(value: Any, field: str = "routing") -> Routing:
    """The section behind a mapping; the defaults for null. Raises `Invalid` naming the field."""
    if value is None:
        return Routing()
    given = fields(value, field, ("strategy", "labels", "node", "exclude", "key", "queue", "parts"))
    strategy = choice(given.get("strategy", "weighted"), f"{field}.strategy", tuple(Strategy))
    key, queue, parts = given.get("key"), given.get("queue"), given.get("parts")
    if key is not None and strategy != Strategy.HASH:
        raise Invalid(f"{field}.key", "belongs to the strategy hash", hint="set strategy: hash, or leave it out")
    if queue is not None and strategy != Strategy.ANY:
        raise Invalid(f"{field}.queue", "belongs to the strategy any", hint="set strategy: any, or leave it out")
    if parts is not None and strategy == Strategy.BROADCAST:
        hint = "leave it out: a broadcast has a part for each node"
        raise Invalid(f"{field}.parts", "does not go with the strategy broadcast", hint=hint)
    exclude = listing(given.get("exclude", []), f"{field}.exclude", 100)
    node = given.get("node")
    made = Routing(
        strategy=strategy,
        labels=tuple(sorted(parse_labels(given.get("labels"), f"{field}.labels").items())),
        node=None if node is None else texts(node, f"{field}.node", most=200),
        exclude=tuple(texts(item, f"{field}.exclude[{i}]", most=200) for i, item in enumerate(exclude)),
        key=None if key is None else texts(key, f"{field}.key", most=128),
        queue=_queue(queue, f"{field}.queue") if strategy == Strategy.ANY else None,
        parts=None if parts is None else integer(parts, f"{field}.parts", 1, MOST_PARTS),
    )
    if strategy == Strategy.ANY:
        for name in ("labels", "node", "exclude"):
            if getattr(made, name):
                raise Invalid(f"{field}.{name}", "does not go with the strategy any", hint=_HINT)
    return made


_HINT = "remove it, or let only those nodes take from the job's queue: routing.queue, CRONY_NODE_QUEUES"


def _queue(value: Any, field: str) -> str:
    if value is None:
        return ANY_QUEUE
    if not isinstance(value, str) or not QUEUE_NAME.fullmatch(value):
        raise Invalid(field, "is not the name of a queue", hint="use letters, digits, _ and -, at most 63")
    return value


def parse_labels(value: Any, field: str = "labels") -> dict[str, str]:
    """Labels as key=value texts. Raises `Invalid` naming `field`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(field, "must be a mapping of texts", hint="write {zone: a}")
    if len(value) > 32:
        raise Invalid(field, f"has {len(value)} labels; at most 32", hint="shorten it")
    for name, text in value.items():
        path = join(field, str(name))
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise Invalid(path, "is not a label name", hint="use letters, digits and . _ / -, at most 63")
        if not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            raise Invalid(
                path, "is not a label value", hint="use text of letters, digits and . _ : / @ + -, at most 63"
            )
    return dict(value)
