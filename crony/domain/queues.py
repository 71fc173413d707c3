"""Names of run queues: each node's own, `run.<node>`, and those that nodes share, `run.@<name>.<kind of action>`."""

from __future__ import annotations

from typing import NamedTuple

from crony.settings import QUEUE_NAME

_OWN, _SHARED = "run.", "run.@"


class Shared(NamedTuple):
    """A shared queue: its name as people give it, and the one kind of action that lies in it."""

    name: str
    kind: str


def own(node: str) -> str:
    """The run queue of a node."""
    return f"{_OWN}{node}"


def shared(name: str, kind: str) -> str:
    """The queue of that name for one kind of action: a node takes only from queues of kinds it runs."""
    return f"{_SHARED}{name}.{kind}"


def read_shared(queue: str) -> Shared | None:
    """What a shared queue is; None for any other queue."""
    if not queue.startswith(_SHARED):
        return None
    name, dot, kind = queue.removeprefix(_SHARED).partition(".")
    return Shared(name, kind) if dot and kind.isalnum() and QUEUE_NAME.fullmatch(name) else None


def node_of(queue: str) -> str:
    """The node that a run queue belongs to; empty when it is shared, or no run queue."""
    return "" if queue.startswith(_SHARED) or not queue.startswith(_OWN) else queue.removeprefix(_OWN)
