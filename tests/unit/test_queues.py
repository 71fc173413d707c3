"""Names of run queues: what is shared is never taken for a node's own, and the other way round."""

from __future__ import annotations

import pytest

from crony.domain.queues import Shared, node_of, own, read_shared, shared


def test_names() -> None:
    assert (own("n1"), shared("any", "shell")) == ("run.n1", "run.@any.shell")
    assert read_shared("run.@any.shell") == Shared("any", "shell") and node_of("run.@any.shell") == ""
    assert node_of("run.n1") == "n1" and node_of("run.a.b/c") == "a.b/c"


@pytest.mark.parametrize(
    "queue", ["run.n1", "celery", "@any.shell", "run.@", "run.@any", "run.@any.", "run.@any.shell.x", "run.@a/b.shell"]
)
def test_what_is_no_shared_queue(queue: str) -> None:
    assert read_shared(queue) is None


@pytest.mark.parametrize("queue", ["celery", "run", "run.@any", "run.@x.y.z"])
def test_what_is_no_node_s(queue: str) -> None:
    assert node_of(queue) == ""
