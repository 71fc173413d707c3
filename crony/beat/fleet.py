"""The nodes in a book: which there are, what they say of themselves, and what people set for them."""

from __future__ import annotations

import logging

from crony.beat import facts
from crony.beat.entries import NodeEntry, Presence
from crony.beat.news import News
from crony.domain.node import NodeControl

log = logging.getLogger("crony.beat")


class Fleet:
    """Part of one book: `session/`, `node/` and `nodectl/`, and the stop switch, which stops them all."""

    def __init__(self, news: News) -> None:
        self._news = news
        self.sessions: set[str] = set()
        self.nodes: dict[str, NodeEntry] = {}
        self.incarnations: dict[str, Presence] = {}
        """Every incarnation seen, its end too, until the duty on lost nodes lets go of it."""
        self.controls: dict[str, tuple[NodeControl, int]] = {}
        self.changes = 0
        """Rises whenever the set of nodes, what they can do, or the stop switch changes."""

    def changed(self) -> None:
        """Whatever waits for a node is worth another look."""
        self.changes += 1
        self._news.inbox = self._news.queues = True

    def says(self, node: str, value: bytes, revision: int) -> None:
        """What a node says of itself. Who says nonsense is not counted on, whatever was said before."""
        told = facts.node_facts(node, value)
        if told is None:
            log.error("the record of node %s is not one and is ignored", node)
            self.leaves(node)
            return
        before = self.nodes.get(node)
        self.nodes[node] = NodeEntry(told, revision)
        self.incarnations[told.incarnation] = Presence(node, told.draining)
        if before is None or facts.ability(before.facts) != facts.ability(told):
            self.changed()

    def leaves(self, node: str) -> None:
        """A node is not there any more."""
        if self.nodes.pop(node, None) is not None:
            self.changed()

    def only_present(self) -> None:
        """Incarnations that went while somebody else led are not ours to tell of: a listing would not have them."""
        kept = {each.facts.incarnation: Presence(name, each.facts.draining) for name, each in self.nodes.items()}
        self.incarnations.clear()
        self.incarnations.update(kept)
